//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/test/guest/wire"
)

const searchPath = "/usr/sbin:/usr/bin:/sbin:/bin"

type mount struct {
	kind, target, data string
	flags              uintptr
}

// mountSystem makes the file systems that every program expects. configfs comes after its module, see prepare.
func mountSystem() error {
	for _, m := range []mount{
		{kind: "devtmpfs", target: "/dev", data: "mode=0755"},
		{kind: "proc", target: "/proc"},
		{kind: "sysfs", target: "/sys"},
		{kind: "devpts", target: "/dev/pts", data: "mode=0620,ptmxmode=0666"},
		{kind: "tmpfs", target: "/dev/shm", data: "mode=1777"},
		{kind: "tmpfs", target: "/tmp", data: "mode=1777"},
		{kind: "tmpfs", target: "/run", data: "mode=0755"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	// Kubernetes' nodes have a shared root (systemd makes it so); bind mounts behave differently without it.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share /: %w", err)
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for _, dir := range []string{"/root", wire.OutDir, "/mnt"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o750); err != nil {
		return err
	}
	if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

// prepare does what needs the job: modules, configfs, name, network.
func prepare(job wire.Job) error {
	for _, module := range job.Modules {
		if err := load(module); err != nil {
			return err
		}
	}
	if err := (mount{kind: "configfs", target: "/sys/kernel/config"}).do(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(job.Hostname)); err != nil {
		return fmt.Errorf("hostname %s: %w", job.Hostname, err)
	}
	if err := interfaceUp("lo"); err != nil { // the kernel gives it 127.0.0.1/8 by itself
		return err
	}
	if place := os.Getenv(wire.PlaceVariable); place != "" {
		return linkUp("eth0", map[string]string{wire.First: wire.FirstAddress, wire.Second: wire.SecondAddress}[place])
	}
	return nil
}

func load(module wire.Module) error {
	f, err := os.Open(module.Path)
	if err != nil {
		return fmt.Errorf("module: %w", err)
	}
	defer func() { _ = f.Close() }()
	err = unix.FinitModule(int(f.Fd()), module.Parameters, 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", module.Path, err)
	}
	return nil
}

func interfaceUp(name string) error {
	return configure(name, unix.SIOCSIFFLAGS, func(request *unix.Ifreq) error {
		request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return nil
	})
}

// linkUp gives the interface an address; the kernel takes it for one of a network of 256.
func linkUp(name, address string) error {
	err := configure(name, unix.SIOCSIFADDR, func(request *unix.Ifreq) error {
		return request.SetInet4Addr(net.ParseIP(address).To4())
	})
	if err != nil {
		return err
	}
	return interfaceUp(name)
}

func configure(name string, what uint, fill func(*unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	request, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if err := errors.Join(fill(request), unix.IoctlIfreq(fd, what, request)); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

func environment(extra []string) []string {
	return append([]string{
		"PATH=" + searchPath, "HOME=/root", "TMPDIR=/tmp", "LANG=C.UTF-8", "TERM=dumb",
		wire.PlaceVariable + "=" + os.Getenv(wire.PlaceVariable),
	}, extra...)
}

func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(searchPath) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s in the guest: give it with --file or --tool", name)
}
