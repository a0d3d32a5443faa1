package appliance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

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

// provable adds a look for what may not be there. A pool may go or come back at any moment, as it does after the RDS has booted, so
// all disk items are printed before, and where something is mounted once more after it.
func provable(b *routeros.Builder, look func(*routeros.Builder) *routeros.Builder) *routeros.Builder {
	return look(printDisks(b)).
		Add(`:local w ?; :foreach i in=[/disk print detail as-value] do={:local q ("" . ($i->"mount-point")); :local h ("" . ($i->"mounted"));
			:if (($q!="") && ($h!="false") && ($h!="no")) do={:set w ($w . $q . ";")}}; :put $w`, routeros.Text(poolsWord))
}

const poolsWord = "pools;"

// poolsThere reads a reply to provable, and fails unless every pool was there before and after the look: the files on one that is away
// cannot be seen, and what cannot be seen is not absent. Which pools there should be the RDS knows of those only that an item lies
// on, beside the configured one: items are configuration, and stay when their pool goes [I]. Other clusters' items do not count,
// and those without owner only where what is looked for may have been one of them.
func (r *RDS) poolsThere(reply routeros.Reply, unowned bool) error {
	items, err := rows[diskRow](reply, 0)
	if err != nil {
		return err
	}
	after, ok := strings.CutPrefix(reply.Lines[len(reply.Lines)-1], poolsWord)
	if !ok {
		return fmt.Errorf("%w: the rds does not say which pools it has", ErrAnswer)
	}
	before, wanted := map[string]bool{}, map[string]string{}
	for i := range items {
		item := &items[i]
		if at := item.MountPoint.Text(); at != "" && item.Mounted.truth(true) {
			before[at] = true
		}
		path, owner := item.FilePath.path(), r.owner(item)
		switch {
		case path.IsZero():
		case owner == OwnerOurs:
			wanted[path.MountPoint()] = fmt.Sprintf("volume %s of this cluster lies on it: repeat when it is back; if it never comes back, remove the disk items of cluster %s on it, and no others", item.Slot.Text(), r.settings.ClusterID)
		case owner == OwnerNone && unowned && wanted[path.MountPoint()] == "":
			wanted[path.MountPoint()] = fmt.Sprintf("disk item %s, which has no owner, lies on it: repeat when it is back", item.Slot.Text())
		}
	}
	wanted[r.settings.Pool.MountPoint()] = "the configuration names it: repeat when it is back"
	there := strings.Split(after, ";")
	for _, at := range slices.Sorted(maps.Keys(wanted)) {
		if !before[at] || !slices.Contains(there, at) {
			return fmt.Errorf("%w: pool %s is not mounted, or was not a moment ago, and what may be on it cannot be seen; %s", ErrPoolNotFound, at, wanted[at])
		}
	}
	return nil
}
