package appliance

import (
	"context"
	"fmt"
)

// Get reads one volume, whoever owns it: Owner says so. ErrNotFound only when a parsed, empty answer says so.
func (r *RDS) Get(ctx context.Context, slot string) (Volume, error) {
	if !ValidSlot(slot) {
		return Volume{}, r.errorf(slot, ErrInvalid, "this is not a slot")
	}
	reply, err := r.read(ctx, volumeOf(slot), getScript(slot))
	if err != nil {
		return Volume{}, err
	}
	return r.one(reply, slot)
}

// List reads all disk items backed by a file, in the order of the RDS. Owner says whose each is; the caller chooses. A volume
// whose size the RDS does not say has SizeBytes 0: one lost image must not hide all the others.
func (r *RDS) List(ctx context.Context) ([]Volume, error) {
	reply, err := r.read(ctx, "list of volumes", listScript())
	if err != nil {
		return nil, err
	}
	rows, err := records(reply, 0)
	if err != nil {
		return nil, r.about("list of volumes", err)
	}
	volumes := make([]Volume, 0, len(rows))
	for _, row := range rows {
		if row.text("type") != "file" || !ValidSlot(row.text("slot")) {
			continue
		}
		volumes = append(volumes, r.volume(row))
	}
	return volumes, nil
}

// Capacity reads the pool that path lies on; the zero path is the configured one.
func (r *RDS) Capacity(ctx context.Context, path Path) (Pool, error) {
	path = r.pool(path)
	reply, err := r.read(ctx, "pool "+path.String(), poolScript(path))
	if err != nil {
		return Pool{}, err
	}
	rows, err := records(reply, 0)
	if err != nil {
		return Pool{}, r.about("pool "+path.String(), err)
	}
	for _, row := range rows {
		if row.truth("mounted", true) {
			return r.poolOf(path, row)
		}
	}
	return Pool{}, fmt.Errorf("rds %s: pool %s: %w: nothing is mounted at %q; check the pool path in the configuration and the state of the pool",
		r.settings.Name, path, ErrPoolNotFound, path.MountPoint())
}

func (r *RDS) poolOf(path Path, row record) (Pool, error) {
	size, sizeKnown := row.number("size")
	free, freeKnown := row.number("free")
	if !sizeKnown || !freeKnown {
		return Pool{}, fmt.Errorf("rds %s: pool %s: %w: size %q, free %q", r.settings.Name, path, ErrAnswer, row.text("size"), row.text("free"))
	}
	return Pool{
		Path: path, Slot: row.text("slot"), SizeBytes: size, FreeBytes: free,
		Filesystem: row.text("fs"), Label: row.text("fs-label"), State: row.text("state"),
	}, nil
}
