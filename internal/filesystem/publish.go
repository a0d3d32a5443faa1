package filesystem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const bindLimit = time.Minute // for callers without a deadline

// Bind makes the filesystem staged at staging visible at target, read-only if
// asked. Of the options, those of a mount (noexec, nosuid, ...) are set on the
// bind mount; those of the filesystem were its Stage's. Repeated, it changes
// nothing, so mounts never stack (B2); after a crash half-way it finishes.
func (f *Filesystem) Bind(ctx context.Context, staging, target string, readonly bool, options []string) error {
	want, err := parseOptions(options)
	if err != nil {
		return fmt.Errorf("bind %s: %w", staging, err)
	}
	if readonly {
		want.add("ro", "ro")
	}
	from, err := resolve(staging)
	if err != nil {
		return fmt.Errorf("bind %s: %w", staging, err)
	}
	to, err := resolve(target)
	if err != nil {
		return fmt.Errorf("bind %s: %w", staging, err)
	}
	ctx, cancel := context.WithTimeout(ctx, bindLimit)
	defer cancel()
	err = f.lanes.do(ctx, to, func() error { return f.bind(ctx, from, to, want) })
	if err != nil {
		return fmt.Errorf("bind %s to %s: %w", staging, target, err)
	}
	return nil
}

// bind runs in the lane of the target.
func (f *Filesystem) bind(ctx context.Context, from, to string, want mountOptions) error {
	source, mounted, err := f.top(from)
	if err != nil {
		return err
	}
	if !mounted {
		// The bind would show the directory below it, on the node's own disk.
		return fmt.Errorf("%w: %s; stage the volume first", ErrNotMounted, from)
	}
	there, made, err := f.top(to)
	if err != nil {
		return err
	}
	if !made {
		there, err = f.makeBind(ctx, from, to)
		if err != nil {
			return err
		}
	}
	err = f.settle(to, source, there, want)
	if err != nil && !made {
		err = errors.Join(err, f.system.unmount(to)) // undone: what this call did, nothing else
	}
	return err
}

func (f *Filesystem) makeBind(ctx context.Context, from, to string) (Mount, error) {
	if err := directory(to); err != nil {
		return Mount{}, err
	}
	if err := left(ctx); err != nil {
		return Mount{}, err
	}
	if err := f.system.bind(from, to); err != nil {
		return Mount{}, fmt.Errorf("%w: %w", ErrMount, err)
	}
	there, mounted, err := f.top(to)
	if err == nil && !mounted {
		err = fmt.Errorf("%w: the mount table does not show it", ErrMount)
	}
	return there, err
}

// settle proves that what is mounted at the target is the source, and adds the
// flags that are missing.
func (f *Filesystem) settle(to string, source, there Mount, want mountOptions) error {
	if !there.same(source) {
		return fmt.Errorf("%w: %d:%d (%s) is mounted there, the volume is %d:%d",
			ErrWrongDevice, there.Major, there.Minor, there.Root, source.Major, source.Minor)
	}
	if there.ReadOnly && !want.readOnly() && !source.ReadOnly {
		return fmt.Errorf("%w: read-only, wanted writable", ErrIncompatible)
	}
	has, err := parseOptions(there.Options)
	if err != nil {
		return err
	}
	if has.attributes&want.attributes == want.attributes {
		return nil
	}
	// A remount sets all flags, so those that are there must be said again.
	if want.attributes&unix.MOUNT_ATTR__ATIME != 0 {
		has.attributes &^= unix.MOUNT_ATTR__ATIME
	}
	want.attributes |= has.attributes
	if err := f.system.rebind(to, want.flags()); err != nil {
		return fmt.Errorf("%w: %w", ErrMount, err)
	}
	now, mounted, err := f.top(to)
	if err != nil {
		return err
	}
	if !mounted || !now.same(source) || (want.readOnly() && !now.ReadOnly) {
		return fmt.Errorf("%w: the flags did not take effect", ErrMount)
	}
	return nil
}

func (m Mount) same(o Mount) bool {
	return m.Major == o.Major && m.Minor == o.Minor && m.Root == o.Root
}
