package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a host sees of a real RDS [R].
const (
	nvmeModel    = "Linux"
	nvmeFirmware = "5.6.3"
)

const configFSRoot = "/sys/kernel/config/nvmet"

// kernel changes configfs. The kernel does the rest: a new subsystem has its attributes at once, and a subsystem
// goes although it is not empty to the eye.
type kernel interface {
	mkdir(path string) error
	write(path, value string) error
	link(target, path string) error
	remove(path string) error
}

// configfs is the kernel's own.
type configfs struct{}

func (configfs) mkdir(path string) error        { return os.Mkdir(path, 0o750) }
func (configfs) link(target, path string) error { return os.Symlink(target, path) }
func (configfs) remove(path string) error       { return os.Remove(path) }

func (configfs) write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// nvmet exports through the kernel's NVMe target.
type nvmet struct {
	root    string
	sys     string
	address netip.Addr
	kernel  kernel
	backing backing
	book    string // where the record is kept
	made    record
}

// record is what this simulator has in configfs. It is written before a thing is made, so that after a kill the next
// run finds all of it, and nothing of anybody else's.
type record struct {
	Subsystems []string       `json:"subsystems"`
	Ports      map[int]string `json:"ports"` // TCP port to the name of its directory
	Hosts      []string       `json:"hosts"`
}

// newNVMet takes over configfs: what an earlier run left there is removed.
func newNVMet(o NVMeOptions, book string) (*nvmet, error) {
	address, err := netip.ParseAddr(o.Address)
	if err != nil {
		return nil, fmt.Errorf("NVMe address %q: an IP address is needed: %w", o.Address, err)
	}
	n := &nvmet{
		root: o.ConfigFS, sys: o.SysFS, address: address, kernel: o.kernel, backing: plainFiles{}, book: book,
		made: record{Ports: map[int]string{}},
	}
	if n.kernel == nil {
		n.kernel, n.backing = configfs{}, backings()
	}
	if n.root == "" {
		n.root = configFSRoot
	}
	if n.sys == "" {
		n.sys = "/sys"
	}
	if err := TargetAvailable(n.root); err != nil {
		return nil, err
	}
	return n, n.recover()
}

// TargetAvailable tells why exports cannot be real here, if so. root is the directory of nvmet in configfs, "" the
// usual one.
func TargetAvailable(root string) error {
	if root == "" {
		root = configFSRoot
	}
	if !exists(filepath.Join(root, "subsystems")) {
		return fmt.Errorf("no NVMe target at %s: load the modules nvmet and nvmet-tcp, and mount configfs", root)
	}
	if err := unix.Access(root, unix.W_OK); err != nil {
		return fmt.Errorf("the NVMe target at %s cannot be changed by this user: %w", root, err)
	}
	return nil
}

// recover removes what the record of an earlier run names. After a reboot of the machine that is nothing.
func (n *nvmet) recover() error {
	data, err := os.ReadFile(n.book)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &n.made); err != nil {
		return fmt.Errorf("read %s: %w", n.book, err)
	}
	if n.made.Ports == nil {
		n.made.Ports = map[int]string{}
	}
	return n.withdraw(slices.Clone(n.made.Subsystems)...)
}

func (n *nvmet) save() error { return writeAtomically(n.book, n.made) }

func (n *nvmet) subsystem(nqn string, more ...string) string {
	return filepath.Join(append([]string{n.root, "subsystems", nqn}, more...)...)
}

// export makes all subsystems first and opens the doors to them last, in one go.
func (n *nvmet) export(list ...target) map[string]error {
	failed := map[string]error{}
	for _, t := range list {
		if err := n.build(t); err != nil {
			failed[t.nqn] = err
		}
	}
	for _, t := range list {
		if failed[t.nqn] != nil {
			continue
		}
		if err := n.open(t); err != nil {
			failed[t.nqn] = errors.Join(err, n.withdraw(t.nqn))
		}
	}
	return failed
}

// build makes a subsystem with namespace 1, which nobody can reach yet.
func (n *nvmet) build(t target) error {
	if err := n.withdraw(t.nqn); err != nil { // a left-over of ours that would not go
		return err
	}
	if exists(n.subsystem(t.nqn)) {
		return fmt.Errorf("subsystem %s is in %s already and was not made here", t.nqn, n.root)
	}
	n.made.Subsystems = append(n.made.Subsystems, t.nqn)
	if err := n.save(); err != nil {
		return err
	}
	err := n.kernel.mkdir(n.subsystem(t.nqn))
	if err == nil {
		err = n.describe(t)
	}
	if err == nil {
		err = n.namespace(t)
	}
	if err != nil {
		return errors.Join(err, n.withdraw(t.nqn))
	}
	return nil
}

