//go:build kernel

package kernel

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// volumeSize is above the 300 MiB that mkfs.xfs wants; the files behind are sparse.
const volumeSize = 512 * mib

// volume is an exported disk, connected.
type volume struct {
	*export
	i   *nvme.Initiator
	dev filesystem.Device
}

func newVolume(t *testing.T, name string) *volume {
	t.Helper()
	v := &volume{export: newExport(t, name, volumeSize), i: newInitiator(t)}
	v.connect()
	return v
}

func (v *volume) connect() {
	v.t.Helper()
	ns := connect(v.t, v.i, v.export)
	v.dev = filesystem.Device{Path: ns.DevicePath, Major: ns.Major, Minor: ns.Minor, SizeBytes: ns.SizeBytes}
}

func (v *volume) disconnect() {
	v.t.Helper()
	must(v.t, v.i.Disconnect(soon(v.t), v.nqn))
}

// put writes at an offset of the device, through to the target.
func (v *volume) put(offset int64, data []byte) {
	v.t.Helper()
	f, err := os.OpenFile(v.dev.Path, os.O_WRONLY|unix.O_SYNC, 0)
	must(v.t, err)
	_, err = f.WriteAt(data, offset)
	must(v.t, errors.Join(err, f.Close()))
}

// sum is what is on the target, byte for byte. The holes of the sparse file are
// not read: half a gigabyte of zeros takes the emulated machine 20 s.
func (v *volume) sum() string {
	v.t.Helper()
	h := sha256.New()
	extents(v.t, v.file, func(offset int64, data []byte) {
		_, _ = fmt.Fprintln(h, offset)
		_, _ = h.Write(data)
	})
	return fmt.Sprintf("%x", h.Sum(nil))
}

// extents calls f for every page of a sparse file that is not zero.
func extents(t *testing.T, file string, f func(offset int64, page []byte)) {
	t.Helper()
	in, err := os.Open(file)
	must(t, err)
	defer func() { _ = in.Close() }()
	page, zero := make([]byte, 4096), make([]byte, 4096)
	var offset int64
	for {
		if offset, err = unix.Seek(int(in.Fd()), offset, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			return
		}
		must(t, err)
		hole, err := unix.Seek(int(in.Fd()), offset, unix.SEEK_HOLE)
		must(t, err)
		for ; offset < hole; offset += int64(len(page)) {
			if _, err := in.ReadAt(page, offset); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(page, zero) {
				f(offset, page)
			}
		}
	}
}

func newFilesystem(t *testing.T) *filesystem.Filesystem {
	return filesystem.New(filesystem.Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

// mountPoint is a place below a directory of the test; at the end nothing is mounted there.
func mountPoint(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	t.Cleanup(func() {
		for left := true; left; {
			left = unix.Unmount(path, unix.MNT_DETACH) == nil
		}
	})
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, errors.Join(err, f.Sync(), f.Close()))
}

// mountsAt counts in the kernel's own table.
func mountsAt(t *testing.T, path string) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
		if fields := strings.Fields(line); fields[4] == path {
			n++
		}
	}
	return n
}
