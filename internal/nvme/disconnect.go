package nvme

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	disconnectLimit = 2 * time.Minute // for callers without a deadline
	claimLimit      = 5 * time.Second
)

// Disconnect deletes the controllers of exactly this NQN and returns nil once
// the NQN has left sysfs, at once if it is not there. It refuses a device that is
// mounted or claimed. A connect of the same NQN that is still running in the
// kernel is waited for, so that it leaves nothing behind.
//
// ErrNoPath: the controllers are gone but the kernel keeps the subsystem, for
// something still holds the dead device open. No write can leave this node.
func (i *Initiator) Disconnect(ctx context.Context, nqn string) error {
	ctx, cancel := context.WithTimeout(ctx, disconnectLimit)
	defer cancel()
	var attempted atomic.Bool
	err := i.lanes.Do(ctx, nqn, func() error {
		return i.takeDown(ctx, nqn, &attempted)
	}, func(err error) {
		i.log.WarnContext(ctx, "disconnect ended after its caller gave up", "nqn", nqn, "error", err)
	})
	if attempted.Load() {
		i.cfg.Observer.ObserveDisconnect(status(err))
	}
	if errors.Is(err, ErrTimeout) {
		if _, _, seen := i.look(nqn); seen != nil {
			err = fmt.Errorf("%w, last seen: %w", err, seen)
		}
	}
	if err != nil {
		return fmt.Errorf("disconnect %s: %w", nqn, err)
	}
	return nil
}

// takeDown runs in the NQN's lane, so a write that hangs in the kernel (D state
// under a dead target) is the only one and holds no lock.
func (i *Initiator) takeDown(ctx context.Context, nqn string, attempted *atomic.Bool) error {
	subsystems, err := i.find(nqn)
	if err != nil || len(subsystems) == 0 {
		return err
	}
	attempted.Store(true)
	// The claims are kept over the deletion: nobody can mount in between.
	release, err := i.claimAll(ctx, nqn, subsystems)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		release()
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	err = i.deleteAll(ctx, nqn, subsystems)
	release()
	if err != nil {
		return err
	}
	return i.gone(ctx, nqn)
}

// claimAll proves that nobody uses any namespace of the subsystems.
func (i *Initiator) claimAll(ctx context.Context, nqn string, subsystems []subsystem) (release func(), err error) {
	var claims []io.Closer
	release = func() {
		for _, c := range claims {
			_ = c.Close()
		}
	}
	for _, s := range subsystems {
		for _, d := range s.namespaces {
			c, err := i.claimDisk(ctx, nqn, d)
			if err != nil {
				release()
				return nil, err
			}
			if c != nil {
				claims = append(claims, c)
			}
		}
	}
	return release, nil
}

func (i *Initiator) claimDisk(ctx context.Context, nqn string, d disk) (io.Closer, error) {
	holders, err := list(filepath.Join(d.dir, "holders"))
	if err != nil {
		return nil, err
	}
	if len(holders) > 0 {
		return nil, fmt.Errorf("%w: %s is held by %v", ErrInUse, d.name, holders)
	}
	path, err := i.node(d)
	if err != nil {
		return nil, err
	}
	c, err := i.claim(ctx, nqn, path)
	switch {
	case errors.Is(err, syscall.EBUSY):
		return nil, fmt.Errorf("%w: %s is mounted or claimed; unmount it first", ErrInUse, d.name)
	case noDevice(err):
		return nil, nil // it has just gone
	case err != nil:
		return nil, fmt.Errorf("cannot tell whether %s is in use: %w", d.name, err)
	}
	return c, nil
}

// claim opens the device exclusively. The open hangs when the target fell silent
// before the kernel had read the partition table: that read holds the disk's
// open_mutex, and only the deletion of the controller ends it. A device that is
// mounted or claimed is refused before that mutex is taken, so an open that hangs
// is no sign of use: with no live controller left, nil is the answer after a
// while, and the open is closed whenever it returns.
func (i *Initiator) claim(ctx context.Context, nqn, path string) (io.Closer, error) {
	type opened struct {
		c   io.Closer
		err error
	}
	result := make(chan opened, 1)
	go func() {
		c, err := i.kernel.claim(path)
		result <- opened{c, err}
	}()
	patience := time.NewTimer(i.claimLimit)
	defer patience.Stop()
	select {
	case o := <-result:
		return o.c, o.err
	case <-patience.C:
	}
	look := time.NewTicker(i.tick)
	defer look.Stop()
	for { // in the lane, also when the caller has left: one open that hangs per device
		_, _, err := i.look(nqn)
		if errors.Is(err, ErrNotLive) || errors.Is(err, ErrNoPath) || errors.Is(err, ErrNotConnected) {
			i.log.WarnContext(ctx, "no answer to an exclusive open and no live controller: deleted without it", "nqn", nqn, "device", path, "seen", err)
			go func() {
				if o := <-result; o.err == nil {
					_ = o.c.Close()
				}
			}()
			return nil, nil
		}
		select {
		case o := <-result:
			return o.c, o.err
		case <-look.C:
		}
	}
}

func (i *Initiator) deleteAll(ctx context.Context, nqn string, subsystems []subsystem) error {
	for _, s := range subsystems {
		for _, c := range s.controllers {
			if c.transport != "tcp" {
				return fmt.Errorf("%w: %s is connected over %q, not by this driver", ErrIdentity, c.name, c.transport)
			}
			if c.leaving() {
				continue
			}
			if err := i.command(c, nqn, "delete_controller"); err != nil {
				return err
			}
			i.log.InfoContext(ctx, "controller deleted", "nqn", nqn, "controller", c.name)
		}
		for _, d := range s.namespaces {
			_ = os.Remove(i.privateNode(d))
		}
	}
	return nil
}

// command writes 1 to an attribute of a controller. The NQN is read again from
// the very directory that the attribute is opened in: the handle stays with the
// device, so a controller that got the same name meanwhile cannot be hit.
func (i *Initiator) command(c controller, nqn, attr string) error {
	dir, err := os.OpenRoot(c.dir)
	if vanished(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	have, err := dir.ReadFile("subsysnqn")
	if vanished(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(have)); got != nqn {
		return fmt.Errorf("%w: %s belongs to %s", ErrIdentity, c.name, got)
	}
	if err := i.kernel.write(dir, attr, "1"); err != nil && !vanished(err) {
		return fmt.Errorf("%s of %s: %w", attr, c.name, err)
	}
	return nil
}

// gone waits until the NQN has left sysfs. Returning earlier lets the next
// connect meet the old state (fenio/tns-csi#206).
func (i *Initiator) gone(ctx context.Context, nqn string) error {
	var pathless time.Time
	return i.until(ctx, func() (bool, error) {
		subsystems, err := i.find(nqn)
		if err != nil || len(subsystems) == 0 {
			return err == nil, err
		}
		for _, s := range subsystems {
			if len(s.controllers) > 0 {
				pathless = time.Time{}
				return false, nil
			}
		}
		if pathless.IsZero() {
			pathless = time.Now()
		}
		if time.Since(pathless) > i.settle {
			return false, fmt.Errorf("%w: its controllers are gone, something still holds its device open", ErrNoPath)
		}
		return false, nil
	})
}
