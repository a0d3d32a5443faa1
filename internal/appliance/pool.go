package appliance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// Pool is the file system that holds the images.
type Pool struct {
	Path                 Path
	Slot                 string // of the disk item that is mounted there, for Traffic
	SizeBytes, FreeBytes int64
	Filesystem           string
	Label                string // of the file system; Btrfs commands go by it
	State                string // as the RDS words it, e.g. "clean" or "clean, sync:repair, resync = ..."
	// Failed are the slots of drives and arrays below it that the RDS counts as failed members, sorted, with commas between.
	// Linux' own word for an array that has lost a member is still "clean".
	Failed string
}

// CopyOnWrite says whether the pool can share blocks between files, so that snapshots and clones take no time and no space,
// attached or not. On any other pool they are full copies.
func (p Pool) CopyOnWrite() bool { return p.Filesystem == btrfs }

// HoldsItsImages says that the images on it have all of their blocks from the beginning, so that writes to volumes need no free
// space. Of XFS that was seen [R]; of others it is not known.
func (p Pool) HoldsItsImages() bool { return p.Filesystem == xfs }

const (
	btrfs = "btrfs"
	xfs   = "xfs"
)

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
		if row.text("mount-point") == path.MountPoint() && row.truth("mounted", true) {
			return r.poolOf(path, row, rows)
		}
	}
	return Pool{}, fmt.Errorf("rds %s: pool %s: %w: nothing is mounted at %q; check the pool path in the configuration and the state of the pool",
		r.settings.Name, path, ErrPoolNotFound, path.MountPoint())
}

// poolScript: the mount point has no leading slash [R]. The arrays and the failed members come along, whichever pool they are
// of: an array of arrays is found by its parts. Should a where clause of these find nothing on some device, as it does
// without a word when a type does not match [R], they are missing, and the pool's own state is all there is.
func poolScript(path Path) *routeros.Builder {
	return routeros.NewScript("pool_get").Add(`:put [:serialize to=json options=json.no-string-conversion
		[/disk print detail as-value where mount-point=? or type="raid" or raid-member-failed=yes]]`, routeros.Text(path.MountPoint()))
}

func (r *RDS) poolOf(path Path, row record, rows []record) (Pool, error) {
	size, sizeKnown := row.number("size")
	free, freeKnown := row.number("free")
	if !sizeKnown || !freeKnown {
		return Pool{}, fmt.Errorf("rds %s: pool %s: %w: size %q, free %q", r.settings.Name, path, ErrAnswer, row.text("size"), row.text("free"))
	}
	return Pool{
		Path: path, Slot: row.text("slot"), SizeBytes: size, FreeBytes: free,
		Filesystem: row.text("fs"), Label: row.text("fs-label"), State: row.text("state"), Failed: failedBelow(row, rows),
	}, nil
}

// failedBelow finds the failed members of the array that a pool is on, or that it is a partition of, and of the arrays that this
// one is made of.
func failedBelow(pool record, rows []record) string {
	slot, parent := pool.text("slot"), pool.text("parent")
	master := map[string]string{}
	for _, row := range rows {
		master[row.text("slot")] = row.text("raid-master")
	}
	below := func(member string) bool {
		for range master { // no more steps than there are rows, whatever they say
			if member = master[member]; member != "" && (member == slot || member == parent) {
				return true
			}
		}
		return false
	}
	var failed []string
	for _, row := range rows {
		if member := row.text("slot"); row.truth("raid-member-failed", false) && below(member) {
			failed = append(failed, member)
		}
	}
	slices.Sort(failed)
	return strings.Join(failed, ", ")
}
