package nvme

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// volumeNSID is the only namespace of a volume's subsystem: one export, NSID 1 [R].
const volumeNSID = 1

// Find looks the volume's device up by exact NQN. ErrNotLive comes with the
// namespace: a device that is mounted stays what it is while its target reboots.
func (i *Initiator) Find(nqn string) (Namespace, error) {
	_, ns, err := i.look(nqn)
	return ns, err
}

// look is Find, with the controllers that were seen at the same time.
func (i *Initiator) look(nqn string) ([]controller, Namespace, error) {
	subsystems, err := i.find(nqn)
	if err != nil {
		return nil, Namespace{}, err
	}
	if len(subsystems) == 0 {
		return nil, Namespace{}, fmt.Errorf("%s: %w", nqn, ErrNotConnected)
	}
	var controllers []controller
	var disks []disk
	for _, s := range subsystems {
		controllers = append(controllers, s.controllers...)
		disks = append(disks, s.namespaces...)
	}
	if len(controllers) == 0 {
		return nil, Namespace{}, fmt.Errorf("%s: %w", nqn, ErrNoPath)
	}
	ns, err := i.namespace(nqn, disks)
	if !anyLive(controllers) && (err == nil || errors.Is(err, ErrNoNamespace)) {
		err = fmt.Errorf("%s: %w: %s is %s", nqn, ErrNotLive, controllers[0].name, controllers[0].state)
	}
	return controllers, ns, err
}

func anyLive(controllers []controller) bool {
	for _, c := range controllers {
		if c.live() {
			return true
		}
	}
	return false
}

// namespace picks NSID 1. Two devices for it can only be two controllers without
// native multipath: writing through both would be silent corruption.
func (i *Initiator) namespace(nqn string, disks []disk) (Namespace, error) {
	var found []disk
	for _, d := range disks {
		if d.nsid == volumeNSID {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return Namespace{}, fmt.Errorf("%s: no block device for NSID %d: %w", nqn, volumeNSID, ErrNoNamespace)
	case 1:
	default:
		return Namespace{}, fmt.Errorf("%s: %d block devices (%s, %s) for one namespace: %w",
			nqn, len(found), found[0].name, found[1].name, ErrIdentity)
	}
	d := found[0]
	path, err := i.node(d)
	if err != nil {
		return Namespace{}, fmt.Errorf("%s: %w", nqn, err)
	}
	return Namespace{
		NQN: nqn, NSID: d.nsid, Name: d.name, DevicePath: path, Major: d.major, Minor: d.minor,
		SizeBytes: d.size, UUID: d.uuid, NGUID: d.nguid,
	}, nil
}

// node is a device node with the number that sysfs gave: a name alone proves
// nothing. devtmpfs makes /dev/nvmeXnY; where /dev is not devtmpfs (a container
// with its own) or the name is stale, a node is made in a directory of ours.
func (i *Initiator) node(d disk) (string, error) {
	path := filepath.Join(i.cfg.DevRoot, d.name)
	if i.nodeIs(path, d) {
		return path, nil
	}
	private := i.privateNode(d)
	if i.nodeIs(private, d) {
		return private, nil
	}
	if err := os.MkdirAll(filepath.Dir(private), 0o700); err != nil {
		return "", fmt.Errorf("no node for %s: %w", d.name, err)
	}
	if err := i.kernel.mknod(private, d.major, d.minor); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("no node for %s: %w", d.name, err)
	}
	if !i.nodeIs(private, d) {
		return "", fmt.Errorf("%s is not %d:%d: %w", private, d.major, d.minor, ErrIdentity)
	}
	return private, nil
}

func (i *Initiator) privateNode(d disk) string {
	return filepath.Join(i.cfg.DevRoot, "rds-csi", fmt.Sprintf("%d:%d", d.major, d.minor))
}

func (i *Initiator) nodeIs(path string, d disk) bool {
	major, minor, err := i.kernel.number(path)
	return err == nil && major == d.major && minor == d.minor
}

// Present says whether the kernel still has this block device. A mount keeps the
// number of a device that is gone, and the kernel does not give it to another
// one meanwhile: the number is free only when the last opener has let go.
func (i *Initiator) Present(major, minor uint32) (bool, error) {
	dir := filepath.Join(i.cfg.SysRoot, "dev", "block")
	if _, err := os.Stat(dir); err != nil {
		return false, fmt.Errorf("%w: no list of block devices: %w", ErrUnsupported, err)
	}
	_, err := os.Lstat(filepath.Join(dir, fmt.Sprintf("%d:%d", major, minor)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// volumePrefix begins the NQN of every export of an RDS [R].
const volumePrefix = "nqn.2000-02.com.mikrotik:"

// Connections counts this host's NVMe/TCP controllers by state: live,
// connecting, resetting, deleting or other. All five are always there. A volume's
// subsystem that has no controller left is one of other: its device is dead.
func (i *Initiator) Connections() (map[string]int, error) {
	counts := map[string]int{"live": 0, "connecting": 0, "resetting": 0, "deleting": 0, "other": 0}
	dirs, err := i.class("nvme")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		state, ours, err := i.ours(dir)
		if err != nil {
			return nil, err
		}
		if !ours {
			continue
		}
		if state == "deleting (no IO)" {
			state = "deleting"
		}
		if _, known := counts[state]; !known {
			state = "other" // new, dead
		}
		counts[state]++
	}
	pathless, err := i.pathless()
	counts["other"] += pathless
	return counts, err
}

// pathless counts the subsystems of volumes without a controller.
func (i *Initiator) pathless() (n int, err error) {
	dirs, err := i.class("nvme-subsystem")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		nqn, err := attribute(dir, "subsysnqn")
		if vanished(err) || (err == nil && !strings.HasPrefix(nqn, volumePrefix)) {
			continue
		}
		if err != nil {
			return 0, err
		}
		names, err := list(dir)
		if err != nil {
			return 0, err
		}
		if !slices.ContainsFunc(names, controllerName) {
			n++
		}
	}
	return n, nil
}

// ours: NVMe/TCP, and made under this node's host NQN. Controllers of PCI disks
// have no such attribute; one that vanishes meanwhile is nobody's.
func (i *Initiator) ours(dir string) (state string, ours bool, err error) {
	transport, err := attribute(dir, "transport")
	if vanished(err) || (err == nil && transport != "tcp") {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	host, err := attribute(dir, "hostnqn")
	if vanished(err) {
		return "", false, nameless(dir)
	}
	if err != nil || host != i.cfg.Host.NQN {
		return "", false, err
	}
	state, err = attribute(dir, "state")
	if vanished(err) {
		return "", false, nil
	}
	return state, err == nil, err
}

// nameless: old kernels (5.4) do not show the host's NQN. Whose such a
// controller of a volume is cannot be told, and zero would be a lie (B7).
func nameless(dir string) error {
	nqn, err := attribute(dir, "subsysnqn")
	if vanished(err) || (err == nil && !strings.HasPrefix(nqn, volumePrefix)) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: this kernel does not show which host connected %s", ErrUnsupported, nqn)
}
