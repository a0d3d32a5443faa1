package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// withdraw closes the doors to all subsystems first and takes them apart after: a port stops listening when its last
// subsystem leaves, and a host that asks a listening port for a subsystem that left gives up for good.
func (n *nvmet) withdraw(nqns ...string) error {
	failed := make([]error, 0, 2*len(nqns)+2)
	for _, nqn := range nqns {
		failed = append(failed, n.shut(nqn))
	}
	for _, nqn := range nqns {
		failed = append(failed, n.dismantle(nqn))
	}
	failed = append(failed, n.tidy(), n.save())
	return errors.Join(failed...)
}

// shut unlinks a subsystem from its port: its connections end.
func (n *nvmet) shut(nqn string) error {
	if !slices.Contains(n.made.Subsystems, nqn) {
		return nil
	}
	var failed []error
	for _, name := range n.made.Ports {
		failed = append(failed, n.drop(filepath.Join(n.root, "ports", name, "subsystems", nqn)))
	}
	return errors.Join(failed...)
}

// dismantle removes a subsystem that no port leads to, from the inside out.
func (n *nvmet) dismantle(nqn string) error {
	i := slices.Index(n.made.Subsystems, nqn)
	if i < 0 {
		return nil
	}
	ns := n.subsystem(nqn, "namespaces", "1")
	if exists(ns) {
		if err := n.kernel.write(filepath.Join(ns, "enable"), "0"); err != nil {
			return err
		}
	}
	failed := []error{n.drop(ns)}
	for _, host := range names(n.subsystem(nqn, "allowed_hosts")) {
		failed = append(failed, n.drop(n.subsystem(nqn, "allowed_hosts", host)))
	}
	failed = append(failed, n.drop(n.subsystem(nqn)))
	err := errors.Join(failed...)
	if err == nil {
		n.made.Subsystems = slices.Delete(n.made.Subsystems, i, i+1)
	}
	return err
}

// tidy removes ports and hosts of ours that nothing uses any more.
func (n *nvmet) tidy() error {
	var failed []error
	for number, name := range n.made.Ports {
		dir := filepath.Join(n.root, "ports", name)
		if len(names(filepath.Join(dir, "subsystems"))) > 0 {
			continue
		}
		if err := n.drop(dir); err != nil {
			failed = append(failed, err)
			continue
		}
		delete(n.made.Ports, number)
	}
	n.made.Hosts = slices.DeleteFunc(n.made.Hosts, func(host string) bool {
		return n.drop(filepath.Join(n.root, "hosts", host)) == nil // refused while a subsystem lets it in
	})
	return errors.Join(failed...)
}

// drop removes what may be gone already.
func (n *nvmet) drop(path string) error {
	if !exists(path) {
		return nil
	}
	return n.kernel.remove(path)
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// connections looks into the target's own list of controllers (debugfs, Linux 6.11), and where there is none for hosts in this same
// kernel: those elsewhere are not seen then, nor that a host lost its connection and made another. The kernel gives the name of what
// left to what comes next, but not its inode.
func (n *nvmet) connections(nqn string) []string {
	if dir := filepath.Join(n.sys, "kernel/debug/nvmet", nqn); exists(dir) {
		return identities(dir, func(name string) bool { return strings.HasPrefix(name, "ctrl") })
	}
	controllers := filepath.Join(n.sys, "class/nvme")
	return identities(controllers, func(name string) bool {
		of, err := os.ReadFile(filepath.Join(controllers, name, "subsysnqn"))
		return err == nil && strings.TrimSpace(string(of)) == nqn
	})
}

// identities names some of the entries of a directory, so that each is told from an earlier one of the same name.
func identities(dir string, chosen func(name string) bool) (list []string) {
	for _, name := range names(dir) {
		var st unix.Stat_t
		if chosen(name) && unix.Stat(filepath.Join(dir, name), &st) == nil {
			list = append(list, fmt.Sprintf("%s/%d", name, st.Ino))
		}
	}
	return list
}
