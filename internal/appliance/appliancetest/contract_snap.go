package appliancetest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

func (s scene) id(name string) string { return appliance.SnapshotIDFor(s.settings.ClusterID, name) }

// await repeats a call until a copy is done, as the sidecars do.
func await[T any](t *testing.T, do func() (T, bool, error)) T {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, ready, err := do()
		if err != nil && !errors.Is(err, appliance.ErrCopying) {
			t.Fatal(err)
		}
		if ready {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready within 20 s: %+v", got)
		}
	}
}

// snapshot takes a snapshot and waits for it.
func (s scene) snapshot(t *testing.T, name, source string) appliance.Snapshot {
	t.Helper()
	return await(t, func() (appliance.Snapshot, bool, error) {
		got, err := s.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: name, Source: source})
		return got, err == nil && got.Ready, err
	})
}

// from makes a volume of a source and waits for it.
func (s scene) from(t *testing.T, req appliance.CreateRequest) appliance.Volume {
	t.Helper()
	return await(t, func() (appliance.Volume, bool, error) {
		got, err := s.Create(t.Context(), req)
		return got, err == nil, err
	})
}

func testSnapshot(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	got := s.snapshot(t, "snapshot-1", v.ID.Slot)
	if got.ID != (appliance.ID{RDS: "rds1", Slot: s.id("snapshot-1")}) || got.SourceVolume != v.ID || got.SizeBytes != gib || got.Progress != 1 ||
		time.Since(got.Created).Abs() > time.Hour || got.Path.IsZero() {
		t.Errorf("%+v", got)
	}
	if read, err := s.GetSnapshot(t.Context(), got.ID.Slot); err != nil || !same(read, got) {
		t.Errorf("read %+v, %v, taken %+v", read, err, got)
	}
	if again := s.snapshot(t, "snapshot-1", v.ID.Slot); !same(again, got) {
		t.Errorf("again %+v, first %+v", again, got)
	}
	second := s.snapshot(t, "snapshot-2", v.ID.Slot)
	list, err := s.ListSnapshots(t.Context())
	if err != nil || len(list) != 2 || !slices.IsSortedFunc(list, func(a, b appliance.Snapshot) int { return strings.Compare(a.ID.Slot, b.ID.Slot) }) {
		t.Errorf("listed %+v, %v", list, err)
	}
	if disks := s.device.Disks(t); len(disks) != 1 {
		t.Errorf("a snapshot is an item that somebody can connect to: %+v", disks)
	}
	// A snapshot outlives its source, on every kind of pool.
	if err := s.Delete(t.Context(), v.ID.Slot); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{got.ID.Slot, got.ID.Slot, second.ID.Slot, s.id("never"), "not-a-snapshot"} {
		if read, err := s.GetSnapshot(t.Context(), id); (err == nil && !read.Ready) || (err != nil && !errors.Is(err, appliance.ErrNotFound)) {
			t.Errorf("%s after its source went: %+v, %v", id, read, err)
		}
		if err := s.DeleteSnapshot(t.Context(), id); err != nil {
			t.Errorf("delete %s: %v", id, err)
		}
		_, err := s.GetSnapshot(t.Context(), id)
		is(t, err, appliance.ErrNotFound)
	}
	if files := s.device.Files(t); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
}

// same leaves the name out: on Btrfs nothing keeps it.
func same(a, b appliance.Snapshot) bool {
	a.Name, b.Name = "", ""
	return a == b
}

func testSnapshotRefuses(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	other := s.create(t, appliance.CreateRequest{Name: "pvc-2", RequiredBytes: gib})
	s.snapshot(t, "snapshot-1", v.ID.Slot)
	s.device.PutDisk(t, foreign("other"))
	s.unchanged(t, func() {
		for _, c := range []struct {
			req  appliance.SnapshotRequest
			want error
		}{
			{appliance.SnapshotRequest{Source: v.ID.Slot}, appliance.ErrInvalid},
			{appliance.SnapshotRequest{Name: strings.Repeat("n", 129), Source: v.ID.Slot}, appliance.ErrInvalid},
			{appliance.SnapshotRequest{Name: "x", Source: "no/slot"}, appliance.ErrInvalid},
			{appliance.SnapshotRequest{Name: "x", Source: s.slot("absent")}, appliance.ErrNotFound},
			{appliance.SnapshotRequest{Name: "x", Source: foreign("other").Slot}, appliance.ErrForeign},
			{appliance.SnapshotRequest{Name: "snapshot-1", Source: other.ID.Slot}, appliance.ErrIncompatible},
		} {
			_, err := s.CreateSnapshot(t.Context(), c.req)
			is(t, err, c.want)
		}
	})
}

