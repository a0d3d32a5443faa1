package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// Device is one simulated RDS.
type Device struct {
	dir      string
	identity string
	release  release
	users    map[string]User
	hostKey  ssh.Signer
	log      *slog.Logger
	quirks   *quirks
	faults   *faults
	storage  *storage
	exports  exporter

	mu    sync.Mutex // guards flash and everything in it; the exporter is called under it
	flash flash
	held  chan struct{} // copies wait for it half-way, if there is one

	gauges  gauges
	jobs    jobs
	journal journal
	power   power
	booted  atomic.Pointer[time.Time]

	life context.Context // ends with Close
	end  context.CancelFunc
	work sync.WaitGroup // reboots that the device itself began
}

// New makes a device, or the one that Options.Dir remembers. Close it.
func New(o Options) (*Device, error) {
	if o.Dir == "" {
		return nil, errors.New("a simulated device needs a directory")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	d := &Device{dir: dir, identity: o.Identity, hostKey: o.HostKey, log: o.Logger, exports: tableOnly{}}
	d.gauges.sensors = DefaultSensors()
	if d.identity == "" {
		d.identity = "RDS"
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if err := d.configure(o); err != nil {
		return nil, err
	}
	d.life, d.end = context.WithCancel(context.Background())
	d.power.init()
	if err := d.boot(false); err != nil {
		return nil, err
	}
	return d, nil
}

// configure checks and takes over everything that can be wrong.
func (d *Device) configure(o Options) (err error) {
	if o.Version == "" {
		o.Version = "7.24"
	}
	if o.Pools == nil {
		o.Pools = DefaultPools()
	}
	if d.release, err = parseRelease(o.Version); err != nil {
		return err
	}
	if d.quirks, err = newQuirks(o.Quirks); err != nil {
		return err
	}
	if d.faults, err = newFaults(o.Faults); err != nil {
		return err
	}
	if d.users, err = accounts(o.Users); err != nil {
		return err
	}
	if d.storage, err = newStorage(filepath.Join(d.dir, "files"), o.Pools); err != nil {
		return err
	}
	if d.hostKey == nil {
		if d.hostKey, err = deviceKey(filepath.Join(d.dir, "host_key")); err != nil {
			return err
		}
	}
	if o.NVMe != nil {
		if d.exports, err = newNVMet(*o.NVMe, filepath.Join(d.dir, "nvmet.json")); err != nil {
			return err
		}
	}
	return nil
}

// accounts checks the users.
func accounts(list []User) (map[string]User, error) {
	users := map[string]User{}
	for _, u := range list {
		for _, p := range u.Policies {
			if !slices.Contains(allPolicies(), p) {
				return nil, fmt.Errorf("user %s: unknown policy %q", u.Name, p)
			}
		}
		for _, k := range u.Keys {
			if t := k.Type(); t != ssh.KeyAlgoRSA && t != ssh.KeyAlgoED25519 {
				// [R] for ECDSA
				return nil, fmt.Errorf("unable to load key file (wrong format or bad passphrase)! (%s of user %s)", t, u.Name)
			}
		}
		if _, twice := users[u.Name]; twice || u.Name == "" {
			return nil, fmt.Errorf("user %q: no name, or one that is taken", u.Name)
		}
		users[u.Name] = u
	}
	return users, nil
}

// boot reads the flash and brings the exports up. lost tells whether this is a reboot that forgets exports.
func (d *Device) boot(forget bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return err
	}
	d.settleSubvolumes()
	for _, dk := range d.flash.Disks {
		if forget {
			dk.Export = false
		}
		d.look(dk)
	}
	d.raiseAll()
	now := time.Now()
	d.booted.Store(&now)
	d.jobs.boot()
	return d.save()
}

// Close takes the exports away and waits for everything the device started, as a clean shutdown does. Serve must have
// returned.
func (d *Device) Close() error {
	d.end()
	d.work.Wait()
	d.jobs.halt()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lower(d.flash.Disks...)
	return d.save()
}

// note logs an error that the device's user is not told.
func (d *Device) note(err error) {
	if err != nil {
		d.log.Error("something could not be undone", "error", err)
	}
}

// Menu finds a menu of the console.
func (d *Device) Menu(path string) (console.Menu, bool) {
	switch path {
	case "/disk":
		return diskMenu{d}, true
	case "/file":
		return fileMenu{d}, true
	case "/user":
		return userMenu(d), true
	case "/system":
		return systemMenu{d}, true
	case "/system/resource":
		return resourceMenu(d), true
	case "/system/identity":
		return identityMenu(d), true
	case "/system/health":
		return d.healthMenu()
	case "/system/clock":
		return clockMenu(), true
	case "/system/script/job":
		return jobMenu{d}, true
	case "/disk/btrfs/subvolume":
		return subvolumeMenu{d}, d.release.since(17)
	case "/disk/btrfs", "/system/script":
		return fixedMenu{rows: func() []*row { return nil }, passage: true}, true
	}
	return nil, false
}

// Allowed tells whether a user has a policy.
func (d *Device) Allowed(user, policy string) bool {
	u, ok := d.users[user]
	return ok && slices.Contains(u.Policies, policy)
}

// Dialect tells the console which RouterOS this is.
func (d *Device) Dialect() console.Dialect {
	return d.release.dialect(d.quirks.is(quirkErrorLocation, yes))
}

// Inject adds a fault, kind[=value][@command-substring][:count]; FaultKinds lists the kinds. Without a substring it
// concerns every command, without a count it stays.
func (d *Device) Inject(spec string) error { return d.faults.inject(spec) }

// ClearFaults removes every fault. Connections that fell silent stay so, as those across a network that came back do
// until somebody gives them up.
func (d *Device) ClearFaults() { d.faults.clear() }

// SetQuirk changes a switch while the device runs.
func (d *Device) SetQuirk(name, value string) error { return d.quirks.set(name, value) }

// RealExports tells whether hosts can connect to exports, or whether these exist in the disk table only.
func (d *Device) RealExports() bool {
	_, table := d.exports.(tableOnly)
	return !table
}
