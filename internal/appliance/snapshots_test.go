package appliance_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

func (r rig) snapshot(t *testing.T, name, source string) appliance.Snapshot {
	t.Helper()
	s, err := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: name, Source: source})
	if err != nil {
		t.Fatalf("snapshot %s of %s: %v", name, source, err)
	}
	return s
}

// ready repeats a call that has to wait for a copy, as the sidecars do.
func ready[T any](t *testing.T, do func() (T, bool, error)) T {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, is, err := do()
		if err != nil && !errors.Is(err, appliance.ErrCopying) {
			t.Fatal(err)
		}
		if is {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready within 20 s: %+v", got)
		}
	}
}

func (r rig) readySnapshot(t *testing.T, name, source string) appliance.Snapshot {
	t.Helper()
	return ready(t, func() (appliance.Snapshot, bool, error) {
		s := r.snapshot(t, name, source)
		return s, s.Ready, nil
	})
}

func TestSnapshotOnBtrfs(t *testing.T) {
	r := start(t, nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	r.device.scribble(t, v.Path.Disk(), "before")
	var s appliance.Snapshot
	if n := r.commands(func() { s = r.snapshot(t, "snapshot-1", v.ID.Slot) }); n != 1 {
		t.Errorf("%d commands", n)
	}
	if !s.Ready || s.SizeBytes != gib || s.SourceVolume != v.ID || s.ID.Slot != appliance.SnapshotIDFor("homelab", "snapshot-1") || time.Since(s.Created) > time.Hour {
		t.Errorf("%+v", s)
	}
	r.device.scribble(t, v.Path.Disk(), "after!")
	if !r.device.holds(s.Path.Disk(), "before") {
		t.Error("the snapshot does not hold what was there")
	}
	if again := r.snapshot(t, "snapshot-1", v.ID.Slot); again != s {
		t.Errorf("again %+v, first %+v", again, s)
	}
}

func TestSnapshotByFullCopy(t *testing.T) {
	r := startOn(t, "xfs", nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	r.device.scribble(t, v.Path.Disk(), "before")
	release := r.server.Device.HoldCopies()
	var s appliance.Snapshot
	if n := r.commands(func() { s = r.snapshot(t, "snapshot-1", v.ID.Slot) }); n != 2 || s.Ready {
		t.Errorf("%d commands, %+v", n, s)
	}
	if _, err := r.Export(t.Context(), v.ID.Slot); !errors.Is(err, appliance.ErrCopying) {
		t.Errorf("attached while it is copied: %v", err)
	}
	half := ready(t, func() (appliance.Snapshot, bool, error) {
		s := r.snapshot(t, "snapshot-1", v.ID.Slot)
		return s, s.Progress > 0, nil
	})
	if half.Ready || half.Progress != 0.5 || half.SizeBytes != gib {
		t.Errorf("half-way %+v", half)
	}
	if r.server.Device.Jobs() != 1 {
		t.Errorf("%d jobs", r.server.Device.Jobs())
	}
	release()
	s = r.readySnapshot(t, "snapshot-1", v.ID.Slot)
	if s.SizeBytes != gib || s.Progress != 1 || s.Name != "snapshot-1" || time.Since(s.Created) > time.Hour {
		t.Errorf("%+v", s)
	}
	if !r.device.holds(s.Path.Disk(), "before") {
		t.Error("the snapshot does not hold what was there")
	}
	if v, err := r.Export(t.Context(), v.ID.Slot); err != nil || !v.Exported {
		t.Errorf("%+v, %v", v, err)
	}
	if list, err := r.ListSnapshots(t.Context()); err != nil || len(list) != 1 || list[0] != s {
		t.Errorf("listed %+v, %v", list, err)
	}
	for range 2 {
		if err := r.DeleteSnapshot(t.Context(), s.ID.Slot); err != nil {
			t.Error(err)
		}
	}
	if err := r.Delete(t.Context(), v.ID.Slot); err != nil {
		t.Error(err)
	}
	if files := r.device.Files(t); len(files) != 0 {
		t.Errorf("left %s", strings.Join(files, " "))
	}
}
