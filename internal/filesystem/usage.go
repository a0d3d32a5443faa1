package filesystem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// usageLimit bounds a look at a file system: kubelet asks for every volume once a minute, and counts on nothing of it.
const usageLimit = 10 * time.Second

// Amount is how much of something there is.
type Amount struct{ Total, Used, Available int64 }

// Usage is what a file system holds. Available is what an ordinary user can still get of it.
type Usage struct{ Bytes, Inodes Amount }

// Usage asks the file system mounted at target how full it is. A file system whose target is away may not answer (xfs
// waits for its log at times): then the caller leaves, at his deadline or after usageLimit, and however many come after
// him wait for the one question that is in the kernel, so that they do not pile up there (kubernetes#31272).
func (f *Filesystem) Usage(ctx context.Context, dev Device, target string) (Usage, error) {
	var u Usage
	err := f.look(ctx, dev, target, func(path string, _ Mount) error {
		st, err := f.system.statfs(path)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
		size := st.Frsize
		u.Bytes = Amount{int64(st.Blocks) * size, int64(st.Blocks-st.Bfree) * size, int64(st.Bavail) * size}
		u.Inodes = Amount{int64(st.Files), int64(st.Files - st.Ffree), int64(st.Ffree)}
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("usage of %s at %s: %w", dev, target, err)
	}
	return u, nil
}

// look calls ask when the device's file system is mounted at target: at most one at a time per device, which the caller
// does not wait for longer than usageLimit. What ask writes is the caller's only when look returns nil.
func (f *Filesystem) look(ctx context.Context, dev Device, target string, ask func(path string, m Mount) error) error {
	path, err := resolve(target)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, usageLimit)
	defer cancel()
	return f.lanes.Do(ctx, "look "+dev.number(), func() error {
		there, mounted, err := f.top(path)
		switch {
		case err != nil:
			return err
		case !mounted:
			return fmt.Errorf("%w: %s", ErrNotMounted, path)
		case there.Major != dev.Major || there.Minor != dev.Minor || there.Volume != "":
			return fmt.Errorf("%w: %d:%d (%s) is mounted there", ErrWrongDevice, there.Major, there.Minor, there.FSType)
		}
		return ask(path, there)
	}, nil)
}

func statfs(path string) (st unix.Statfs_t, err error) {
	for {
		if err = unix.Statfs(path, &st); !errors.Is(err, unix.EINTR) {
			return st, err
		}
	}
}
