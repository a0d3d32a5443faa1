package appliance

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/rds-csi/rds-csi/internal/routeros"
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
	items, err := rows[diskRow](reply, 0)
	if err != nil {
		return nil, r.about("list of volumes", err)
	}
	volumes := make([]Volume, 0, len(items))
	for i := range items {
		if items[i].Type.Text() == "file" && ValidSlot(items[i].Slot.Text()) {
			volumes = append(volumes, r.volume(&items[i]))
		}
	}
	return volumes, nil
}

// proveAbsent fails unless what was not found is not there. One command.
func (r *RDS) proveAbsent(ctx context.Context, subject string) error {
	reply, err := r.read(ctx, subject, listScript())
	if err != nil {
		return err
	}
	if err := r.poolsThere(reply, 0); err != nil {
		return r.about(subject, err)
	}
	return nil
}

// poolsThere reads all disk items in a line of a reply, and fails when a pool is away: the files on it cannot be seen, and what cannot
// be seen is not absent. Which pools there should be the RDS knows of those only that an item of this cluster lies on, beside the
// configured one: items are configuration, and stay when their pool goes [I].
func (r *RDS) poolsThere(reply routeros.Reply, line int) error {
	items, err := rows[diskRow](reply, line)
	if err != nil {
		return err
	}
	mounted, wanted := map[string]bool{}, map[string]string{r.settings.Pool.MountPoint(): "the configuration names it"}
	for i := range items {
		item := &items[i]
		if at := item.MountPoint.Text(); at != "" && item.Mounted.truth(true) {
			mounted[at] = true
		}
		if path := item.FilePath.path(); !path.IsZero() && r.owner(item) != OwnerForeign {
			wanted[path.MountPoint()] = "volume " + item.Slot.Text() + " lies on it"
		}
	}
	for _, at := range slices.Sorted(maps.Keys(wanted)) {
		if !mounted[at] {
			return fmt.Errorf("%w: pool %s is not mounted (%s), and what may be on it cannot be seen: repeat when it is back; if it never comes back, remove the disk items on it", ErrPoolNotFound, at, wanted[at])
		}
	}
	return nil
}
