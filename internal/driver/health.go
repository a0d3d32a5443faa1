package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// healthPatience is how long one RDS may keep a call waiting that asks all of them: the others' volumes are worth telling
// of while one is silent.
const healthPatience = 10 * time.Second

// ControllerGetVolumeHealth answers what is wrong with a volume on its RDS, each with what to do. That the RDS cannot be
// asked is an error: it says nothing of the volume.
func (c *Controller) ControllerGetVolumeHealth(ctx context.Context, req *csi.ControllerGetVolumeHealthRequest) (*csi.ControllerGetVolumeHealthResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is required")
	}
	id, err := c.existing(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	_, rds, _, err := c.appliance(id.RDS)
	if err != nil {
		return nil, err
	}
	entries, err := c.health(ctx, rds, id)
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: &csi.VolumeHealth{VolumeId: req.GetVolumeId(), HealthStatuses: entries}}, nil
}

func (c *Controller) health(ctx context.Context, rds Appliance, id appliance.ID) ([]*healthEntry, error) {
	promised := c.promised(id.Key()) // before the RDS is asked: a volume that grows meanwhile is larger there first
	v, err := look(ctx, rds, id.Slot)
	if errors.Is(err, appliance.ErrNotFound) {
		wanted, unknown := c.wanted(id.Key())
		if unknown == nil && wanted {
			return []*healthEntry{gone(id)}, nil
		}
		return nil, errors.Join(err, unknown)
	}
	if err != nil {
		return nil, err
	}
	uses, err := c.ledger.InUse(id.Key())
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", id, err)
	}
	nodes := make([]string, 0, len(uses))
	for _, u := range uses {
		nodes = append(nodes, u.Node)
	}
	pool, err := poolHealth(ctx, rds, v.Path)
	return append(itemHealth(v, nodes, promised), pool...), err
}

// look reads one volume, also one whose image is not there.
func look(ctx context.Context, rds Appliance, slot string) (appliance.Volume, error) {
	v, err := rds.Get(ctx, slot)
	if !errors.Is(err, appliance.ErrAnswer) {
		return v, err
	}
	list, again := rds.List(ctx)
	if i := slices.IndexFunc(list, func(v appliance.Volume) bool { return v.ID.Slot == slot }); again == nil && i >= 0 {
		return list[i], nil
	}
	return v, err
}

// wanted says whether Kubernetes knows the volume: then that the RDS does not is bad news and no misspelt handle.
func (c *Controller) wanted(volume string) (bool, error) {
	uses, err := c.ledger.InUse(volume)
	if err != nil || len(uses) > 0 {
		return err == nil, err
	}
	claimed, _ := c.claimed()
	return slices.Contains(claimed, volume), nil
}

// claimed are the canonical handles of this cluster's PersistentVolumes; not known without Kubernetes.
func (c *Controller) claimed() (handles []string, known bool) {
	if c.Claimed == nil {
		return nil, false
	}
	return c.Claimed()
}

// promised is how large the volume is by its PersistentVolume; 0 when that is not known.
func (c *Controller) promised(volume string) int64 {
	if c.Promised == nil {
		return 0
	}
	return c.Promised(volume)
}

// ControllerListVolumeHealth answers the volumes of this cluster with which something is wrong. An RDS that does not answer
// makes that known for its volumes, and hides nothing of the others.
func (c *Controller) ControllerListVolumeHealth(ctx context.Context, req *csi.ControllerListVolumeHealthRequest) (*csi.ControllerListVolumeHealthResponse, error) {
	fleet, want, err := c.listing(req)
	if err != nil {
		return nil, err
	}
	claimed, known := c.claimed()
	ask := func(ctx context.Context, name string, _ Appliance) ([]illness, error) {
		mine := slices.DeleteFunc(slices.Clone(claimed), func(h string) bool { return !strings.HasPrefix(h, name+"/") })
		all, err := c.healthOf(ctx, fleet, name, mine)
		if err != nil && known && ctx.Err() == nil {
			return c.unasked(mine, name, err), nil
		}
		return all, err
	}
	entries, next, err := list(ctx, fleet.Appliances, want, ask)
	if err != nil {
		return nil, err
	}
	return &csi.ControllerListVolumeHealthResponse{Entries: entries, NextToken: next}, nil
}

