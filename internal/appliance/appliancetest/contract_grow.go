package appliancetest

import (
	"context"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// B12: the existing driver cut what it asked for and called it done. What is reported is what the device says.
func testExpand(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	s.device.PutDisk(t, adoptable())
	for _, c := range []struct {
		slot                  string
		required, limit, want int64
	}{
		{v.ID.Slot, 2 * gib, 0, 2 * gib},
		{v.ID.Slot, 2*gib + 1, 0, 2*gib + mib},
		{v.ID.Slot, 2*gib + mib + 1, 2*gib + mib + 8192, 2*gib + mib + 4096},
		{v.ID.Slot, gib, 0, 2*gib + mib + 4096}, // never smaller
		{v.ID.Slot, 0, 0, 2*gib + mib + 4096},
		{v.ID.Slot, 0, 3 * gib, 2*gib + mib + 4096},
		{v.ID.Slot, 1536 * gib, 0, 1536 * gib},
		{adoptedSlot, 11 * gib, 0, 11 * gib},
	} {
		for range 2 { // and again
			got, err := s.Expand(t.Context(), c.slot, c.required, c.limit)
			if on := s.device.Disks(t)[c.slot]; err != nil || got.SizeBytes != c.want || on.SizeBytes != c.want {
				t.Errorf("[%d, %d]: said %d, made %d, want %d: %v", c.required, c.limit, got.SizeBytes, on.SizeBytes, c.want, err)
			}
		}
	}
	grown, err := s.Get(t.Context(), v.ID.Slot)
	v.SizeBytes, v.GrownTo = 1536*gib, 1536*gib
	if err != nil || grown != v {
		t.Errorf("grown\n%+v, %v, want\n%+v", grown, err, v)
	}
}

// Some targets show growth to nobody before the volume is exported anew. That is done once, when nobody has the volume; what else
// exports it does so too.
func testExportGrown(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib, Claim: "web/data"})
	s.device.PutDisk(t, adoptable())
	for size, slot := range map[int64]string{2 * gib: v.ID.Slot, 11 * gib: adoptedSlot} {
		if got, err := s.Expand(t.Context(), slot, size, 0); err != nil || got.GrownTo != size || got.Owner != appliance.OwnerOurs || got.Claim != s.device.Disks(t)[slot].Claim {
			t.Errorf("grown: %+v, %v", got, err)
		}
	}
	export := func(how func(context.Context, string) (appliance.Volume, error), slot string, repaired bool, grownTo int64) {
		t.Helper()
		before := s.device.Disks(t)[slot]
		got, err := how(t.Context(), slot)
		if err != nil || !got.Presentable() || got.Owner != appliance.OwnerOurs || (got.Repaired != "") != repaired || got.GrownTo != grownTo {
			t.Errorf("exported: %+v, %v", got, err)
		}
		now := s.device.Disks(t)[slot]
		before.GrownTo, before.Exported, before.MountFilesystem, before.NQN = grownTo, true, false, now.NQN
		if now != before {
			t.Errorf("on the device\n%+v, want\n%+v", now, before)
		}
	}
	s.unchanged(t, func() { export(s.Export, v.ID.Slot, false, 2*gib) })
	export(s.ExportUnused, v.ID.Slot, true, 0)
	s.unchanged(t, func() { export(s.ExportUnused, v.ID.Slot, false, 0) })
	s.unchanged(t, func() { export(s.Export, v.ID.Slot, false, 0) })
	export(s.Export, adoptedSlot, true, 11*gib) // the RDS does not mount it any more
	export(s.ExportUnused, adoptedSlot, true, 0)

	lost := s.device.Disks(t)[v.ID.Slot]
	lost.Exported, lost.GrownTo = false, 2*gib
	s.device.PutDisk(t, lost)
	export(s.Export, v.ID.Slot, true, 0)
}

func testExpandRefuses(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: 2 * gib})
	s.device.PutDisk(t, foreign("other"))
	s.unchanged(t, func() {
		for _, c := range []struct {
			slot            string
			required, limit int64
			want            error
		}{
			{s.slot("absent"), gib, 0, appliance.ErrNotFound},
			{foreign("other").Slot, 2 * gib, 0, appliance.ErrForeign},
			{v.ID.Slot, PoolBytes + gib, 0, appliance.ErrNoSpace},
			{v.ID.Slot, 3 * gib, 3*gib - 1, appliance.ErrOutOfRange},
			{v.ID.Slot, gib, 2*gib - 1, appliance.ErrOutOfRange},
			{v.ID.Slot, 0, 2*gib - 1, appliance.ErrOutOfRange},
			{v.ID.Slot, -1, 0, appliance.ErrOutOfRange},
		} {
			_, err := s.Expand(t.Context(), c.slot, c.required, c.limit)
			is(t, err, c.want)
		}
	})
}
