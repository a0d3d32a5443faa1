package nvme

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	connectLimit = 2 * time.Minute // for callers without a deadline
	openLimit    = 5 * time.Second // an open that finds no device fails at once, or when the kernel has looked for a module
	rescanMax    = 3
)

// Connect makes sure that the target is connected and returns its block device.
// Called again, at the same time or after a lost answer, it finds the connection
// that is there. A connect that outlives its caller stays: the next Connect
// finds it, and a Disconnect waits for it and takes it down.
func (i *Initiator) Connect(ctx context.Context, t Target, o Options) (Namespace, error) {
	options, err := t.options(o, i.cfg.Host)
	if err != nil {
		return Namespace{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	started := time.Now()
	err = i.lanes.Do(ctx, t.NQN, func() error {
		return i.establish(ctx, t, options, started)
	}, func(err error) {
		i.log.WarnContext(ctx, "connect ended after its caller gave up", "nqn", t.NQN, "took", time.Since(started), "error", err)
	})
	var ns Namespace
	if err == nil {
		ns, err = i.await(ctx, t)
	}
	if err != nil {
		return Namespace{}, fmt.Errorf("connect %s at %s: %w", t.NQN, t.endpoint(), err)
	}
	return ns, nil
}

// establish brings a controller about, unless there is one. It runs in the NQN's lane.
func (i *Initiator) establish(ctx context.Context, t Target, options string, started time.Time) (err error) {
	connected, err := i.connected(ctx, t)
	if connected || err != nil {
		return err
	}
	// The kernel runs one connect at a time on the whole node and keeps the others
	// waiting for up to 10 s per silent target. With one attempt per target
	// address a dead RDS is only ever one of those ahead of a healthy one.
	leave, err := i.lanes.Enter(ctx, "target "+t.endpoint())
	if err != nil {
		return err
	}
	defer leave()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	// Here, not where the caller waits: he may have left before the kernel was done.
	defer func() { i.cfg.Observer.ObserveConnect(status(err), time.Since(started)) }()
	reply, err := i.kernel.fabrics(i.cfg.Fabrics, options)
	if err != nil {
		return i.refused(ctx, t, err)
	}
	i.log.InfoContext(ctx, "connected", "nqn", t.NQN, "target", t.endpoint(), "kernel", reply)
	return nil
}

// connected: a controller of this NQN exists and leads to this target, live or
// trying again. It waits for controllers that are on their way out.
func (i *Initiator) connected(ctx context.Context, t Target) (found bool, err error) {
	err = i.until(ctx, func() (bool, error) {
		controllers, _, err := i.look(t.NQN)
		if errors.Is(err, ErrNotConnected) || errors.Is(err, ErrNoPath) {
			return true, nil
		}
		if err != nil && !errors.Is(err, ErrNotLive) && !errors.Is(err, ErrNoNamespace) {
			return false, err
		}
		for _, c := range controllers {
			if c.leaving() {
				continue
			}
			found = true
			return true, t.leads(c)
		}
		return false, nil
	})
	return found, err
}

// refused tells what the kernel's error means. EALREADY: this host has that
// controller already, which sysfs must confirm.
func (i *Initiator) refused(ctx context.Context, t Target, err error) error {
	if errors.Is(err, syscall.EALREADY) || errors.Is(err, syscall.EINPROGRESS) {
		found, lookErr := i.connected(ctx, t)
		if found || lookErr != nil {
			return lookErr
		}
		return fmt.Errorf("%w: the kernel says it is connected already, sysfs does not show it: %w", ErrRefused, err)
	}
	if noDevice(err) {
		return fmt.Errorf("%w: load the kernel module nvme-tcp on this node: %w", ErrUnsupported, err)
	}
	return fmt.Errorf("%w: %w (the kernel log says more; is the target up, exported under this NQN, and open to this host?)", ErrRefused, err)
}

// await returns the block device once it is there and can be opened. The kernel
// scans namespaces after the connect has returned, and a target's notice of a new
// one can get lost (NetApp/trident#1159): then it is told to scan again, a few
// times.
func (i *Initiator) await(ctx context.Context, t Target) (ns Namespace, err error) {
	var last error
	rescans, next := 0, time.Now().Add(i.rescanAfter)
	err = i.until(ctx, func() (bool, error) {
		var controllers []controller
		controllers, ns, last = i.look(t.NQN)
		switch {
		case last == nil:
			last = i.opens(ctx, ns)
			return last == nil, nil
		case errors.Is(last, ErrNoNamespace):
			if time.Now().After(next) {
				if rescans == rescanMax {
					return false, last
				}
				i.rescan(ctx, t.NQN, controllers, "connected but no device, rescanned")
				rescans++
				next = time.Now().Add(i.rescanAfter << rescans)
			}
			return false, nil
		case errors.Is(last, ErrNotLive):
			return false, nil
		default: // gone again, or not what it should be
			return false, last
		}
	})
	if errors.Is(err, ErrTimeout) && last != nil {
		err = fmt.Errorf("%w, last seen: %w", err, last)
	}
	return ns, err
}

// opens is an error while the kernel has no device for the number yet: it shows a new disk in sysfs and in /dev a moment
// before it opens it (device_add and bdev_add in block/genhd.c, Linux 6.12). Whatever else an open comes to, the device is
// there. One that hangs is under a silent target; who uses the device meets that under a deadline of his own.
func (i *Initiator) opens(outer context.Context, ns Namespace) error {
	ctx, cancel := context.WithTimeout(outer, i.openLimit)
	defer cancel()
	err := i.lanes.Do(ctx, "device "+ns.DevicePath, func() error { return i.kernel.open(ns.DevicePath) }, nil)
	if noDevice(err) || (err != nil && outer.Err() != nil) {
		return fmt.Errorf("%s: %s was not opened yet: %w", ns.NQN, ns.Name, err)
	}
	return nil
}

func (i *Initiator) rescan(ctx context.Context, nqn string, controllers []controller, why string) {
	for _, c := range controllers {
		if !c.live() {
			continue
		}
		err := i.command(c, nqn, "rescan_controller")
		i.log.WarnContext(ctx, "controller told to look again", "reason", why, "nqn", nqn, "controller", c.name, "error", err)
	}
}

func (t Target) endpoint() string {
	if a, err := netip.ParseAddr(t.Address); err == nil {
		return netip.AddrPortFrom(a, uint16(t.Port)).String()
	}
	return t.Address + ":" + strconv.Itoa(t.Port)
}

// leads checks that a controller goes where the volume is. The same NQN at
// another address may be another appliance with other data.
func (t Target) leads(c controller) error {
	fields := c.fields()
	want, _ := netip.ParseAddr(t.Address)
	have, err := netip.ParseAddr(fields["traddr"])
	if c.transport != "tcp" || err != nil || have.Unmap() != want.Unmap() || fields["trsvcid"] != strconv.Itoa(t.Port) {
		return fmt.Errorf("%w: %s is connected to it over %s at %s; nothing was changed, disconnect it first",
			ErrIdentity, c.name, c.transport, c.address)
	}
	return nil
}

// options is the string that /dev/nvme-fabrics takes: every timeout explicit,
// and no value that could smuggle in another option.
func (t Target) options(o Options, h Host) (string, error) {
	addr, err := netip.ParseAddr(t.Address)
	if err != nil {
		return "", fmt.Errorf("%w: target address %q of %s is not an IP address", ErrInvalid, t.Address, t.NQN)
	}
	if t.Port < 1 || t.Port > math.MaxUint16 {
		return "", fmt.Errorf("%w: target port %d of %s", ErrInvalid, t.Port, t.NQN)
	}
	for _, v := range []string{t.NQN, h.NQN, h.ID, addr.Zone()} {
		if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' || r == '"' || r == '\\' }) {
			return "", fmt.Errorf("%w: %q holds a character that the kernel's option syntax does not allow", ErrInvalid, v)
		}
	}
	// 223 bytes is the NVMe limit of a qualified name.
	if !strings.HasPrefix(t.NQN, "nqn.") || len(t.NQN) > 223 || h.NQN == "" || h.ID == "" {
		return "", fmt.Errorf("%w: subsystem %q, host %q, host id %q", ErrInvalid, t.NQN, h.NQN, h.ID)
	}
	loss := -1
	if o.CtrlLossTimeout > 0 {
		loss = seconds(o.CtrlLossTimeout, 0)
	}
	return fmt.Sprintf("transport=tcp,traddr=%s,trsvcid=%d,nqn=%s,hostnqn=%s,hostid=%s,ctrl_loss_tmo=%d,reconnect_delay=%d,keep_alive_tmo=%d",
		t.Address, t.Port, t.NQN, h.NQN, h.ID, loss,
		seconds(o.ReconnectDelay, 2*time.Second), seconds(o.KeepAlive, 5*time.Second)), nil
}

// seconds rounds up: a short time must not become the kernel's special zero.
func seconds(d, otherwise time.Duration) int {
	if d <= 0 {
		d = otherwise
	}
	return int((d + time.Second - 1) / time.Second)
}
