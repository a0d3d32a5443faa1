package filesystem

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const bindLimit = time.Minute // for callers without a deadline

// Bind makes the filesystem staged at staging visible at target, read-only if
// asked. Of the options, those of a mount (noexec, nosuid, ...) are set on the
// bind mount; those of the filesystem were its Stage's. Repeated, it changes
// nothing, so mounts never stack (B2).
//
// The mount gets its flags before it is attached, never after: pods use the copy
// that propagates to the host when it is attached, and a later remount in this
// mount namespace leaves that copy writable. So no crash leaves half a bind, and
// one that is there with other flags is refused, not mended. Flags that the staged
// mount does not have, which means a read-only publish of a writable volume, need
// Linux 5.12 (mount_setattr); everything else works with 5.2.
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
	err = f.lanes.Do(ctx, to, func() error { return f.bind(ctx, from, to, want) }, nil)
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
	if made {
		return there.shows(source, want)
	}
	if err := f.makeBind(ctx, from, to, want.attributes&^source.attributes()); err != nil {
		return err
	}
	there, mounted, err = f.top(to)
	if err == nil && !mounted {
		err = fmt.Errorf("%w: the mount table does not show it", ErrMount)
	}
	if err == nil {
		err = there.shows(source, want)
	}
	if err != nil {
		err = errors.Join(err, f.system.unmount(to)) // undone: what this call did, nothing else
	}
	return err
}

func (f *Filesystem) makeBind(ctx context.Context, from, to string, add int) error {
	if err := f.reachesHost(to); err != nil {
		return err
	}
	if err := directory(to); err != nil {
		return err
	}
	if err := left(ctx); err != nil {
		return err
	}
	return f.system.bind(ctx, from, to, add)
}

// shows proves that a bind mount is the source with the wanted flags.
func (m Mount) shows(source Mount, want mountOptions) error {
	if !m.same(source) {
		return fmt.Errorf("%w: %d:%d (%s) is mounted there, the volume is %d:%d",
			ErrWrongDevice, m.Major, m.Minor, m.Root, source.Major, source.Minor)
	}
	if m.ReadOnly && !want.readOnly() && !source.ReadOnly {
		return fmt.Errorf("%w: read-only, wanted writable", ErrIncompatible)
	}
	if missing := want.attributes &^ m.attributes(); missing != 0 {
		return fmt.Errorf("%w: with %q, which lacks %q; unpublish it first: flags set now would not reach the host's copy",
			ErrIncompatible, m.Options, attributeNames(missing))
	}
	return nil
}

func (m Mount) same(o Mount) bool {
	return m.Major == o.Major && m.Minor == o.Minor && m.Root == o.Root
}
