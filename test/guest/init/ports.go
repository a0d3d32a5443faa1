//go:build linux

package main

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/test/guest/wire"
)

// ports are the guest's ways out.
type ports struct {
	output, events, files *os.File
}

func openPorts() (ports, error) {
	var p ports
	for name, port := range map[string]**os.File{
		wire.PortOutput: &p.output, wire.PortEvents: &p.events, wire.PortFiles: &p.files,
	} {
		file, err := openPort(name)
		if err != nil {
			return p, err
		}
		*port = file
	}
	return p, nil
}

// openPort finds the port by its name in sysfs. The ports are announced by the host over a control queue, so they
// may appear a moment after the driver has bound.
func openPort(name string) (*os.File, error) {
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		path, err := portDevice(name)
		if err == nil {
			return openBlocking(path)
		}
		if time.Now().After(deadline) {
			return nil, err
		}
	}
}

func portDevice(name string) (string, error) {
	entries, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		if err == nil && strings.TrimSpace(string(text)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(entry)), nil
		}
	}
	return "", fmt.Errorf("no virtio port called %s", name)
}

// openBlocking keeps the descriptor out of the poller: the command inherits it and expects plain blocking writes,
// and a blocking write to a virtio port returns when the host has taken the bytes.
func openBlocking(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// handOver sends what the command left in the folder for files.
func handOver(to *os.File) error {
	out := tar.NewWriter(to)
	if err := out.AddFS(os.DirFS(wire.OutDir)); err != nil {
		return fmt.Errorf("hand over %s: %w", wire.OutDir, err)
	}
	return out.Close()
}
