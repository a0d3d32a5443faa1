package filesystem

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Mounted is the top-most mount at exactly this path, as the mount table of this
// process has it. The path itself is not touched: a stat of a dead filesystem hangs.
func (f *Filesystem) Mounted(path string) (Mount, bool, error) {
	resolved, err := resolve(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Mount{}, false, nil
	}
	if err != nil {
		return Mount{}, false, err
	}
	return f.top(resolved)
}

// resolve is the path as the mount table spells it: links in its parents are
// followed (/var/lib/kubelet may be one), its last element is not looked at.
func resolve(path string) (string, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return "", fmt.Errorf("%w: %q is not an absolute, clean path", ErrTarget, path)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrTarget, err)
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}

func (f *Filesystem) top(path string) (Mount, bool, error) {
	stack, err := f.mounts(func(i *mountinfo.Info) bool { return i.Mountpoint == path })
	if err != nil {
		return Mount{}, false, fmt.Errorf("cannot tell what is mounted at %s: %w", path, err)
	}
	if len(stack) == 0 {
		return Mount{}, false, nil
	}
	return entry(topmost(stack)), true, nil
}

// reachesHost refuses a mount point, on which nothing is mounted yet, when what is
// mounted there would stay in this process's mount namespace: the host and the
// pods would see the empty directory and write to the node's own disk. It is so
// when the container has its directory without mountPropagation: Bidirectional.
//
// There is no exception for a process outside any container on a host whose root
// is private: process 1 of a container is the plugin itself, so a look at
// /proc/1/ns/mnt cannot tell the two apart, and Kubernetes wants a shared root too.
func (f *Filesystem) reachesHost(path string) error {
	parent := filepath.Dir(path)
	id, err := f.system.mountID(parent)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	under, err := f.mounts(func(i *mountinfo.Info) bool { return i.ID == id })
	if err != nil {
		return fmt.Errorf("cannot tell which mount %s lies on: %w", parent, err)
	}
	if len(under) == 1 && entry(under[0]).Shared {
		return nil
	}
	return fmt.Errorf("%w: %s lies on a mount that is not shared, so the host and its pods would not see the volume; "+
		"mount the kubelet directory into the plugin's container with mountPropagation: Bidirectional "+
		"(without a container: mount --make-rshared /)", ErrTarget, parent)
}

func (f *Filesystem) mounts(wanted func(*mountinfo.Info) bool) ([]*mountinfo.Info, error) {
	table, err := os.Open(f.mountInfo)
	if err != nil {
		return nil, err
	}
	defer func() { _ = table.Close() }()
	return mountinfo.GetMountsFromReader(table, func(i *mountinfo.Info) (skip, stop bool) { return !wanted(i), false })
}

// topmost is the one on which no other of the stack lies: a mount over another
// has it as its parent. The order of the table promises nothing.
func topmost(stack []*mountinfo.Info) *mountinfo.Info {
	for _, candidate := range stack {
		if !slices.ContainsFunc(stack, func(i *mountinfo.Info) bool { return i.Parent == candidate.ID }) {
			return candidate
		}
	}
	return stack[len(stack)-1]
}

func entry(i *mountinfo.Info) Mount {
	m := Mount{
		Major: uint32(i.Major), Minor: uint32(i.Minor), FSType: i.FSType, Root: i.Root,
		Options: strings.Split(i.Options, ","), SuperOptions: strings.Split(i.VFSOptions, ","),
	}
	m.Shared = slices.ContainsFunc(strings.Fields(i.Optional), func(tag string) bool { return strings.HasPrefix(tag, "shared:") })
	m.ReadOnly = slices.Contains(m.Options, "ro") || slices.Contains(m.SuperOptions, "ro")
	m.asBlock(i.Source)
	return m
}
