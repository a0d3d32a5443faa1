package drivertest

import (
	"context"
	"errors"
	"fmt"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// Grown is the initiator's: a rescan shows what the target has by now, unless growth is made invisible.
func (k *Kernel) Grown(ctx context.Context, nqn string, bytes int64) (nvme.Namespace, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := errors.Join(ctx.Err(), k.fail[Grown]); err != nil {
		return nvme.Namespace{}, err
	}
	d, ok := k.devices[nqn]
	if !ok || d.lost {
		return nvme.Namespace{}, fmt.Errorf("%s: %w", nqn, nvme.ErrNotConnected)
	}
	if d.size < bytes && !d.live {
		return d.namespace(nqn), fmt.Errorf("%s: %w", nqn, nvme.ErrNotLive)
	}
	if size, ok := k.Target(nqn); ok && !k.hideGrowth {
		d.size = max(d.size, size)
	}
	if d.size < bytes {
		return d.namespace(nqn), fmt.Errorf("%s: %w: %d bytes", nqn, nvme.ErrOldSize, d.size)
	}
	return d.namespace(nqn), nil
}

// HideGrowth makes devices keep the size that they were connected with, as with a target that fixes it.
func (k *Kernel) HideGrowth() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hideGrowth = true
}

// Grow is the file system's.
func (k *Kernel) Grow(ctx context.Context, dev filesystem.Device, target string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, ok := k.top(target)
	nqn, ours := k.nqnOf(dev.Minor)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !ok:
		return fmt.Errorf("%s: %w", target, filesystem.ErrNotMounted)
	case !ours || m.minor != dev.Minor || m.volume != "":
		return fmt.Errorf("%s: %w", target, filesystem.ErrWrongDevice)
	case m.readonly:
		return fmt.Errorf("%s: %w", target, filesystem.ErrReadOnly)
	}
	k.sizes[nqn] = max(k.sizes[nqn], dev.SizeBytes)
	return nil
}

// FilesystemBytes is the size of the file system on a volume.
func (k *Kernel) FilesystemBytes(nqn string) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sizes[nqn]
}
