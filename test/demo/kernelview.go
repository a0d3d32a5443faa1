//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mounts are the kernel's lines about a path; their numbers and options show whether anything was mounted anew.
func mounts(path string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for l := range strings.Lines(string(text)) {
		if fields := strings.Fields(l); len(fields) > 4 && fields[4] == path {
			found = append(found, strings.TrimSpace(l))
		}
	}
	return found, nil
}

// bothMounts are those of the staging folder and of the pod.
func bothMounts(v *volume) (string, error) {
	staged, err := mounts(v.staging)
	if err != nil {
		return "", err
	}
	target, err := mounts(v.target)
	if err != nil {
		return "", err
	}
	if len(staged) != 1 || len(target) != 1 {
		return "", fmt.Errorf("%d mounts at the staging path and %d at the pod's instead of one each", len(staged), len(target))
	}
	return staged[0] + "\n" + target[0], nil
}

// subsystem is the folder in sysfs of the NVMe subsystem with this NQN, or "" when the kernel has none.
func subsystem(nqn string) (string, error) {
	names, err := filepath.Glob("/sys/class/nvme-subsystem/*/subsysnqn")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // it went between the two looks
		}
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(string(text)) == nqn {
			return filepath.Dir(name), nil
		}
	}
	return "", nil
}
