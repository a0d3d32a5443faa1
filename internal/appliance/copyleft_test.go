package appliance_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Beside the copy stays the proof that it is whole, and nothing else of how it was made: neither where the job ends before the
// command that began it, nor where it ends long after.
func TestOnlyTheProofStaysBesideACopy(t *testing.T) {
	for _, took := range []string{"0s", "300ms"} {
		r := startOn(t, "xfs", map[string]string{"file-copy-time": took})
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		s := r.readySnapshot(t, "snapshot-1", v.ID.Slot)
		r.readyVolume(t, appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Snapshot: s.ID.Slot}})
		ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 0, nil })
		marks := slices.DeleteFunc(r.device.Files(t), func(f string) bool { return strings.HasSuffix(f, ".img") })
		if len(marks) != 1 || !strings.HasSuffix(marks[0], s.ID.Slot+"."+v.ID.Slot+".done") {
			t.Errorf("a copy that took %s left %q", took, marks)
		}
	}
}
