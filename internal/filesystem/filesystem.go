// Package filesystem turns a volume's block device into a mounted filesystem
// without ever destroying data: it formats only what is proven blank, mounts
// only the device it was given, never stacks mounts and never deletes files.
//
// Everything here can hang in the kernel when the target is away. Such work
// runs in a goroutine of its own, at most one per device or mount point; the
// caller leaves at its deadline and the next call waits for what still runs.
package filesystem

import (
	"context"
	"errors"
	"log/slog"
)

var (
	// ErrUnreadable: the device did not answer every read; it is never formatted.
	ErrUnreadable = errors.New("device unreadable")
	// ErrNotBlank: no signature, yet data; it is neither mounted nor formatted.
	ErrNotBlank = errors.New("device is not blank")
	// ErrForeignSignature: the device holds something else than asked for.
	ErrForeignSignature = errors.New("device holds something else")
	// ErrWrongDevice: the path, the size or the mount is not this volume's.
	ErrWrongDevice = errors.New("wrong device")
	// ErrBusy: the mount or the device is in use.
	ErrBusy = errors.New("in use")
	// ErrTimeout: the deadline ended first; the same call again waits for what
	// still runs in the kernel.
	ErrTimeout = errors.New("timed out")
	// ErrOption: a mount option that is refused.
	ErrOption = errors.New("mount option refused")
	// ErrFsType: a filesystem that is not offered.
	ErrFsType = errors.New("filesystem type not supported")
	// ErrNotMounted: the source of a bind mount is not a mount point.
	ErrNotMounted = errors.New("not mounted")
	// ErrIncompatible: the right device is mounted there, but not as asked for.
	ErrIncompatible = errors.New("mounted differently")
	// ErrTarget: the mount point is not usable (a symbolic link, a file in place
	// of a directory, a relative path).
	ErrTarget = errors.New("unusable mount point")
	// ErrFormat: mkfs failed.
	ErrFormat = errors.New("mkfs failed")
	// ErrMount: the kernel refused the mount.
	ErrMount = errors.New("mount failed")
)

// Device is a volume's block device as its driver proved it.
type Device struct {
	Path         string
	Major, Minor uint32
	SizeBytes    int64 // zero: not checked
}

// Mount is one entry of the kernel's mount table.
type Mount struct {
	Major, Minor uint32
	FSType       string
	Root         string   // which part of the filesystem is mounted: "/" for all of it
	Options      []string // of this mount: ro, noexec, ...
	SuperOptions []string // of the filesystem: discard, errors=..., ...
	ReadOnly     bool     // the mount or its filesystem is read-only
}

// Kind is what a device holds.
type Kind int

// Kinds of content.
const (
	Unknown    Kind = iota // data without any known signature
	Blank                  // no signature, and every sample is zero
	FileSystem             // one filesystem: Content.FSType
	Foreign                // a partition table, LVM, RAID, LUKS, swap, several at once
)

// Content is what Inspect found.
type Content struct {
	Kind   Kind
	FSType string // ext4, xfs, btrfs, ... for FileSystem
	Detail string // for people: "partition table gpt", "data at offset 1048576"
}

// Config of a Filesystem. Zero values mean the real system.
type Config struct {
	MountInfo string // default /proc/self/mountinfo
	Logger    *slog.Logger
}

// Filesystem stages and publishes volumes. It is safe for concurrent use.
type Filesystem struct {
	cfg Config
}

// New makes a Filesystem; it does no I/O.
func New(cfg Config) *Filesystem { return &Filesystem{cfg: cfg} }

// Stage mounts the device's filesystem at target and formats it first if, and
// only if, the device is proven blank. An empty fstype means ext4.
func (f *Filesystem) Stage(ctx context.Context, dev Device, target, fstype string, options []string) error {
	return ErrMount
}

// Inspect reads the device and says what it holds; it writes nothing.
func (f *Filesystem) Inspect(ctx context.Context, dev Device) (Content, error) {
	return Content{}, ErrUnreadable
}

// Mounted is the top-most mount at exactly this path.
func (f *Filesystem) Mounted(path string) (Mount, bool, error) { return Mount{}, false, ErrMount }

// Bind makes the filesystem staged at staging visible at target.
func (f *Filesystem) Bind(ctx context.Context, staging, target string, readonly bool, options []string) error {
	return ErrMount
}

// PublishDevice makes a raw block volume visible at target: a device node, no
// mount. Repeated, it changes nothing; a node of another device is ErrWrongDevice.
func (f *Filesystem) PublishDevice(ctx context.Context, dev Device, target string) error {
	return ErrMount
}

// Unmount unmounts until nothing is mounted at target, then removes it if it is
// an empty directory, an empty file or a device node. Absent is success.
func (f *Filesystem) Unmount(ctx context.Context, target string) error { return ErrMount }

// Drain waits until no mkfs runs any more; call it before the process ends.
func (f *Filesystem) Drain(ctx context.Context) error { return nil }
