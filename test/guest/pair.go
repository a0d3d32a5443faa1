//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/test/guest/machine"
	"github.com/rds-csi/rds-csi/test/guest/wire"
)

// secondMemoryMB is enough for a node without volumes of its own.
const secondMemoryMB = 1024

// pair boots two machines side by side, on a link that is a pair of sockets: nothing of the host's network is touched.
// The first one's command decides; the second machine is there for it.
func (r *request) pair(ctx context.Context, config machine.Config) (machine.Result, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return machine.Result{}, fmt.Errorf("link of the machines: %w", err)
	}
	first, second := config, config
	first.Place, first.Link = wire.First, os.NewFile(uintptr(ends[0]), "link-1")
	second.Place, second.Link = wire.Second, os.NewFile(uintptr(ends[1]), "link-2")
	defer func() { _ = errors.Join(first.Link.Close(), second.Link.Close()) }()
	second.MemoryMB, second.CPUs, second.Out = secondMemoryMB, 1, ""

	needed, done := context.WithCancel(ctx)
	defer done()
	ended := make(chan error, 1)
	go func() { ended <- r.beside(needed, second) }()
	result, err := r.start(ctx, first)
	done()
	return result, errors.Join(err, <-ended)
}

// beside runs the second machine as long as it is needed. Its command ends well when a test has the machine switched off, as
// by its plug; then it is switched on again. Any other end is an error, whatever the tests say.
func (r *request) beside(needed context.Context, config machine.Config) error {
	logs := config.Logs
	for boot := 1; needed.Err() == nil; boot++ {
		config.Logs = filepath.Join(logs, fmt.Sprintf("second-%d", boot))
		result, err := r.logged(needed, config)
		if err == nil && result.Status != 0 {
			err = fmt.Errorf("%w, as its command ended with status %d", machine.ErrDied, result.Status)
		}
		died := errors.Is(err, machine.ErrDied) // by itself, be it in the moment when it was no longer needed
		if err != nil && (died || needed.Err() == nil) {
			return fmt.Errorf("the second machine: %w; what it printed: %s", err, output(config))
		}
	}
	return nil
}

func output(config machine.Config) string { return filepath.Join(config.Logs, "output.log") }

// logged runs a machine whose output goes where its logs are.
func (r *request) logged(ctx context.Context, config machine.Config) (machine.Result, error) {
	if err := os.MkdirAll(config.Logs, 0o750); err != nil {
		return machine.Result{}, err
	}
	f, err := os.Create(output(config))
	if err != nil {
		return machine.Result{}, err
	}
	config.Output = f
	result, err := r.start(ctx, config)
	return result, errors.Join(err, f.Close())
}
