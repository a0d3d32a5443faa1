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
	"fmt"
	"log/slog"

	"github.com/rds-csi/rds-csi/internal/lane"
)

var (
	// ErrUnreadable means: the device did not answer every read; it is never formatted.
	ErrUnreadable = errors.New("device unreadable")
	// ErrNotBlank means: no signature, yet data; it is neither mounted nor formatted.
	ErrNotBlank = errors.New("device is not blank")
	// ErrNoData means: the device was made from a snapshot or a volume and reads as zeros; it is not formatted.
	ErrNoData = errors.New("device holds nothing")
	// ErrForeignSignature means: the device holds something else than asked for.
	ErrForeignSignature = errors.New("device holds something else")
	// ErrWrongDevice means: the path, the size or the mount is not this volume's.
	ErrWrongDevice = errors.New("wrong device")
	// ErrBusy means: the mount or the device is in use.
	ErrBusy = errors.New("in use")
	// ErrTimeout means: the deadline ended first; the same call again waits for what
	// still runs in the kernel.
	ErrTimeout = errors.New("timed out")
	// ErrOption means: a mount option that is refused.
	ErrOption = errors.New("mount option refused")
	// ErrFsType means: a filesystem that is not offered.
	ErrFsType = errors.New("filesystem type not supported")
	// ErrNotMounted means: the source of a bind mount is not a mount point.
	ErrNotMounted = errors.New("not mounted")
	// ErrIncompatible means: the right device is mounted there, but not as asked for.
	ErrIncompatible = errors.New("mounted differently")
	// ErrShared means: the device is read-only or writable for somebody else here, or for the
	// RDS, and would have to be the other for this call.
	ErrShared = errors.New("device is shared")
	// ErrReadOnly means: the volume is for reading only, and would have to be written to.
	ErrReadOnly = errors.New("volume is read-only")
	// ErrTarget means: the mount point is not usable (a symbolic link, a file in place
	// of a directory, a relative path, a place whose mounts the host would not see).
	ErrTarget = errors.New("unusable mount point")
	// ErrFormat means: mkfs failed.
	ErrFormat = errors.New("mkfs failed")
	// ErrGrow means: the kernel did not make the filesystem as large as its device.
	ErrGrow = errors.New("growing failed")
	// ErrMount means: the kernel refused the mount.
	ErrMount = errors.New("mount failed")
)

// Device is a volume's block device as its driver proved it.
type Device struct {
	Path         string
	Major, Minor uint32
	SizeBytes    int64 // zero: not checked
	// ReadOnly: nothing is written to it. It is not formatted, its file system's log is not replayed,
	// and the kernel refuses every write until it is staged otherwise.
	ReadOnly bool
	// Source is the snapshot or volume that the device's contents were made from; empty for a volume that began empty.
	// What was made from another is never formatted: were it blank, its data would be what is missing.
	Source string
}

// Mount is one entry of the kernel's mount table.
type Mount struct {
	Major, Minor uint32
	FSType       string
	Root         string   // which part of the filesystem is mounted: "/" for all of it
	Options      []string // of this mount: ro, noexec, ...
	SuperOptions []string // of the filesystem: discard, errors=..., ...
	ReadOnly     bool     // the mount or its filesystem is read-only
	Volume       string   // of a raw block volume's device file: whose it is; Major and Minor are the device's
	Shared       bool     // what is mounted below it propagates to its peers, the host's mount among them
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
	mountInfo string
	log       *slog.Logger
	system    system
	lanes     lane.Set // one operation at a time per mount point and per device
	writers   lane.Set // devices that mkfs or e2fsck is writing to
}

// New makes a Filesystem; it does no I/O.
func New(cfg Config) *Filesystem {
	if cfg.MountInfo == "" {
		cfg.MountInfo = "/proc/self/mountinfo"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Filesystem{
		mountInfo: cfg.MountInfo, log: cfg.Logger, system: linux(),
		lanes: lane.Set{Overdue: ErrTimeout}, writers: lane.Set{Overdue: ErrTimeout},
	}
}

// Drain waits until no mkfs and no e2fsck runs any more; call it before the
// process ends. They are never cut off: half a filesystem is data without a
// signature, which only a person may declare worthless (B21).
func (f *Filesystem) Drain(ctx context.Context) error {
	for {
		device, done := f.writers.Any()
		if done == nil {
			return nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("%w: a filesystem is still being made on %s: %w", ErrTimeout, device, context.Cause(ctx))
		}
	}
}

func (d Device) number() string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

func (d Device) String() string { return d.Path + " (" + d.number() + ")" }

// left says that the caller has given up: what has not begun must not begin.
func left(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrTimeout, context.Cause(ctx))
}
