package nvme

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// subsystem is one entry of /sys/class/nvme-subsystem.
type subsystem struct {
	controllers []controller
	namespaces  []disk
}

// controller is one path to a subsystem.
type controller struct {
	dir       string // its directory, by way of the subsystem that was matched
	name      string // nvme0: for logs only
	state     string
	transport string
	address   string // traddr=...,trsvcid=...,src_addr=...
}

// disk is a namespace's block device.
type disk struct {
	dir, name    string
	nsid         uint32
	major, minor uint32
	size         int64
	uuid, nguid  string
}

func (c controller) live() bool { return c.state == "live" }

// leaving: the kernel is taking it down ("deleting", "deleting (no IO)", "dead").
func (c controller) leaving() bool {
	return strings.HasPrefix(c.state, "deleting") || c.state == "dead"
}

// find collects every subsystem that carries exactly this NQN. There is one, but
// for the moment in which an old one is dying. An error means that the state is
// unknown, never that nothing is connected (B7).
func (i *Initiator) find(nqn string) ([]subsystem, error) {
	dirs, err := i.class("nvme-subsystem")
	if err != nil {
		return nil, err
	}
	var found []subsystem
	for _, dir := range dirs {
		have, err := attribute(dir, "subsysnqn")
		if vanished(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: cannot tell whether it is connected: %w", nqn, err)
		}
		if have != nqn {
			continue
		}
		s, err := readSubsystem(dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", nqn, err)
		}
		found = append(found, s)
	}
	return found, nil
}

// class lists the directories of a device class. Its entries are symbolic links
// (B22: who asks only for directories sees none). No class means that the module
// is not loaded; no classes at all mean that sysfs is not there.
func (i *Initiator) class(name string) ([]string, error) {
	root := filepath.Join(i.cfg.SysRoot, "class")
	entries, err := os.ReadDir(filepath.Join(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(root); err != nil {
			return nil, fmt.Errorf("%w: sysfs is not mounted: %w", ErrUnsupported, err)
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s devices: %w", name, err)
	}
	dirs := make([]string, 0, len(entries))
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(root, name, e.Name()))
	}
	return dirs, nil
}

// The names tell the kinds apart: nvme0 is a controller, nvme0n1 a namespace (of
// the subsystem with native multipath, of the controller without), nvme0c0n1 a
// hidden path of a multipath namespace, which nobody may use.
func controllerName(s string) bool {
	n, ok := strings.CutPrefix(s, "nvme")
	return ok && digits(n)
}

func diskName(s string) bool {
	c, n, ok := strings.Cut(strings.TrimPrefix(s, "nvme"), "n")
	return ok && controllerName("nvme"+c) && digits(n) && strings.HasPrefix(s, "nvme")
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func readSubsystem(dir string) (subsystem, error) {
	var s subsystem
	names, err := list(dir)
	if err != nil {
		return s, err
	}
	dirs := []string{dir}
	for _, name := range names {
		if !controllerName(name) {
			continue
		}
		c, err := readController(filepath.Join(dir, name))
		if vanished(err) {
			continue
		}
		if err != nil {
			return s, err
		}
		s.controllers = append(s.controllers, c)
		dirs = append(dirs, c.dir)
	}
	for _, d := range dirs {
		disks, err := readDisks(d)
		if err != nil {
			return s, err
		}
		s.namespaces = append(s.namespaces, disks...)
	}
	return s, nil
}

func readController(dir string) (controller, error) {
	c := controller{dir: dir, name: filepath.Base(dir)}
	for attr, to := range map[string]*string{"state": &c.state, "transport": &c.transport} {
		v, err := attribute(dir, attr)
		if err != nil {
			return c, err
		}
		*to = v
	}
	c.address, _ = attribute(dir, "address") // a transport need not have one
	return c, nil
}

func readDisks(dir string) ([]disk, error) {
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	var disks []disk
	for _, name := range names {
		if !diskName(name) {
			continue
		}
		d, err := readDisk(filepath.Join(dir, name))
		if vanished(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		disks = append(disks, d)
	}
	return disks, nil
}

// readDisk reads what the kernel keeps in memory; it must not read nuse, which
// asks the target.
func readDisk(dir string) (disk, error) {
	d := disk{dir: dir, name: filepath.Base(dir)}
	nsid, err := number(dir, "nsid")
	if err != nil {
		return d, err
	}
	sectors, err := number(dir, "size") // of 512 bytes, whatever the block size
	if err != nil {
		return d, err
	}
	dev, err := attribute(dir, "dev")
	if err != nil {
		return d, err
	}
	if _, err := fmt.Sscanf(dev, "%d:%d", &d.major, &d.minor); err != nil {
		return d, fmt.Errorf("%s/dev says %q: %w", dir, dev, ErrIdentity)
	}
	d.nsid, d.size = uint32(nsid), sectors*512
	// Both may be absent: nvmet invents them, other targets give none.
	d.uuid, _ = attribute(dir, "uuid")
	d.nguid, _ = attribute(dir, "nguid")
	return d, nil
}

// list is the names in a directory, none when it has just vanished.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if vanished(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func attribute(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

func number(dir, name string) (int64, error) {
	s, err := attribute(dir, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s/%s says %q: %w", dir, name, s, ErrIdentity)
	}
	return n, nil
}

// vanished: the device went away between two looks; sysfs says ENODEV for a file
// that was already open.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}