// describe says who the subsystem is and whom it lets in.
func (n *nvmet) describe(t target) error {
	for _, a := range [][2]string{{"attr_model", nvmeModel}, {"attr_firmware", nvmeFirmware}} {
		// The kernel has these since 5.2 and 6.3; where it has not, hosts see something else.
		if path := n.subsystem(t.nqn, a[0]); exists(path) {
			if err := n.kernel.write(path, a[1]); err != nil {
				return err
			}
		}
	}
	if err := n.kernel.write(n.subsystem(t.nqn, "attr_serial"), t.serial); err != nil {
		return err
	}
	if t.host == "" {
		return n.kernel.write(n.subsystem(t.nqn, "attr_allow_any_host"), "1")
	}
	if err := n.kernel.write(n.subsystem(t.nqn, "attr_allow_any_host"), "0"); err != nil {
		return err
	}
	return n.admit(t)
}

// admit lets one host in: allow-host-name is taken to be a host NQN [I].
func (n *nvmet) admit(t target) error {
	host := filepath.Join(n.root, "hosts", t.host)
	if filepath.Dir(host) != filepath.Join(n.root, "hosts") {
		return fmt.Errorf("host name %q cannot be one", t.host)
	}
	if !exists(host) {
		n.made.Hosts = append(n.made.Hosts, t.host)
		if err := n.save(); err != nil {
			return err
		}
		if err := n.kernel.mkdir(host); err != nil {
			return err
		}
	}
	return n.kernel.link(host, n.subsystem(t.nqn, "allowed_hosts", t.host))
}

// namespace puts the file behind NSID 1.
func (n *nvmet) namespace(t target) error {
	ns := n.subsystem(t.nqn, "namespaces", "1")
	if err := n.kernel.mkdir(ns); err != nil {
		return err
	}
	path, done, err := n.backing.attach(t.file)
	if err != nil {
		return err
	}
	return errors.Join(n.enable(ns, path, t.uuid), done())
}

// enable gives a namespace its data. Direct I/O is tried first, which matters for files only; file systems that cannot
// do it (tmpfs before Linux 6.6) answer EINVAL, and then the page cache stands in between.
func (n *nvmet) enable(ns, path, uuid string) error {
	for _, a := range [][2]string{{"device_path", path}, {"device_uuid", uuid}} {
		if err := n.kernel.write(filepath.Join(ns, a[0]), a[1]); err != nil {
			return err
		}
	}
	err := n.kernel.write(filepath.Join(ns, "enable"), "1")
	if !errors.Is(err, syscall.EINVAL) {
		return err
	}
	if err := n.kernel.write(filepath.Join(ns, "buffered_io"), "1"); err != nil {
		return err
	}
	return n.kernel.write(filepath.Join(ns, "enable"), "1")
}

// open links the subsystem to its port: from now on hosts can connect.
func (n *nvmet) open(t target) error {
	dir, err := n.port(t.port)
	if err != nil {
		return err
	}
	return n.kernel.link(n.subsystem(t.nqn), filepath.Join(dir, "subsystems", t.nqn))
}

// port finds or makes the directory of a TCP port. It has the port's number for a name, as on a real RDS [R], unless
// somebody else in this kernel has that one: then the next that is free.
func (n *nvmet) port(number int) (string, error) {
	if name, ok := n.made.Ports[number]; ok {
		return filepath.Join(n.root, "ports", name), nil
	}
	id := number
	for exists(filepath.Join(n.root, "ports", strconv.Itoa(id))) {
		id = id%65535 + 1
	}
	n.made.Ports[number] = strconv.Itoa(id)
	if err := n.save(); err != nil {
		return "", err
	}
	dir := filepath.Join(n.root, "ports", strconv.Itoa(id))
	if err := n.kernel.mkdir(dir); err != nil {
		return "", err
	}
	family := "ipv4"
	if n.address.Is6() {
		family = "ipv6"
	}
	for _, a := range [][2]string{
		{"addr_trtype", "tcp"}, {"addr_adrfam", family},
		{"addr_traddr", n.address.String()}, {"addr_trsvcid", strconv.Itoa(number)},
	} {
		if err := n.kernel.write(filepath.Join(dir, a[0]), a[1]); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// grown makes the target's data as large as the file. Hosts that look again then see it; those that are to be notified
// learn of it by themselves (Linux 5.8).
func (n *nvmet) grown(nqn string, notify bool) error {
	ns := n.subsystem(nqn, "namespaces", "1")
	path, err := os.ReadFile(filepath.Join(ns, "device_path"))
	if err != nil {
		return err
	}
	if err := n.backing.grow(strings.TrimSpace(string(path))); err != nil || !notify {
		return err
	}
	return n.kernel.write(filepath.Join(ns, "revalidate_size"), "1")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