// illness is what is wrong with one volume.
type illness = listed[*csi.VolumeHealth]

func illnessOf(id appliance.ID, entries ...*healthEntry) illness {
	return illness{id, &csi.VolumeHealth{VolumeId: id.String(), HealthStatuses: entries}}
}

// healthOf is that of one RDS's volumes: of what is this cluster's, and of what a PersistentVolume names. One that is known to be away
// is not waited for.
func (c *Controller) healthOf(ctx context.Context, fleet *Fleet, name string, claimed []string) ([]illness, error) {
	if err := fleet.down(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	rds := fleet.Appliances[name]
	missing := make(map[string]int64, len(claimed)) // how large each is to be, before the RDS is asked, as for one
	for _, handle := range claimed {
		missing[handle] = c.promised(handle)
	}
	volumes, err := rds.List(ctx)
	if err != nil {
		return nil, err
	}
	pools := map[string][]*healthEntry{}
	var all []illness
	for _, v := range volumes {
		promised, asked := missing[v.ID.Key()]
		delete(missing, v.ID.Key())
		nodes := c.ledger.Nodes(v.ID.Key())
		if !asked && !ours(v, nodes) {
			continue
		}
		at := v.Path.MountPoint()
		if _, known := pools[at]; !known {
			if pools[at], err = poolHealth(ctx, rds, v.Path); err != nil {
				return nil, err
			}
		}
		if entries := append(itemHealth(v, nodes, promised), pools[at]...); len(entries) > 0 {
			all = append(all, illnessOf(v.ID, entries...))
		}
	}
	for handle := range missing {
		if id, err := c.parseID(handle); err == nil {
			all = append(all, illnessOf(id.Known(c.defaultRDS), gone(id)))
		}
	}
	return all, nil
}

func (c *Controller) unasked(claimed []string, rds string, err error) []illness {
	all := make([]illness, 0, len(claimed))
	for _, handle := range claimed {
		if id, bad := c.parseID(handle); bad == nil {
			all = append(all, illnessOf(id.Known(c.defaultRDS),
				ill(degraded, "RDSNotAnswering", "the controller cannot ask rds %s how the volume is: %v. Check that the RDS is up and that the controller reaches its management address", rds, err)))
		}
	}
	return all
}

func gone(id appliance.ID) *healthEntry {
	return ill(inaccessible, "DiskItemGone", "rds %s has no disk item %s. If its image is still there, add the item again (type=file, with that slot and file-path); if not, restore the data from a snapshot or a backup", id.RDS, id.Slot)
}

// itemHealth is what a disk item tells, and how it compares with its PersistentVolume. Of one that cannot be used at all only
// that is told.
func itemHealth(v appliance.Volume, nodes []string, promised int64) []*healthEntry {
	on := "no node"
	if len(nodes) > 0 {
		on = strings.Join(nodes, ", ")
	}
	switch {
	case v.Owner == appliance.OwnerForeign:
		return []*healthEntry{ill(inaccessible, "NotOwned", "the disk item %s on rds %s does not name this cluster as its owner, so no node gets it: see clusterID in the configuration, and the item's comment", v.ID.Slot, v.ID.RDS)}
	case v.SizeBytes == 0, v.Empty:
		return []*healthEntry{ill(inaccessible, "ImageGone", "rds %s shows no device behind the disk item %s: its image %s is not there, or the item is disabled (attached: %s). Look at the item, at the pool and for the file; enable the item, restore the file, or the data from a snapshot or a backup", v.ID.RDS, v.ID.Slot, v.Path, on)}
	case v.Mounted && len(nodes) > 0:
		return []*healthEntry{ill(dataLoss, "MountedByRDS", "rds %s has mounted the file system of a volume that %s uses: two writers destroy it. Stop the pods, set mount-filesystem=no for %s on the RDS, and check the file system before it is used again", v.ID.RDS, on, v.ID.Slot)}
	case v.Mounted:
		return []*healthEntry{ill(inaccessible, "MountedByRDS", "rds %s has mounted the volume's file system, so no node gets it: set mount-filesystem=no for %s on the RDS", v.ID.RDS, v.ID.Slot)}
	}
	var entries []*healthEntry
	if v.SizeBytes < promised {
		entries = append(entries, tooSmall(v, on, promised))
	}
	if !v.Exported || v.NQN != appliance.NQNFor(v.ID.Slot) {
		entries = append(entries, ill(inaccessible, "NotExported", "rds %s does not export the volume as %s (attached: %s): no node can connect. That is so while a snapshot or a clone is copied from it; else the next attach exports it again, or nvme-tcp-export=yes for %s on the RDS", v.ID.RDS, appliance.NQNFor(v.ID.Slot), on, v.ID.Slot))
	}
	if v.MountFilesystem {
		entries = append(entries, ill(degraded, "MountFilesystemOn", "rds %s may mount the volume's file system beside the node that uses it (attached: %s): set mount-filesystem=no for %s on the RDS; the next attach does so too", v.ID.RDS, on, v.ID.Slot))
	}
	return entries
}

// tooSmall: what this driver makes is never smaller than what it says, so somebody has made it smaller since. The existing driver
// said 1.5T of what it made as 1T: of its volumes nothing need be lost.
func tooSmall(v appliance.Volume, on string, promised int64) *healthEntry {
	if v.Name == "" || v.Name == v.ID.Slot {
		return ill(degraded, "DiskItemTooSmall", "the disk item on rds %s has %d bytes, its PersistentVolume %d (attached: %s): either it was made smaller since, and what lay beyond is lost, or the existing driver said more than it made. In the second case grow the claim, or set file-size=%d for %s on the RDS; in the first stop the pods, and restore the data from a snapshot or a backup",
			v.ID.RDS, v.SizeBytes, promised, on, promised, v.ID.Slot)
	}
	return ill(dataLoss, "DiskItemTooSmall", "the disk item on rds %s has %d bytes, its PersistentVolume %d (attached: %s): somebody has made it smaller, and what lay beyond is lost. Stop the pods and run no repair. Restore the data from a snapshot or a backup; to read what is left, set file-size=%d for %s on the RDS first",
		v.ID.RDS, v.SizeBytes, promised, on, promised, v.ID.Slot)
}

// Of a Btrfs pool five to ten percent are to stay free [V], and one that is full takes no write, not even to a file that is
// there already.
const (
	poolFullAt       = 1 // percent free
	poolNearlyFullAt = 5
)

// poolHealth is what the pool tells that a path lies in.
func poolHealth(ctx context.Context, rds Appliance, path appliance.Path) ([]*healthEntry, error) {
	pool, err := rds.Capacity(ctx, path)
	if errors.Is(err, appliance.ErrPoolNotFound) {
		return []*healthEntry{ill(inaccessible, "PoolGone", "the pool that holds the volume is not there: %v", err)}, nil
	}
	if err != nil {
		return nil, err
	}
	var entries []*healthEntry
	if pool.Failed != "" || !sound(pool.State) {
		entries = append(entries, ill(degraded, "PoolDegraded", "the pool of %s is in state %q, failed: %s. Look at its drives (/disk print detail) and replace what failed", path, pool.State, cmp.Or(pool.Failed, "none that it names")))
	}
	if full := poolFullness(path, pool); full != nil {
		entries = append(entries, full)
	}
	return entries, nil
}

// poolFullness concerns volumes only where writes to what is there already need free space.
func poolFullness(path appliance.Path, pool appliance.Pool) *healthEntry {
	if pool.HoldsItsImages() {
		return nil
	}
	switch percent := float64(pool.FreeBytes) * 100 / float64(max(pool.SizeBytes, 1)); {
	case percent < poolFullAt:
		return ill(degraded, "PoolFull", "the pool of %s has %d of %d bytes free: writes to its volumes may fail now. Delete what nobody needs, snapshots first, or add drives", path, pool.FreeBytes, pool.SizeBytes)
	case percent < poolNearlyFullAt:
		return ill(degraded, "PoolNearlyFull", "the pool of %s has %d of %d bytes free: make room before writes to its volumes fail. Delete what nobody needs, snapshots first, or add drives", path, pool.FreeBytes, pool.SizeBytes)
	}
	return nil
}

// sound are the states of a healthy array: "clean" was seen [R], the others are what Linux calls the same while it is
// written to [I]. A pool of one drive has none.
func sound(state string) bool {
	return slices.Contains([]string{"", "clean", "active", "active-idle", "write-pending"}, state)
}
