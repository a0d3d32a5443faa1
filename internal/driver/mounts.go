package driver

import (
	"path/filepath"

	"github.com/moby/sys/mountinfo"
)

// KernelMounts reads the mount table of this process: the node plugin sees what kubelet sees, since the directory of
// kubelet is shared with it both ways.
func KernelMounts(major, minor uint32) ([]string, error) {
	entries, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.Major != int(major) || m.Minor != int(minor), false
	})
	if err != nil {
		return nil, err
	}
	places := make([]string, 0, len(entries))
	for _, m := range entries {
		places = append(places, m.Mountpoint)
	}
	return places, nil
}

// resolve writes a path as the mount table does, which knows no symbolic links: /var/lib/kubelet is one on some hosts.
// The last component is left alone: it may be a mount of a device that does not answer.
func resolve(path string) string {
	if path == "" {
		return ""
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, filepath.Base(path))
}
