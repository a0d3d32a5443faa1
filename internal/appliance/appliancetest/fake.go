package appliancetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Op names an operation, for counting and for faults.
type Op string

// The operations of an RDS.
const (
	Create   Op = "create"
	Get      Op = "get"
	List     Op = "list"
	Delete   Op = "delete"
	Export   Op = "export"
	Capacity Op = "capacity"
	Health   Op = "health"
	Traffic  Op = "traffic"

	Expand         Op = "expand"
	CreateSnapshot Op = "create-snapshot"
	DeleteSnapshot Op = "delete-snapshot"
	GetSnapshot    Op = "get-snapshot"
	ListSnapshots  Op = "list-snapshots"
)

// The forms of slots that a driver gives: derived from the name, and the existing driver's.
const (
	derivedForm = "pvc-abcdefghijklmnopqrstuvwxyz"
	adoptedForm = "pvc-00000000-0000-0000-0000-000000000000"
)

// Fake is an RDS in memory. It may be used by many goroutines; each operation is atomic.
type Fake struct {
	settings  appliance.Settings
	poolBytes int64

	mu     sync.Mutex
	kind   string // of the pool's file system
	disks  map[string]Disk
	files  map[string]int64 // by path with a leading slash
	gauges gauges
	work   work
	calls  map[Op]int
	before map[Op][]error
	after  map[Op][]error
	hold   map[Op]chan struct{}
	down   error
}

// NewFake makes an empty RDS whose pool holds poolBytes.
func NewFake(settings appliance.Settings, poolBytes int64) *Fake {
	return &Fake{
		settings: settings, poolBytes: poolBytes, kind: "btrfs",
		disks: map[string]Disk{}, files: map[string]int64{}, calls: map[Op]int{},
		before: map[Op][]error{}, after: map[Op][]error{}, hold: map[Op]chan struct{}{},
	}
}

// SetFilesystem makes the pool one of another kind, "xfs" for instance; a fake begins with "btrfs".
func (f *Fake) SetFilesystem(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kind = kind
}

func (f *Fake) image(dir appliance.Path, slot string) string {
	if f.kind == "btrfs" {
		return ownImage(dir, slot)
	}
	return flatImage(dir, slot)
}

func flatImage(dir appliance.Path, slot string) string { return dir.Disk() + "/" + slot + ".img" }
func ownImage(dir appliance.Path, slot string) string  { return dir.Disk() + "/" + slot + "/volume.img" }

// Name is the RDS's name in the configuration.
func (f *Fake) Name() string { return f.settings.Name }

// Fail makes the next calls of op fail, one error each, with nothing changed.
func (f *Fake) Fail(op Op, errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before[op] = append(f.before[op], errs...)
}

// LoseReply makes the next calls of op fail, one error each, after they took effect.
func (f *Fake) LoseReply(op Op, errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after[op] = append(f.after[op], errs...)
}

// Hold makes calls of op wait until release is called or their context ends: a slow RDS.
func (f *Fake) Hold(op Op) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.hold[op] = gate
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.hold, op)
		close(gate)
	})
}

// SetDown makes it known, or not, that the RDS is away; calls are answered all the same.
func (f *Fake) SetDown(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
}

// Down is what SetDown said.
func (f *Fake) Down() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}

// Calls counts the calls of op so far, failed ones included.
func (f *Fake) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// do counts, waits, fails as told, and otherwise runs the effect with the state locked.
func (f *Fake) do(ctx context.Context, op Op, effect func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	if gate, held := f.hold[op]; held {
		f.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("rds %s: %s: %w: %w", f.settings.Name, op, appliance.ErrUnavailable, err)
	}
	if err := pop(f.before, op); err != nil {
		return err
	}
	return cmp.Or(effect(), pop(f.after, op))
}

func pop(queue map[Op][]error, op Op) error {
	if len(queue[op]) == 0 {
		return nil
	}
	err := queue[op][0]
	queue[op] = queue[op][1:]
	return err
}

// Create makes the volume, or finds it.
func (f *Fake) Create(ctx context.Context, req appliance.CreateRequest) (v appliance.Volume, err error) {
	err = f.do(ctx, Create, func() error {
		v, err = f.create(req)
		return err
	})
	if err != nil {
		return appliance.Volume{}, err
	}
	return v, nil
}