// A pool that shares blocks takes a snapshot of what is attached; any other refuses, and gives up a copy that it has begun.
func testSnapshotAttached(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	req := appliance.SnapshotRequest{Name: "snapshot-1", Source: v.ID.Slot, Attached: true}
	if s.cow {
		if got, err := s.CreateSnapshot(t.Context(), req); err != nil || !got.Ready {
			t.Errorf("%+v, %v", got, err)
		}
		return
	}
	s.unchanged(t, func() {
		_, err := s.CreateSnapshot(t.Context(), req)
		is(t, err, appliance.ErrAttached)
	})
	defer s.device.HoldCopies(t)()
	req.Attached = false
	if got, err := s.CreateSnapshot(t.Context(), req); err != nil || got.Ready {
		t.Errorf("%+v, %v", got, err)
	}
	_, err := s.Export(t.Context(), v.ID.Slot)
	is(t, err, appliance.ErrCopying)
	req.Attached = true
	_, err = s.CreateSnapshot(t.Context(), req)
	is(t, err, appliance.ErrAttached)
	if got, err := s.Export(t.Context(), v.ID.Slot); err != nil || got != v {
		t.Errorf("%+v, %v", got, err)
	}
	if list, err := s.ListSnapshots(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func testSnapshotsOfOthers(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	theirs := appliance.SnapshotIDFor("other", "snapshot-1")
	s.device.PutFile(t, "/storage-pool/k8s/"+theirs+"."+v.ID.Slot+".img")
	s.device.PutFile(t, "/storage-pool/k8s/"+theirs+"."+v.ID.Slot+".done")
	s.unchanged(t, func() {
		_, get := s.GetSnapshot(t.Context(), theirs)
		_, restore := s.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Snapshot: theirs}})
		is(t, get, appliance.ErrForeign)
		is(t, s.DeleteSnapshot(t.Context(), theirs), appliance.ErrForeign)
		is(t, restore, appliance.ErrNotFound)
		if list, err := s.ListSnapshots(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

func testRestore(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: 2 * gib})
	shot := s.snapshot(t, "snapshot-1", v.ID.Slot)
	for _, c := range []struct {
		name                  string
		source                appliance.Source
		required, limit, want int64
	}{
		{"as-is", appliance.Source{Snapshot: shot.ID.Slot}, 0, 0, 2 * gib},
		{"smaller", appliance.Source{Snapshot: shot.ID.Slot}, gib, 0, 2 * gib},
		{"larger", appliance.Source{Snapshot: shot.ID.Slot}, 3*gib + 1, 0, 3*gib + mib},
		{"clone", appliance.Source{Volume: v.ID.Slot}, 2 * gib, 2 * gib, 2 * gib},
		{"large-clone", appliance.Source{Volume: v.ID.Slot}, 4 * gib, 0, 4 * gib},
	} {
		req := appliance.CreateRequest{Name: c.name, Claim: "web/" + c.name, RequiredBytes: c.required, LimitBytes: c.limit, Source: c.source}
		got := s.from(t, req)
		on := s.device.Disks(t)[got.ID.Slot]
		if got.SizeBytes != c.want || on.SizeBytes != c.want || got.Source != c.source || got.Claim != req.Claim || got.Name != c.name ||
			!got.Presentable() || got.NQN == v.NQN || on.From != c.source.Volume+c.source.Snapshot {
			t.Errorf("%s: %+v, on the device %+v", c.name, got, on)
		}
		if again := s.from(t, req); again != got {
			t.Errorf("%s again: %+v, first %+v", c.name, again, got)
		}
		req.Source = appliance.Source{}
		_, err := s.Create(t.Context(), req)
		is(t, err, appliance.ErrIncompatible)
		if err := s.Delete(t.Context(), got.ID.Slot); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(s.Delete(t.Context(), v.ID.Slot), s.DeleteSnapshot(t.Context(), shot.ID.Slot)); err != nil {
		t.Error(err)
	}
	if disks, files := s.device.Disks(t), s.device.Files(t); len(disks) != 0 || len(files) != 0 {
		t.Errorf("left: %+v %v", disks, files)
	}
}

func testRestoreRefuses(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: 2 * gib})
	s.device.PutDisk(t, foreign("other"))
	s.unchanged(t, func() {
		for _, c := range []struct {
			source appliance.Source
			limit  int64
			want   error
		}{
			{appliance.Source{Volume: s.slot("absent")}, 0, appliance.ErrNotFound},
			{appliance.Source{Snapshot: s.id("absent")}, 0, appliance.ErrNotFound},
			{appliance.Source{Snapshot: "snap-x"}, 0, appliance.ErrNotFound},
			{appliance.Source{Volume: "no/slot"}, 0, appliance.ErrInvalid},
			{appliance.Source{Volume: v.ID.Slot, Snapshot: s.id("x")}, 0, appliance.ErrInvalid},
			{appliance.Source{Volume: foreign("other").Slot}, 0, appliance.ErrForeign},
			{appliance.Source{Volume: v.ID.Slot}, gib, appliance.ErrOutOfRange},
		} {
			_, err := s.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", LimitBytes: c.limit, Source: c.source})
			is(t, err, c.want)
		}
	})
}

func testCloneAttached(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	req := appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: v.ID.Slot}, SourceAttached: true}
	if s.cow {
		s.create(t, req)
		return
	}
	s.unchanged(t, func() {
		_, err := s.Create(t.Context(), req)
		is(t, err, appliance.ErrAttached)
	})
	release := s.device.HoldCopies(t)
	defer release()
	req.SourceAttached = false
	for range 2 {
		_, err := s.Create(t.Context(), req)
		is(t, err, appliance.ErrCopying)
	}
	_, err := s.Export(t.Context(), v.ID.Slot)
	is(t, err, appliance.ErrCopying)
	req.SourceAttached = true
	_, err = s.Create(t.Context(), req)
	is(t, err, appliance.ErrAttached)
	release()
	req.SourceAttached = false
	s.from(t, req)
	if got, err := s.Export(t.Context(), v.ID.Slot); err != nil || got != v {
		t.Errorf("%+v, %v", got, err)
	}
}
