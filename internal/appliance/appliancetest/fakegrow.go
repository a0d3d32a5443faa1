package appliancetest

import (
	"context"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Expand makes a volume as large as asked for, never smaller.
func (f *Fake) Expand(ctx context.Context, slot string, requiredBytes, limitBytes int64) (v appliance.Volume, err error) {
	err = f.do(ctx, Expand, func() error {
		v, err = f.expand(slot, requiredBytes, limitBytes)
		return err
	})
	if err != nil {
		return appliance.Volume{}, err
	}
	return v, nil
}

func (f *Fake) expand(slot string, requiredBytes, limitBytes int64) (appliance.Volume, error) {
	size := int64(0)
	if requiredBytes != 0 {
		var err error
		if size, err = appliance.SizeFor(requiredBytes, limitBytes); err != nil {
			return appliance.Volume{}, f.errorf(slot, err)
		}
	}
	d, found := f.disks[slot]
	switch {
	case !found:
		return appliance.Volume{}, f.errorf(slot, appliance.ErrNotFound)
	case f.owner(d) == appliance.OwnerForeign:
		return appliance.Volume{}, f.errorf(slot, appliance.ErrForeign)
	case size-d.SizeBytes > f.free():
		return appliance.Volume{}, f.errorf(slot, appliance.ErrNoSpace)
	case limitBytes > 0 && d.SizeBytes > limitBytes:
		return appliance.Volume{}, f.errorf(slot, appliance.ErrOutOfRange)
	}
	if size > d.SizeBytes {
		d.SizeBytes, d.GrownTo = size, size
		f.claim(&d)
	}
	f.disks[slot], f.files[d.Path] = d, d.SizeBytes
	return f.volume(d, ""), nil
}