func (f *Fake) create(req appliance.CreateRequest) (appliance.Volume, error) {
	if req.Name == "" || len(req.Name) > 128 {
		return appliance.Volume{}, f.errorf(req.Name, appliance.ErrInvalid)
	}
	size, err := f.sizeOf(req)
	if err != nil {
		return appliance.Volume{}, f.errorf(req.Name, err)
	}
	slot := appliance.SlotFor(f.settings.ClusterID, req.Name)
	dir := req.Pool
	if dir.IsZero() {
		dir = f.settings.Pool
	}
	if dir.MountPoint() != f.settings.Pool.MountPoint() {
		return appliance.Volume{}, f.errorf(slot, appliance.ErrPoolNotFound)
	}
	if d, exists := f.disks[slot]; exists {
		return f.existing(d, req, dir)
	}
	d := Disk{
		Slot: slot, Cluster: f.settings.ClusterID, Name: req.Name, Claim: req.Claim, Path: f.image(dir, slot), SizeBytes: size,
		NQN: appliance.NQNFor(slot), Port: cmp.Or(req.NVMePort, f.settings.NVMePort), Exported: true,
		From: req.Source.Volume + req.Source.Snapshot,
	}
	if !req.Source.IsZero() {
		return f.createFrom(req, d, dir)
	}
	if f.has(flatImage(dir, slot)) || f.has(ownImage(dir, slot)) {
		return appliance.Volume{}, f.errorf(slot, appliance.ErrLeftover)
	}
	if size > f.free() {
		return appliance.Volume{}, f.errorf(slot, appliance.ErrNoSpace)
	}
	f.disks[slot], f.files[d.Path] = d, size
	return f.volume(d, req.NVMeAddress), nil
}

func (f *Fake) existing(d Disk, req appliance.CreateRequest, dir appliance.Path) (appliance.Volume, error) {
	v := f.volume(d, req.NVMeAddress)
	switch {
	case v.Owner != appliance.OwnerOurs:
		return v, f.errorf(d.Slot, appliance.ErrForeign)
	case v.Source != req.Source:
		return v, f.errorf(d.Slot, appliance.ErrIncompatible)
	case d.SizeBytes < req.RequiredBytes, req.LimitBytes > 0 && d.SizeBytes > req.LimitBytes:
		return v, f.errorf(d.Slot, appliance.ErrIncompatible)
	case !req.Pool.IsZero() && d.Path != flatImage(dir, d.Slot) && d.Path != ownImage(dir, d.Slot), req.NVMePort != 0 && req.NVMePort != d.Port:
		return v, f.errorf(d.Slot, appliance.ErrIncompatible)
	}
	d, err := f.right(d, false)
	return f.volume(d, req.NVMeAddress), err
}

// right puts an item's export in order, as ControllerPublish does.
func (f *Fake) right(d Disk, unused bool) (Disk, error) {
	if d.Mounted {
		return d, f.errorf(d.Slot, appliance.ErrMounted)
	}
	if f.copiedFrom(d.Slot) {
		return d, f.errorf(d.Slot, appliance.ErrCopying)
	}
	if !d.Exported || unused {
		d.GrownTo = 0
	}
	d.Exported, d.MountFilesystem, d.NQN = true, false, appliance.NQNFor(d.Slot)
	d.Port = cmp.Or(d.Port, f.settings.NVMePort)
	f.claim(&d)
	f.disks[d.Slot] = d
	return d, nil
}

// claim gives an item without owner one.
func (f *Fake) claim(d *Disk) {
	if d.Cluster == "" {
		d.Cluster, d.Name = f.settings.ClusterID, d.Slot
	}
}

// Get reads one volume.
func (f *Fake) Get(ctx context.Context, slot string) (v appliance.Volume, err error) {
	err = f.do(ctx, Get, func() error {
		d, found := f.disks[slot]
		if !found {
			return f.errorf(slot, appliance.ErrNotFound)
		}
		v = f.volume(d, "")
		return nil
	})
	return v, err
}

// List reads all volumes.
func (f *Fake) List(ctx context.Context) (list []appliance.Volume, err error) {
	err = f.do(ctx, List, func() error {
		for _, slot := range slices.Sorted(maps.Keys(f.disks)) {
			list = append(list, f.volume(f.disks[slot], ""))
		}
		return nil
	})
	return list, err
}

// Delete removes the volume and its file.
func (f *Fake) Delete(ctx context.Context, slot string) error {
	return f.do(ctx, Delete, func() error {
		file, named, err := f.doomed(slot)
		switch {
		case err != nil:
			return err
		case f.named(file) != named:
			return f.errorf(slot, appliance.ErrInUse)
		case f.copiedFrom(slot), f.copiedTo(slot):
			return f.errorf(slot, appliance.ErrCopying)
		case named == 0 && file != "" && !f.has(file) && (f.hasNamed("/"+slot+".img") || f.hasNamed("/"+slot+"/volume.img")):
			return f.errorf(slot, appliance.ErrLeftover)
		}
		delete(f.disks, slot)
		delete(f.files, file)
		return nil
	})
}

func (f *Fake) has(file string) bool {
	_, found := f.files[file]
	return found
}

func (f *Fake) hasNamed(suffix string) bool {
	for file := range f.files {
		if strings.HasSuffix(file, suffix) {
			return true
		}
	}
	return false
}

