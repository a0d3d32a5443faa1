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

const (
	unmountLimit = 2 * time.Minute // for callers without a deadline
	stackLimit   = 4096            // stacks of 2048 were seen on nodes of the existing driver
)

// Unmount unmounts until nothing is mounted at target, then removes it if it is
// an empty directory or an empty file; anything else stays and is
// logged. It never deletes recursively: the volume's own files went that way
// (B2). Absent is success. It is never lazy, never forced, and looks only at the
// mount table while something is mounted, so a dead filesystem does not stop it;
// one whose data cannot be written hangs in the kernel, and the caller leaves.
func (f *Filesystem) Unmount(ctx context.Context, target string) error {
	path, err := resolve(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, unmountLimit)
	defer cancel()
	err = f.lanes.Do(ctx, path, func() error {
		if err := f.unmountAll(ctx, path); err != nil {
			return err
		}
		return f.remove(ctx, path)
	}, nil)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

func (f *Filesystem) unmountAll(ctx context.Context, path string) error {
	for range stackLimit {
		_, mounted, err := f.top(path)
		if err != nil || !mounted {
			return err
		}
		if err := left(ctx); err != nil {
			return err
		}
		err = f.system.unmount(path)
		switch {
		case errors.Is(err, syscall.EBUSY):
			return fmt.Errorf("%w: a process still uses it, or something is mounted below it: %w", ErrBusy, err)
		case errors.Is(err, syscall.EINVAL), errors.Is(err, fs.ErrNotExist):
			// No mount any more: somebody else was faster. The table decides.
		case err != nil:
			return fmt.Errorf("%w: %w", ErrMount, err)
		}
	}
	return fmt.Errorf("%w: more than %d mounts, one on the other", ErrBusy, stackLimit)
}

// remove runs when nothing is mounted at path, so what it sees is local.
func (f *Filesystem) remove(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	mode := info.Mode()
	switch {
	case mode.IsDir(), mode.IsRegular() && info.Size() == 0:
		err = os.Remove(path) // of a directory: only if it is empty
	default:
		err = fmt.Errorf("it is %s of %d bytes", mode, info.Size())
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EBUSY): // a mount point after all, perhaps in another namespace
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	f.log.WarnContext(ctx, "unmounted, but the mount point is not empty and stays", "target", path, "reason", err)
	return nil
}
