// Package drivertest holds a node's kernel in memory: NVMe/TCP connections and a mount table, for tests of the node
// service where the real ones are not to be had. It keeps the semantics that hurt: mounts stack, a device gets another
// number each time it is connected, a mounted device cannot be disconnected, and what was written stays on the target.
package drivertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// Target answers what a subsystem exports; ok is false when nothing is exported under that name.
type Target func(nqn string) (sizeBytes int64, ok bool)

// Kernel is one node. The fields may be set before a call to make it fail.
type Kernel struct {
	Target Target

	mu          sync.Mutex
	fail        map[Op]error
	devices     map[string]*device // by NQN
	others      map[uint32]bool    // devices that are none of ours
	content     map[string]string  // by NQN: the file system on the target
	sizes       map[string]int64   // by NQN: and how large it is
	mounts      []mount            // in the order of mounting: the last at a path is on top
	minor       uint32
	formats     int
	connects    int
	disconnects int
	hideGrowth  bool
	symptoms    []filesystem.Symptom
}

// Op names a call that can be made to fail.
type Op string

// The calls that can be made to fail.
const (
	Connect    Op = "connect"
	Find       Op = "find"
	Present    Op = "present"
	Grown      Op = "grown"
	Usage      Op = "usage"
	Examine    Op = "examine"
	Sessions   Op = "sessions"
	Disconnect Op = "disconnect"
	Stage      Op = "stage"
	Mounts     Op = "mounts"
)

type device struct {
	minor uint32
	size  int64
	live  bool
	ro    bool // BLKROSET: no pod on this node can write
	lost  bool // the kernel has given its controllers up; the subsystem stays while something is mounted
}

type mount struct {
	path     string
	minor    uint32
	fsType   string
	readonly bool
	volume   string // of a raw volume's device file
}

// major is that of block devices of NVMe namespaces on most kernels: blkext.
const major = 259

// NewKernel makes a node that is connected to nothing.
func NewKernel(target Target) *Kernel {
	return &Kernel{Target: target, fail: map[Op]error{}, devices: map[string]*device{}, others: map[uint32]bool{}, content: map[string]string{}, sizes: map[string]int64{}}
}

// Fail makes every call of op fail until err is nil again.
func (k *Kernel) Fail(op Op, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail[op] = err
}

// Connected lists the connected NQNs, sorted.
func (k *Kernel) Connected() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.devices))
}

// MountsAt counts the mounts stacked at a path.
func (k *Kernel) MountsAt(path string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, m := range k.mounts {
		if m.path == path {
			n++
		}
	}
	return n
}

// Counters are what happened so far.
type Counters struct{ Connects, Disconnects, Formats int }

// Counters answers what happened so far.
func (k *Kernel) Counters() Counters {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Counters{k.connects, k.disconnects, k.formats}
}

// SetLive says whether the target answers: a device whose target is away stays, and is being reconnected.
func (k *Kernel) SetLive(nqn string, live bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.devices[nqn].live = live
}

// Renumber gives a connected device another number, as a reconnect after a loss does; mounts keep the old one.
func (k *Kernel) Renumber(nqn string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.minor++
	k.devices[nqn].minor = k.minor
}

// Lose makes the kernel give up the controllers of a subsystem: its device is gone, and mounts of it fail for ever.
func (k *Kernel) Lose(nqn string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.devices[nqn].lost = true
}

// BindElsewhere mounts what is at a path at another one too, as kubelet does for a subPath.
func (k *Kernel) BindElsewhere(path, elsewhere string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m, ok := k.top(path); ok {
		m.path = elsewhere
		k.mounts = append(k.mounts, m)
	}
}

// MountOver mounts some other device over a path.
func (k *Kernel) MountOver(path, fsType string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.minor++
	k.others[k.minor] = true
	k.mounts = append(k.mounts, mount{path: path, minor: k.minor, fsType: fsType})
}

// StackAgain mounts what is on top of a path once more, as a driver that does not look first does (B2).
func (k *Kernel) StackAgain(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m, ok := k.top(path); ok {
		k.mounts = append(k.mounts, m)
	}
}

// Connect is the initiator's; where the real one waits for a target that is away, this one gives up at once.
func (k *Kernel) Connect(ctx context.Context, t nvme.Target, _ nvme.Options) (nvme.Namespace, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := errors.Join(ctx.Err(), k.fail[Connect]); err != nil {
		return nvme.Namespace{}, err
	}
	if d, ok := k.devices[t.NQN]; ok && !d.lost {
		if !d.live {
			return nvme.Namespace{}, fmt.Errorf("%s: %w: %w", t.NQN, nvme.ErrTimeout, nvme.ErrNotLive)
		}
		return d.namespace(t.NQN), nil
	}
	size, ok := k.Target(t.NQN)
	if !ok {
		return nvme.Namespace{}, fmt.Errorf("%s at %s: %w: nothing is exported under that name", t.NQN, t.Address, nvme.ErrRefused)
	}
	k.minor++
	k.connects++
	k.devices[t.NQN] = &device{minor: k.minor, size: size, live: true}
	return k.devices[t.NQN].namespace(t.NQN), nil
}

func (d *device) namespace(nqn string) nvme.Namespace {
	return nvme.Namespace{
		NQN: nqn, NSID: 1, Name: fmt.Sprintf("nvme%dn1", d.minor), DevicePath: fmt.Sprintf("/dev/nvme%dn1", d.minor),
		Major: major, Minor: d.minor, SizeBytes: d.size,
	}
}

