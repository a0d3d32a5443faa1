package appliance_test

import (
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// The mark that says which job makes a copy is lost, and the job lives on: once a node may write, nothing that it has copied
// counts.
func TestNoCopyIsProvenAfterItsSourceWasExported(t *testing.T) {
	for _, mark := range []string{"", "*FF 2026-01-01 00:00:00"} {
		r, v, release := copied(t, nil)
		id := appliance.SnapshotIDFor("homelab", "snapshot-1")
		r.device.console(t, `/file remove [find where name~"[.]job\$"]`)
		if mark != "" {
			r.device.write(t, "/storage-pool/k8s/"+id+"."+v.ID.Slot+".job", []byte(mark))
		}
		if v, err := r.Export(t.Context(), v.ID.Slot); err != nil || !v.Exported || r.server.Device.Jobs() != 1 {
			t.Fatalf("%q: %+v, %v, %d jobs", mark, v, err, r.server.Device.Jobs())
		}
		r.device.scribble(t, v.Path.Disk(), "after!")
		release()
		ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 0, nil })
		if s, err := r.GetSnapshot(t.Context(), id); err == nil && s.Ready {
			t.Errorf("%q: %+v of what was written while it was copied", mark, s)
		}
		_, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Snapshot: id}})
		if err == nil {
			t.Errorf("%q: restored from it", mark)
		}
	}
}
