package appliancetest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// work is what a fake does in the background: copies. A copy is under way when the call that began it answers, and done when the
// next one looks, unless it is held.
type work struct {
	held      chan struct{}
	snapshots map[string]*copied
	clones    map[string]*copied // by the slot that is to be
}

// copied is a snapshot, or the copy that becomes a volume.
type copied struct {
	source, name, path string
	size               int64
	created            time.Time
	gate               <-chan struct{} // closed: done
	fresh              bool            // the call that began it has not answered yet
}

func (c *copied) done() bool {
	if c.fresh {
		return false
	}
	select {
	case <-c.gate:
		return true
	default:
		return false
	}
}

// HoldCopies implements Work.
func (f *Fake) HoldCopies(testing.TB) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.work.held = gate
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.work.held = nil
		close(gate)
	})
}

// begin puts down a copy; shared takes no time and no space.
func (f *Fake) begin(source, path string, size int64, shared bool) *copied {
	gate := f.work.held
	if gate == nil || shared {
		gate = make(chan struct{})
		close(gate)
	}
	c := &copied{source: source, path: path, size: size, created: time.Now().UTC().Truncate(time.Second), gate: gate, fresh: !shared}
	f.files[path] = size
	if shared {
		f.files[path] = 0
	}
	return c
}

// copiedFrom says whether a copy of a volume is under way.
func (f *Fake) copiedFrom(slot string) bool {
	for _, list := range []map[string]*copied{f.work.snapshots, f.work.clones} {
		for _, c := range list {
			if c.source == slot && !c.done() {
				return true
			}
		}
	}
	return false
}

// copiedTo says whether a copy that is to become a volume is under way.
func (f *Fake) copiedTo(slot string) bool {
	c, found := f.work.clones[slot]
	return found && !c.done()
}

// CreateSnapshot takes a snapshot, or tells how far it has come.
func (f *Fake) CreateSnapshot(ctx context.Context, req appliance.SnapshotRequest) (s appliance.Snapshot, err error) {
	err = f.do(ctx, CreateSnapshot, func() error {
		s, err = f.createSnapshot(req)
		return err
	})
	if err != nil {
		return appliance.Snapshot{}, err
	}
	return s, nil
}

func (f *Fake) createSnapshot(req appliance.SnapshotRequest) (appliance.Snapshot, error) {
	var none appliance.Snapshot
	if req.Name == "" || len(req.Name) > 128 || !appliance.ValidSlot(req.Source) {
		return none, f.errorf(req.Name, appliance.ErrInvalid)
	}
	id := appliance.SnapshotIDFor(f.settings.ClusterID, req.Name)
	if c, found := f.work.snapshots[id]; found {
		switch {
		case c.source != req.Source:
			return none, f.errorf(id, appliance.ErrIncompatible)
		case !c.done() && req.Attached:
			f.dropSnapshot(id)
			return none, f.errorf(id, appliance.ErrAttached)
		}
		return f.snapshot(id), nil
	}
	d, found := f.disks[req.Source]
	dir, shared := f.shared(d)
	switch {
	case !found:
		return none, f.errorf(req.Source, appliance.ErrNotFound)
	case f.owner(d) != appliance.OwnerOurs:
		return none, f.errorf(req.Source, appliance.ErrForeign)
	case d.Mounted || d.MountFilesystem:
		return none, f.errorf(req.Source, appliance.ErrMounted)
	case !shared && req.Attached:
		return none, f.errorf(id, appliance.ErrAttached)
	case !shared && d.SizeBytes > f.free():
		return none, f.errorf(id, appliance.ErrNoSpace)
	}
	path := dir + "/" + id + "." + d.Slot + ".img"
	if shared {
		path = dir + "/" + id + "." + d.Slot + "/volume.img"
	}
	c := f.begin(d.Slot, path, d.SizeBytes, shared)
	c.name = req.Name
	if f.work.snapshots == nil {
		f.work.snapshots = map[string]*copied{}
	}
	f.work.snapshots[id] = c
	s := f.snapshot(id)
	c.fresh = false
	return s, nil
}

// shared says whether a volume can share its blocks, and what directory it lies in.
func (f *Fake) shared(d Disk) (dir string, shared bool) {
	if dir, own := strings.CutSuffix(d.Path, "/"+d.Slot+"/volume.img"); own {
		return dir, f.kind == "btrfs"
	}
	return strings.TrimSuffix(d.Path, "/"+d.Slot+".img"), false
}

func (f *Fake) snapshot(id string) appliance.Snapshot {
	c := f.work.snapshots[id]
	d := Disk{Slot: c.source}
	s := appliance.Snapshot{
		ID: appliance.ID{RDS: f.settings.Name, Slot: id}, SourceVolume: f.id(d), SizeBytes: c.size, Created: c.created, Ready: c.done(), Progress: 1,
		Path: f.path(c.path),
	}
	if strings.HasSuffix(c.path, ".img") && !strings.HasSuffix(c.path, "/volume.img") {
		s.Name = c.name
	}
	if !s.Ready {
		s.Progress = 0.5
	}
	return s
}

func (f *Fake) path(s string) appliance.Path {
	p, err := appliance.ParsePath(s)
	if err != nil {
		return appliance.Path{}
	}
	return p
}

func (f *Fake) dropSnapshot(id string) {
	delete(f.files, f.work.snapshots[id].path)
	delete(f.work.snapshots, id)
}

