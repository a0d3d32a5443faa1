package appliance_test

import (
	"errors"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// readyVolume repeats a create until its copy is done, as the provisioner does.
func (r rig) readyVolume(t *testing.T, req appliance.CreateRequest) appliance.Volume {
	t.Helper()
	return ready(t, func() (appliance.Volume, bool, error) {
		v, err := r.Create(t.Context(), req)
		return v, err == nil, err
	})
}

func TestRestoreAndClone(t *testing.T) {
	for filesystem, commands := range map[string]int{"btrfs": 1, "xfs": 2} {
		t.Run(filesystem, func(t *testing.T) {
			r := startOn(t, filesystem, nil)
			v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
			r.device.scribble(t, v.Path.Disk(), "before")
			s := r.readySnapshot(t, "snapshot-1", v.ID.Slot)
			r.device.scribble(t, v.Path.Disk(), "after!")

			for name, c := range map[string]struct {
				req    appliance.CreateRequest
				want   string
				source appliance.Source
			}{
				"restored":        {appliance.CreateRequest{RequiredBytes: gib}, "before", appliance.Source{Snapshot: s.ID.Slot}},
				"restored larger": {appliance.CreateRequest{RequiredBytes: 3 * gib}, "before", appliance.Source{Snapshot: s.ID.Slot}},
				"restored as is":  {appliance.CreateRequest{}, "before", appliance.Source{Snapshot: s.ID.Slot}},
				"cloned":          {appliance.CreateRequest{RequiredBytes: 2 * gib}, "after!", appliance.Source{Volume: v.ID.Slot}},
			} {
				c.req.Name, c.req.Source = name, c.source
				if n := r.commands(func() { _, _ = r.Create(t.Context(), c.req) }); n != commands {
					t.Errorf("%s: %d commands, want %d", name, n, commands)
				}
				got := r.readyVolume(t, c.req)
				on, _ := r.server.Device.Disk(got.ID.Slot)
				want := max(c.req.RequiredBytes, gib)
				if got.SizeBytes != want || on.FileSize != want || got.Source != c.source || !got.Presentable() || !on.Up || on.NQN != appliance.NQNFor(got.ID.Slot) {
					t.Errorf("%s: %+v, on the device %+v", name, got, on)
				}
				if !r.device.holds(got.Path.Disk(), c.want) {
					t.Errorf("%s does not hold %q", name, c.want)
				}
				r.device.scribble(t, got.Path.Disk(), "its own")
				if again, err := r.Create(t.Context(), c.req); err != nil || again != got {
					t.Errorf("%s again: %+v, %v", name, again, err)
				}
				other := c.req
				other.Source = appliance.Source{Volume: "pvc-else"}
				if _, err := r.Create(t.Context(), other); !errors.Is(err, appliance.ErrIncompatible) {
					t.Errorf("%s from something else: %v", name, err)
				}
				if err := r.Delete(t.Context(), got.ID.Slot); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if !r.device.holds(v.Path.Disk(), "after!") || !r.device.holds(s.Path.Disk(), "before") {
				t.Error("a copy reaches its source")
			}
			for _, id := range []string{v.ID.Slot} {
				if err := r.Delete(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
			// The source is gone, the snapshot is not.
			got := r.readyVolume(t, appliance.CreateRequest{Name: "last", RequiredBytes: gib, Source: appliance.Source{Snapshot: s.ID.Slot}})
			if !r.device.holds(got.Path.Disk(), "before") {
				t.Error("the snapshot went with its source")
			}
			if err := errors.Join(r.DeleteSnapshot(t.Context(), s.ID.Slot), r.Delete(t.Context(), got.ID.Slot)); err != nil {
				t.Error(err)
			}
			if disks, files := r.server.Device.Disks(), r.device.Files(t); len(disks) != 0 || len(files) != 0 {
				t.Errorf("left: %+v %v", disks, files)
			}
		})
	}
}