// Find is the initiator's.
func (k *Kernel) Find(nqn string) (nvme.Namespace, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fail[Find]; err != nil {
		return nvme.Namespace{}, err
	}
	d, ok := k.devices[nqn]
	if !ok || d.lost && !k.mounted(d.minor) {
		return nvme.Namespace{}, fmt.Errorf("%s: %w", nqn, nvme.ErrNotConnected)
	}
	if d.lost {
		return nvme.Namespace{}, fmt.Errorf("%s: %w", nqn, nvme.ErrNoPath)
	}
	if !d.live {
		return d.namespace(nqn), fmt.Errorf("%s: %w", nqn, nvme.ErrNotLive)
	}
	return d.namespace(nqn), nil
}

// Disconnect is the initiator's: a mounted device is held exclusively, and not disconnected.
func (k *Kernel) Disconnect(ctx context.Context, nqn string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := errors.Join(ctx.Err(), k.fail[Disconnect]); err != nil {
		return err
	}
	d, ok := k.devices[nqn]
	if !ok {
		return nil
	}
	for _, m := range k.mounts {
		if m.minor == d.minor && m.volume == "" { // nobody opens a device file exclusively
			return fmt.Errorf("%s: %w: mounted at %s", nqn, nvme.ErrInUse, m.path)
		}
	}
	k.disconnects++
	delete(k.devices, nqn)
	return nil
}

// Present is the initiator's.
func (k *Kernel) Present(maj, minor uint32) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fail[Present]; err != nil {
		return false, err
	}
	_, ours := k.nqnOf(minor)
	return maj == major && (ours || k.others[minor]), nil
}

// Stage is the file system's.
func (k *Kernel) Stage(ctx context.Context, dev filesystem.Device, target, fsType string, _ []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := errors.Join(ctx.Err(), k.fail[Stage]); err != nil {
		return err
	}
	if m, ok := k.top(target); ok {
		if m.minor != dev.Minor {
			return fmt.Errorf("%s: %w", target, filesystem.ErrWrongDevice)
		}
		return nil
	}
	nqn, ok := k.nqnOf(dev.Minor)
	if !ok {
		return fmt.Errorf("%s: %w", dev.Path, filesystem.ErrUnreadable)
	}
	switch k.content[nqn] {
	case "":
		if dev.Source != "" {
			return fmt.Errorf("%s: %w", dev.Path, filesystem.ErrNoData)
		}
		if dev.ReadOnly {
			return fmt.Errorf("%s: %w: it is blank", dev.Path, filesystem.ErrReadOnly)
		}
		k.content[nqn] = fsType
		k.formats++
	case fsType:
	default:
		return fmt.Errorf("%s holds %s: %w", dev.Path, k.content[nqn], filesystem.ErrForeignSignature)
	}
	if err := os.MkdirAll(target, 0o750); err != nil {
		return err
	}
	k.devices[nqn].ro = dev.ReadOnly
	if !dev.ReadOnly {
		k.sizes[nqn] = dev.SizeBytes
	}
	k.mounts = append(k.mounts, mount{path: target, minor: dev.Minor, fsType: fsType, readonly: dev.ReadOnly})
	return nil
}

// Mounted is the file system's.
func (k *Kernel) Mounted(path string) (filesystem.Mount, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, ok := k.top(path)
	return filesystem.Mount{Major: major, Minor: m.minor, FSType: m.fsType, Root: "/", ReadOnly: m.readonly, Volume: m.volume}, ok, nil
}

// Bind is the file system's.
func (k *Kernel) Bind(ctx context.Context, staging, target string, readonly bool, _ []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	source, ok := k.top(staging)
	if !ok || ctx.Err() != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("%s: %w", staging, filesystem.ErrNotMounted))
	}
	if m, ok := k.top(target); ok {
		switch {
		case m.minor != source.minor:
			return fmt.Errorf("%s: %w", target, filesystem.ErrWrongDevice)
		case m.readonly != readonly:
			return fmt.Errorf("%s: %w", target, filesystem.ErrIncompatible)
		}
		return nil
	}
	if err := os.MkdirAll(target, 0o750); err != nil {
		return err
	}
	k.mounts = append(k.mounts, mount{path: target, minor: source.minor, fsType: source.fsType, readonly: readonly})
	return nil
}

// Unmount is the file system's: until nothing is left, then the empty directory goes.
func (k *Kernel) Unmount(ctx context.Context, target string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	k.mounts = slices.DeleteFunc(k.mounts, func(m mount) bool { return m.path == target })
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Mounts is the mount table by device.
func (k *Kernel) Mounts(maj, minor uint32) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fail[Mounts]; err != nil {
		return nil, err
	}
	var places []string
	for _, m := range k.mounts {
		if maj == major && m.minor == minor && m.volume == "" {
			places = append(places, m.path)
		}
	}
	return places, nil
}

func (k *Kernel) top(path string) (mount, bool) {
	for _, m := range slices.Backward(k.mounts) {
		if m.path == path {
			return m, true
		}
	}
	return mount{}, false
}

func (k *Kernel) mounted(minor uint32) bool {
	return slices.ContainsFunc(k.mounts, func(m mount) bool { return m.minor == minor && m.volume == "" })
}

func (k *Kernel) nqnOf(minor uint32) (string, bool) {
	for nqn, d := range k.devices {
		if d.minor == minor && !d.lost {
			return nqn, true
		}
	}
	return "", false
}
