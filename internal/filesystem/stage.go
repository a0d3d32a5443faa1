package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

const stageLimit = 10 * time.Minute // for callers without a deadline

// Stage mounts the device's filesystem at target and formats it first if, and
// only if, the device is proven blank. An empty fstype means ext4.
//
// Repeated, it changes nothing: the device that is mounted there already is
// neither read nor checked, for kubelet repeats it under running pods (B1).
// There is no fsck before a mount: the kernel replays the log of an unclean
// filesystem, a checker only refuses it (B17).
func (f *Filesystem) Stage(ctx context.Context, dev Device, target, fstype string, options []string) error {
	if fstype == "" {
		fstype = "ext4"
	}
	if fstype != "ext4" && fstype != "xfs" {
		return fmt.Errorf("stage %s: %w: %q, choose ext4 or xfs", dev, ErrFsType, fstype)
	}
	parsed, err := parseOptions(options)
	if err != nil {
		return fmt.Errorf("stage %s: %w", dev, err)
	}
	if dev.ReadOnly {
		parsed.add("ro", "ro")
	}
	if fstype == "xfs" {
		parsed.twins()
	}
	path, err := resolve(target)
	if err != nil {
		return fmt.Errorf("stage %s: %w", dev, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stageLimit)
	defer cancel()
	err = f.lanes.Do(ctx, path, func() error {
		return f.stage(ctx, dev, mountCall{device: dev.Path, fstype: fstype, target: path, options: parsed})
	}, nil)
	if err != nil {
		return fmt.Errorf("stage %s at %s: %w", dev, target, err)
	}
	return nil
}

// stage runs in the lane of the target.
func (f *Filesystem) stage(ctx context.Context, dev Device, m mountCall) error {
	there, mounted, err := f.top(m.target)
	if err != nil {
		return err
	}
	if mounted {
		return there.is(dev, m.fstype)
	}
	if err := f.reachesHost(m.target); err != nil { // before anything is formatted
		return err
	}
	leave, err := f.lanes.Enter(ctx, "device "+dev.number())
	if err != nil {
		return err
	}
	defer leave()
	d, err := f.open(dev)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // held open to the end: see still
	if err := f.prepare(ctx, dev, d, m.fstype); err != nil {
		return err
	}
	if err := f.guard(dev); err != nil {
		return err
	}
	if err := directory(m.target); err != nil {
		return err
	}
	if err := f.mountOrRepair(ctx, dev, m); err != nil {
		return err
	}
	if err := f.staged(dev, m); err != nil {
		return errors.Join(err, f.system.unmount(m.target)) // undone, or every repetition would stumble over it
	}
	f.fill(ctx, dev, m)
	return nil
}

// fill grows a file system that is smaller than its device: a copy in a larger volume, or a volume that grew while
// nobody had it, for which nobody asks a node to grow anything. One that cannot be grown is as usable as it was before,
// so that is told and no reason to keep a pod from its data.
func (f *Filesystem) fill(ctx context.Context, dev Device, m mountCall) {
	if dev.SizeBytes == 0 || m.options.readOnly() {
		return
	}
	if err := f.grow(ctx, dev, m.target, m.fstype); err != nil {
		f.log.WarnContext(ctx, "staged, but its file system is smaller than the volume", "device", dev.String(), "target", m.target, "error", err)
	}
}

// guard makes a device that is for reading only read-only in the kernel, before a mount: a mount option alone would let
// ext4 and xfs replay their log, which is a write. A device that was read-only before is made writable again.
func (f *Filesystem) guard(dev Device) error {
	have, err := f.system.readOnly(dev)
	if err != nil {
		return fmt.Errorf("%w: whether it is read-only: %w", ErrUnreadable, err)
	}
	if have == dev.ReadOnly {
		return nil
	}
	if err := f.unclaimed(dev); err != nil {
		return err
	}
	return f.setReadOnly(dev, dev.ReadOnly)
}

// staged proves that what was mounted is there.
func (f *Filesystem) staged(dev Device, m mountCall) error {
	there, mounted, err := f.top(m.target)
	if err != nil {
		return err
	}
	if !mounted {
		return fmt.Errorf("%w: the mount table does not show it", ErrMount)
	}
	return there.is(dev, m.fstype)
}

// is tells whether a mount is the whole filesystem of this device.
func (m Mount) is(dev Device, fstype string) error {
	if m.Major != dev.Major || m.Minor != dev.Minor || m.Root != "/" {
		return fmt.Errorf("%w: %d:%d (%s, %s) is mounted there", ErrWrongDevice, m.Major, m.Minor, m.FSType, m.Root)
	}
	if m.FSType != fstype {
		return fmt.Errorf("%w: it is mounted there as %s, wanted %s", ErrForeignSignature, m.FSType, fstype)
	}
	if dev.ReadOnly && !m.ReadOnly {
		return fmt.Errorf("%w: it is mounted there writable, wanted read-only", ErrIncompatible)
	}
	return nil
}

// prepare leaves a device with a filesystem of the wanted type, or an error.
func (f *Filesystem) prepare(ctx context.Context, dev Device, d disk, fstype string) error {
	c, err := f.inspect(ctx, dev, d)
	if err != nil {
		return err
	}
	switch c.Kind {
	case FileSystem:
		if c.FSType != fstype {
			return fmt.Errorf("%w: it holds %s, wanted %s; nothing was changed", ErrForeignSignature, c.FSType, fstype)
		}
		return nil
	case Foreign:
		return fmt.Errorf("%w: it holds %s, wanted %s; nothing was changed", ErrForeignSignature, c.Detail, fstype)
	case Blank:
		if dev.Source != "" {
			return fmt.Errorf("%w, although it was made from %s, and is not formatted: either that held no file system, "+
				"or its data is lost; look at %[2]s, and if it was never used, make the claim again without a data source", ErrNoData, dev.Source)
		}
		if dev.ReadOnly {
			return fmt.Errorf("%w: it is blank, and making a file system is a write: use it once with ReadWriteOnce first, "+
				"or make the claim from a snapshot or a volume that has data", ErrReadOnly)
		}
		return f.format(ctx, dev, fstype)
	default:
		return f.notBlank(dev, c)
	}
}

func (f *Filesystem) notBlank(dev Device, c Content) error {
	if err := f.unclaimed(dev); err != nil {
		return err
	}
	return fmt.Errorf("%w: no known filesystem, but %s, and what is not proven blank is not formatted. "+
		"A mkfs that was cut off by a crash leaves this, so does a lost superblock. "+
		"If the volume never held data, delete the claim and make it again; "+
		"otherwise look at the device on this node (%s), or restore the volume", ErrNotBlank, c.Detail, dev.Path)
}

func (f *Filesystem) mountOrRepair(ctx context.Context, dev Device, m mountCall) error {
	err := f.mount(ctx, dev, m)
	if dev.ReadOnly && errors.Is(err, syscall.EROFS) {
		// Mounting it without its log (noload, norecovery) would show files that never were so.
		return fmt.Errorf("%w: its %s was not unmounted cleanly and its log must be replayed, which is a write: "+
			"use it once with ReadWriteOnce, so that the kernel replays it, then read-only: %w", ErrReadOnly, m.fstype, err)
	}
	if err == nil || m.fstype != "ext4" || m.options.readOnly() || !damaged(err) {
		return err
	}
	if repairErr := f.repair(ctx, dev); repairErr != nil {
		return fmt.Errorf("%w; %w", err, repairErr)
	}
	return f.mount(ctx, dev, m)
}

func (f *Filesystem) mount(ctx context.Context, dev Device, m mountCall) error {
	if err := f.still(dev); err != nil {
		return err
	}
	if err := left(ctx); err != nil {
		return err
	}
	return f.system.mount(ctx, m)
}

// damaged: errors by which the kernel says that the filesystem's own data is wrong.
func damaged(err error) bool {
	for _, errno := range []error{syscall.EUCLEAN, syscall.EBADMSG, syscall.EINVAL, syscall.EIO} {
		if errors.Is(err, ErrMount) && errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// directory makes the last element of a mount point and refuses anything that is
// not a directory.
func directory(path string) error {
	err := os.Mkdir(path, 0o750)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: %s is not a directory", ErrTarget, path)
	}
	return nil
}