// DeleteSnapshot removes a snapshot; absent is success.
func (f *Fake) DeleteSnapshot(ctx context.Context, id string) error {
	return f.do(ctx, DeleteSnapshot, func() error {
		_, found := f.work.snapshots[id]
		switch {
		case !appliance.ValidSnapshotID(id):
			return nil
		case !f.oursSnapshot(id):
			return f.errorf(id, appliance.ErrForeign)
		case found:
			f.dropSnapshot(id)
		}
		return nil
	})
}

func (f *Fake) oursSnapshot(id string) bool {
	ours := appliance.SnapshotIDFor(f.settings.ClusterID, "")
	return strings.HasPrefix(id, ours[:strings.LastIndexByte(ours, '-')+1])
}

// GetSnapshot reads one snapshot.
func (f *Fake) GetSnapshot(ctx context.Context, id string) (s appliance.Snapshot, err error) {
	err = f.do(ctx, GetSnapshot, func() error {
		_, found := f.work.snapshots[id]
		switch {
		case appliance.ValidSnapshotID(id) && !f.oursSnapshot(id):
			return f.errorf(id, appliance.ErrForeign)
		case !found:
			return f.errorf(id, appliance.ErrNotFound)
		}
		s = f.snapshot(id)
		return nil
	})
	return s, err
}

// ListSnapshots reads all snapshots of the cluster.
func (f *Fake) ListSnapshots(ctx context.Context) (list []appliance.Snapshot, err error) {
	err = f.do(ctx, ListSnapshots, func() error {
		list = make([]appliance.Snapshot, 0, len(f.work.snapshots))
		for _, id := range slices.Sorted(maps.Keys(f.work.snapshots)) {
			list = append(list, f.snapshot(id))
		}
		return nil
	})
	return list, err
}

// sizeOf is the size to ask for; a volume with a source may leave it to that.
func (f *Fake) sizeOf(req appliance.CreateRequest) (int64, error) {
	s := req.Source
	switch {
	case s.IsZero():
	case s.Volume != "" && (s.Snapshot != "" || !appliance.ValidSlot(s.Volume)):
		return 0, appliance.ErrInvalid
	case s.Volume == "" && !f.oursSnapshot(s.Snapshot):
		return 0, appliance.ErrNotFound
	case s.Volume == "" && !appliance.ValidSnapshotID(s.Snapshot):
		return 0, appliance.ErrInvalid
	case req.RequiredBytes == 0 && req.LimitBytes >= 0:
		return 0, nil
	}
	return appliance.SizeFor(req.RequiredBytes, req.LimitBytes)
}

// createFrom makes the volume d with the content of another one or of a snapshot.
func (f *Fake) createFrom(req appliance.CreateRequest, d Disk, dir appliance.Path) (appliance.Volume, error) {
	size, shared, err := f.origin(req, d.Slot)
	if err != nil {
		return appliance.Volume{}, err
	}
	if req.LimitBytes > 0 && size > req.LimitBytes {
		return appliance.Volume{}, f.errorf(d.Slot, appliance.ErrOutOfRange)
	}
	d.SizeBytes = max(d.SizeBytes, size)
	if shared && f.kind == "btrfs" {
		f.disks[d.Slot], f.files[d.Path] = d, 0
		return f.volume(d, req.NVMeAddress), nil
	}
	d.Path = flatImage(dir, d.Slot)
	if err := f.copied(req, d, size); err != nil {
		return appliance.Volume{}, err
	}
	delete(f.work.clones, d.Slot)
	f.disks[d.Slot], f.files[d.Path] = d, d.SizeBytes
	return f.volume(d, req.NVMeAddress), nil
}

// origin is how large the source is, and whether its blocks can be shared.
func (f *Fake) origin(req appliance.CreateRequest, slot string) (size int64, shared bool, err error) {
	if id := req.Source.Snapshot; id != "" {
		c, found := f.work.snapshots[id]
		switch {
		case !found:
			return 0, false, f.errorf(slot, appliance.ErrNotFound)
		case !c.done():
			return 0, false, f.errorf(slot, appliance.ErrCopying)
		}
		return c.size, strings.HasSuffix(c.path, "/volume.img"), nil
	}
	d, found := f.disks[req.Source.Volume]
	switch {
	case !found:
		return 0, false, f.errorf(slot, appliance.ErrNotFound)
	case f.owner(d) != appliance.OwnerOurs:
		return 0, false, f.errorf(slot, appliance.ErrForeign)
	case d.Mounted || d.MountFilesystem:
		return 0, false, f.errorf(slot, appliance.ErrMounted)
	}
	_, shared = f.shared(d)
	return d.SizeBytes, shared, nil
}

// copied is nil when the copy that is to become the volume is done.
func (f *Fake) copied(req appliance.CreateRequest, d Disk, size int64) error {
	c, begun := f.work.clones[d.Slot]
	switch {
	case begun && c.done():
		return nil
	case req.Source.Volume != "" && req.SourceAttached:
		if begun {
			delete(f.files, c.path)
			delete(f.work.clones, d.Slot)
		}
		return f.errorf(d.Slot, appliance.ErrAttached)
	case begun:
		return f.errorf(d.Slot, appliance.ErrCopying)
	case f.has(d.Path):
		return f.errorf(d.Slot, appliance.ErrLeftover)
	case size > f.free():
		return f.errorf(d.Slot, appliance.ErrNoSpace)
	}
	if f.work.clones == nil {
		f.work.clones = map[string]*copied{}
	}
	c = f.begin(req.Source.Volume, d.Path, size, false)
	c.fresh = false
	f.work.clones[d.Slot] = c
	return f.errorf(d.Slot, appliance.ErrCopying)
}
