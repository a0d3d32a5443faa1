package drivertest

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/rds-csi/rds-csi/internal/filesystem"
)

// StageBlock is the file system's.
func (k *Kernel) StageBlock(ctx context.Context, volume string, dev filesystem.Device, target string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := errors.Join(ctx.Err(), k.fail[Stage]); err != nil {
		return err
	}
	if m, ok := k.top(target); ok {
		return m.shown(volume, dev.Minor)
	}
	if err := os.MkdirAll(target, 0o750); err != nil {
		return err
	}
	k.mounts = append(k.mounts, mount{path: target, minor: dev.Minor, fsType: "tmpfs", volume: volume})
	return nil
}

func (m mount) shown(volume string, minor uint32) error {
	if m.volume != volume || m.minor != minor {
		return fmt.Errorf("%s: %w", m.path, filesystem.ErrWrongDevice)
	}
	return nil
}

// PublishBlock is the file system's.
func (k *Kernel) PublishBlock(ctx context.Context, volume string, dev filesystem.Device, staging, target string, readonly bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	source, ok := k.top(staging)
	if !ok || ctx.Err() != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("%s: %w", staging, filesystem.ErrNotMounted))
	}
	nqn, ok := k.nqnOf(dev.Minor)
	if err := source.shown(volume, dev.Minor); err != nil || !ok {
		return errors.Join(err, filesystem.ErrWrongDevice)
	}
	d := k.devices[nqn]
	if m, ok := k.top(target); ok {
		if d.ro != readonly {
			return fmt.Errorf("%s: %w", target, filesystem.ErrIncompatible)
		}
		return m.shown(volume, dev.Minor)
	}
	for _, m := range k.mounts {
		if m.volume == volume && m.path != staging && d.ro != readonly {
			return fmt.Errorf("%s: %w: %s", target, filesystem.ErrShared, m.path)
		}
	}
	d.ro = readonly
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		return err
	}
	source.path = target
	k.mounts = append(k.mounts, source)
	return nil
}

// BlockPlaces is the file system's.
func (k *Kernel) BlockPlaces(volume string) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fail[Mounts]; err != nil {
		return nil, err
	}
	var places []string
	for _, m := range k.mounts {
		if m.volume == volume {
			places = append(places, m.path)
		}
	}
	return places, nil
}

// ReadOnly says whether the kernel refuses writes to a connected device.
func (k *Kernel) ReadOnly(nqn string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.devices[nqn].ro
}
