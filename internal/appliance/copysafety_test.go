package appliance_test

import (
	"errors"
	"fmt"
	"slices"
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

// What the RDS itself may write to, and what has no owner, is not copied in any way.
func TestSourcesThatAreNotCopied(t *testing.T) {
	for _, filesystem := range []string{"btrfs", "xfs"} {
		r := startOn(t, filesystem, map[string]string{"slot-over-32": "accept"})
		flat := flatDisk(adoptedSlot)
		flat.Cluster = ""
		r.device.PutDisk(t, flat)
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		r.device.console(t, `/disk set [find slot="`+v.ID.Slot+`"] mount-filesystem=yes`)
		files := r.device.Files(t)
		for slot, want := range map[string]error{adoptedSlot: appliance.ErrForeign, v.ID.Slot: appliance.ErrMounted} {
			_, snapshot := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: slot})
			_, clone := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: slot}})
			if !errors.Is(snapshot, want) || !errors.Is(clone, want) {
				t.Errorf("%s: %v, %v, want %v", filesystem, snapshot, clone, want)
			}
			if on, _ := r.server.Device.Disk(slot); !on.Export {
				t.Errorf("%s: %+v", filesystem, on)
			}
		}
		if now := r.device.Files(t); !slices.Equal(now, files) {
			t.Errorf("%s: %v, were %v", filesystem, now, files)
		}
		// Attaching puts both right.
		for i, slot := range []string{adoptedSlot, v.ID.Slot} {
			if _, err := r.Export(t.Context(), slot); err != nil {
				t.Fatal(err)
			}
			r.readySnapshot(t, fmt.Sprint("snapshot-", i), slot)
		}
	}
}
