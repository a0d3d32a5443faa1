package appliancetest

import (
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
	v.SizeBytes = 1536 * gib
	if err != nil || grown != v {
		t.Errorf("grown\n%+v, %v, want\n%+v", grown, err, v)
	}
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
