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
	d.SizeBytes = max(d.SizeBytes, size)
	f.disks[slot], f.files[d.Path] = d, d.SizeBytes
	return f.volume(d, ""), nil
}

// CreateSnapshot is not here yet.
func (f *Fake) CreateSnapshot(ctx context.Context, req appliance.SnapshotRequest) (appliance.Snapshot, error) {
	return appliance.Snapshot{}, f.do(ctx, CreateSnapshot, func() error { return f.errorf(req.Name, appliance.ErrUnsupported) })
}

// DeleteSnapshot is not here yet.
func (f *Fake) DeleteSnapshot(ctx context.Context, id string) error {
	return f.do(ctx, DeleteSnapshot, func() error { return f.errorf(id, appliance.ErrUnsupported) })
}

// GetSnapshot is not here yet.
func (f *Fake) GetSnapshot(ctx context.Context, id string) (appliance.Snapshot, error) {
	return appliance.Snapshot{}, f.do(ctx, GetSnapshot, func() error { return f.errorf(id, appliance.ErrUnsupported) })
}

// ListSnapshots is not here yet.
func (f *Fake) ListSnapshots(ctx context.Context) ([]appliance.Snapshot, error) {
	return nil, f.do(ctx, ListSnapshots, func() error { return f.errorf("list", appliance.ErrUnsupported) })
}