// doomed is the file that goes with a slot, and how many items may name it; no file if there is none that we may remove.
func (f *Fake) doomed(slot string) (file string, named int, err error) {
	d, found := f.disks[slot]
	switch {
	case found && f.owner(d) == appliance.OwnerForeign,
		found && !strings.HasSuffix(d.Path, "/"+slot+".img") && !strings.HasSuffix(d.Path, "/"+slot+"/volume.img"):
		return "", 0, f.errorf(slot, appliance.ErrForeign)
	case found:
		return d.Path, 1, nil
	case len(slot) == len(derivedForm) && f.has(ownImage(f.settings.Pool, slot)):
		return ownImage(f.settings.Pool, slot), 0, nil
	case len(slot) == len(derivedForm) || len(slot) == len(adoptedForm):
		return flatImage(f.settings.Pool, slot), 0, nil
	default:
		return "", 0, nil
	}
}

func (f *Fake) named(file string) (n int) {
	for _, d := range f.disks {
		if d.Path == file {
			n++
		}
	}
	return n
}

// Export makes sure that the volume can be reached.
func (f *Fake) Export(ctx context.Context, slot string) (appliance.Volume, error) {
	return f.export(ctx, slot, false)
}

// ExportUnused is Export, and exports anew what has grown. It counts as Export, and fails as told for that.
func (f *Fake) ExportUnused(ctx context.Context, slot string) (appliance.Volume, error) {
	return f.export(ctx, slot, true)
}

func (f *Fake) export(ctx context.Context, slot string, unused bool) (v appliance.Volume, err error) {
	err = f.do(ctx, Export, func() error {
		d, found := f.disks[slot]
		switch {
		case !found:
			return f.errorf(slot, appliance.ErrNotFound)
		case f.volume(d, "").Owner == appliance.OwnerForeign:
			return f.errorf(slot, appliance.ErrForeign)
		}
		now, err := f.right(d, unused)
		if v = f.volume(now, ""); now != d {
			v.Repaired = "put right"
		}
		return err
	})
	if err != nil {
		return appliance.Volume{}, err
	}
	return v, nil
}

// Capacity reads the pool.
func (f *Fake) Capacity(ctx context.Context, path appliance.Path) (p appliance.Pool, err error) {
	err = f.do(ctx, Capacity, func() error {
		if path.IsZero() {
			path = f.settings.Pool
		}
		if path.MountPoint() != f.settings.Pool.MountPoint() {
			return f.errorf(path.String(), appliance.ErrPoolNotFound)
		}
		p = appliance.Pool{
			Path: path, Slot: path.MountPoint(), SizeBytes: f.poolBytes, FreeBytes: f.free(), Filesystem: f.kind,
			Label: path.MountPoint() + "-fs", State: "clean",
		}
		return nil
	})
	return p, err
}

func (f *Fake) free() int64 {
	free := f.poolBytes
	for _, size := range f.files {
		free -= size
	}
	return max(free, 0)
}

func (f *Fake) volume(d Disk, address string) appliance.Volume {
	path, err := appliance.ParsePath(d.Path)
	if err != nil {
		path = appliance.Path{}
	}
	return appliance.Volume{
		ID: f.id(d), Name: d.Name, Claim: d.Claim, SizeBytes: d.SizeBytes, NQN: d.NQN,
		Address: cmp.Or(address, f.settings.NVMeAddress), Port: cmp.Or(d.Port, f.settings.NVMePort), Path: path,
		Exported: d.Exported, MountFilesystem: d.MountFilesystem, Mounted: d.Mounted, Owner: f.owner(d), Source: source(d.From),
		GrownTo: d.GrownTo,
	}
}

func source(from string) appliance.Source {
	if appliance.ValidSnapshotID(from) {
		return appliance.Source{Snapshot: from}
	}
	return appliance.Source{Volume: from}
}

// id prints bare for an adopted volume on the default RDS, as Kubernetes knows it.
func (f *Fake) id(d Disk) appliance.ID {
	handle := f.settings.Name + "/" + d.Slot
	if f.settings.Default && len(d.Slot) == len(adoptedForm) {
		handle = d.Slot
	}
	if id, err := appliance.ParseID(handle, f.settings.Name); err == nil {
		return id
	}
	return appliance.ID{RDS: f.settings.Name, Slot: d.Slot}
}

func (f *Fake) owner(d Disk) appliance.Owner {
	switch {
	case d.Cluster == f.settings.ClusterID:
		return appliance.OwnerOurs
	case d.Cluster == "" && len(d.Slot) == len(adoptedForm):
		return appliance.OwnerNone
	default:
		return appliance.OwnerForeign
	}
}

func (f *Fake) errorf(what string, err error) error {
	return fmt.Errorf("rds %s: volume %s: %w", f.settings.Name, what, err)
}

// PutDisk implements Device.
func (f *Fake) PutDisk(_ testing.TB, d Disk) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disks[d.Slot] = d
	f.files[d.Path] = d.SizeBytes
}

// PutFile implements Device.
func (f *Fake) PutFile(_ testing.TB, path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[path] = 1
}

// Disks implements Device.
func (f *Fake) Disks(testing.TB) map[string]Disk {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.disks)
}

// Files implements Device.
func (f *Fake) Files(testing.TB) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.files))
}
