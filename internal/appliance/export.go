package appliance

import (
	"context"
	"errors"
)

// Export makes sure that nodes can reach the volume and that the RDS keeps its hands off it. One command when all is as it
// should be; a second puts it right, for exports do get lost (a reboot of the appliance, a person), and the volumes of
// the existing driver carry mount-filesystem=yes (B6).
func (r *RDS) Export(ctx context.Context, slot string) (Volume, error) {
	v, err := r.Get(ctx, slot)
	if err != nil {
		return Volume{}, err
	}
	if v.Owner == OwnerForeign {
		return Volume{}, r.errorf(slot, ErrForeign, "the comment of its disk item does not name this cluster (%s); it is not handed out: see clusterID in the configuration", r.settings.ClusterID)
	}
	return r.settle(ctx, v)
}

// settle returns the volume when it is safe to hand out, and otherwise makes it so.
func (r *RDS) settle(ctx context.Context, v Volume) (Volume, error) {
	slot := v.ID.Slot
	if v.Mounted {
		return Volume{}, r.errorf(slot, ErrMounted, "a node writing beside it would destroy the file system: set mount-filesystem=no for %s on the rds, check it there, then repeat", slot)
	}
	if v.Presentable() {
		return v, nil
	}
	now, err := r.reassert(ctx, v)
	if err != nil {
		return Volume{}, err
	}
	if !now.Presentable() {
		return Volume{}, r.errorf(slot, ErrAnswer, "the rds took the change, yet says exported=%t mount-filesystem=%t mounted=%t nqn=%q",
			now.Exported, now.MountFilesystem, now.Mounted, now.NQN)
	}
	return now, nil
}

// Presentable says whether nodes can reach the volume and the RDS keeps its hands off it, so that it may be handed out as it is.
func (v Volume) Presentable() bool {
	return v.Exported && !v.MountFilesystem && !v.Mounted && v.NQN == NQNFor(v.ID.Slot)
}

func (r *RDS) reassert(ctx context.Context, v Volume) (Volume, error) {
	reply, err := r.run(ctx, volumeOf(v.ID.Slot), exportScript(r.settings.ClusterID, v))
	switch {
	case errors.Is(err, ErrOutcomeUnknown):
		now, again := r.Get(ctx, v.ID.Slot)
		if again != nil || !now.Presentable() {
			return Volume{}, err
		}
		return now, nil
	case err != nil:
		return Volume{}, err
	}
	return r.one(reply, 0, v.ID.Slot)
}
