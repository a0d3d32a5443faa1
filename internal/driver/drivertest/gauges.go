package drivertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// Usage is the file system's: half full.
func (k *Kernel) Usage(ctx context.Context, dev filesystem.Device, target string) (filesystem.Usage, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := errors.Join(ctx.Err(), k.fail[Usage]); err != nil {
		return filesystem.Usage{}, err
	}
	m, ok := k.top(target)
	if !ok || m.minor != dev.Minor || m.volume != "" {
		return filesystem.Usage{}, fmt.Errorf("%s: %w", target, filesystem.ErrWrongDevice)
	}
	nqn, _ := k.nqnOf(dev.Minor)
	size := k.sizes[nqn]
	return filesystem.Usage{
		Bytes:  filesystem.Amount{Total: size, Used: size / 2, Available: size / 2},
		Inodes: filesystem.Amount{Total: 100, Used: 10, Available: 90},
	}, nil
}

// Examine is the file system's: it finds what Ail said.
func (k *Kernel) Examine(ctx context.Context, _ filesystem.Device, _ string) ([]filesystem.Symptom, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := errors.Join(ctx.Err(), k.fail[Examine]); err != nil {
		return nil, err
	}
	return slices.Clone(k.symptoms), nil
}

// Ail makes every file system ill.
func (k *Kernel) Ail(symptoms ...filesystem.Symptom) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.symptoms = symptoms
}

// Sessions is the initiator's: all lead to one target.
func (k *Kernel) Sessions() ([]nvme.Session, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fail[Sessions]; err != nil {
		return nil, err
	}
	var sessions []nvme.Session
	for _, nqn := range slices.Sorted(maps.Keys(k.devices)) {
		d := k.devices[nqn]
		if d.lost {
			continue
		}
		state := "connecting"
		if d.live {
			state = "live"
		}
		sessions = append(sessions, nvme.Session{NQN: nqn, State: state, Target: "10.42.68.1 port 4420"})
	}
	return sessions, nil
}
