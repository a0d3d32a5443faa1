//go:build kernel

package kernel

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// plugin is a node plugin with one volume that is exported, called as kubelet calls it.
type plugin struct {
	*driver.Node
	*export
	i       *nvme.Initiator
	f       *filesystem.Filesystem
	mode    *csi.VolumeCapability
	staging string
}

func newPlugin(t *testing.T, name string, size int64, mode *csi.VolumeCapability) *plugin {
	t.Helper()
	p := &plugin{export: newExport(t, name, size), i: newInitiator(t), f: newFilesystem(t), mode: mode, staging: mountPoint(t, "staging")}
	p.Node = driver.NewNode(driver.NodeConfig{
		NodeID: "node-a", Initiator: p.i, Filesystem: p.f, Mounts: driver.KernelMounts, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	return p
}

func capability(mode csi.VolumeCapability_AccessMode_Mode, fstype string) *csi.VolumeCapability {
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}}
	if fstype == "" {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fstype}}
	}
	return c
}

const (
	oneWriter = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	readers   = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	vm        = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
)

func (p *plugin) id() string { return strings.TrimPrefix(p.nqn, "nqn.2000-02.com.mikrotik:") }

func (p *plugin) context() map[string]string {
	return map[string]string{"nqn": p.nqn, "nvmeAddress": "127.0.0.1", "nvmePort": fmt.Sprint(p.port)}
}

func (p *plugin) stage() error {
	_, err := p.NodeStageVolume(soon(p.t), &csi.NodeStageVolumeRequest{
		VolumeId: p.id(), StagingTargetPath: p.staging, VolumeCapability: p.mode, PublishContext: p.context(),
	})
	return err
}

func (p *plugin) publish(target string, readonly bool) error {
	_, err := p.NodePublishVolume(soon(p.t), &csi.NodePublishVolumeRequest{
		VolumeId: p.id(), StagingTargetPath: p.staging, TargetPath: target, VolumeCapability: p.mode, Readonly: readonly, PublishContext: p.context(),
	})
	return err
}

func (p *plugin) unpublish(target string) error {
	_, err := p.NodeUnpublishVolume(soon(p.t), &csi.NodeUnpublishVolumeRequest{VolumeId: p.id(), TargetPath: target})
	return err
}

func (p *plugin) unstage() error {
	_, err := p.NodeUnstageVolume(soon(p.t), &csi.NodeUnstageVolumeRequest{VolumeId: p.id(), StagingTargetPath: p.staging})
	return err
}

// isDevice: a block device file, of the volume's device.
func (p *plugin) isDevice(path string) {
	p.t.Helper()
	var st unix.Stat_t
	must(p.t, unix.Lstat(path, &st))
	ns, err := p.i.Find(p.nqn)
	must(p.t, err)
	if st.Mode&unix.S_IFMT != unix.S_IFBLK || unix.Major(st.Rdev) != ns.Major || unix.Minor(st.Rdev) != ns.Minor {
		p.t.Errorf("%s: mode %o, device %d:%d; the volume is %d:%d", path, st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev), ns.Major, ns.Minor)
	}
}

// refused: by the node service, in its own words, which name the volume and the node.
func refused(err error) bool {
	return err != nil && strings.Contains(err.Error(), "on node node-a: ")
}

func pwrite(t *testing.T, path string, offset int64, data []byte) error {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_SYNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, offset)
	return errors.Join(err, f.Close())
}

func random(t *testing.T, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	_, err := rand.Read(b)
	must(t, err)
	return b
}

// nodevDirectory lies on a file system that is mounted nodev, as the kubelet directory is on hardened nodes.
func nodevDirectory(t *testing.T) string {
	t.Helper()
	dir := mountPoint(t, "kubelet")
	must(t, os.Mkdir(dir, 0o755))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV, ""))
	return dir
}

// A raw volume from kubelet's first call to its last, with what kubelet itself does in between: it binds the published
// file once more and keeps a loop device on that, so that the device's number is not handed on.
func TestRawVolume(t *testing.T) {
	p := newPlugin(t, "pvc-1", 64*mib, capability(vm, ""))
	dir := nodevDirectory(t)
	p.staging = filepath.Join(dir, "staging")
	target, global := filepath.Join(dir, "publish"), filepath.Join(dir, "global")
	for range 2 {
		must(t, p.stage())
	}
	for range 2 {
		must(t, p.publish(target, false))
	}
	p.isDevice(target)
	if n := mountsAt(t, p.staging) + mountsAt(t, target); n != 2 {
		t.Errorf("%d mounts", n)
	}
	for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
		if strings.Contains(line, dir) && strings.Contains(line, "devtmpfs") {
			t.Errorf("devtmpfs spreads: %s", line)
		}
	}
	data := random(t, 3<<20)
	must(t, pwrite(t, target, 5<<20, data))

	must(t, os.WriteFile(global, nil, 0o600))
	must(t, unix.Mount(target, global, "", unix.MS_BIND, ""))
	loop := strings.TrimSpace(command(t, "losetup", "--show", "-f", global))
	if got := strings.TrimSpace(command(t, "losetup", "-n", "-O", "BACK-FILE", loop)); got != global {
		t.Errorf("kubelet looks for the loop device of %s, the kernel says %q", global, got)
	}
	must(t, p.stage()) // kubelet was restarted
	must(t, p.publish(target, false))
	if err := p.unstage(); !refused(err) {
		t.Errorf("unstaged under a pod: %v", err)
	}
	command(t, "losetup", "-d", loop)
	must(t, unix.Unmount(global, 0))
	for range 2 {
		must(t, p.unpublish(target))
	}
	for range 2 {
		must(t, p.unstage())
	}
	for _, path := range []string{target, p.staging} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if len(controllersOf(t, p.nqn)) != 0 {
		t.Error("still connected")
	}
	back, err := os.Open(p.file)
	must(t, err)
	defer func() { _ = back.Close() }()
	got := make([]byte, len(data))
	if _, err := back.ReadAt(got, 5<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("what was written is not on the target: %v", err)
	}
	if n := dataBytes(t, p.file); n > int64(len(data)) {
		t.Errorf("%d bytes on the target, %d were written: somebody else wrote too", n, len(data))
	}
}

// dataBytes counts what is not zero on a target, in whole pages.
func dataBytes(t *testing.T, file string) (n int64) {
	t.Helper()
	extents(t, file, func(_ int64, page []byte) { n += int64(len(page)) })
	return n
}

// The kernel's own word: a write is refused, through a file that was open before as well.
func TestRawVolumeReadOnly(t *testing.T) {
	p := newPlugin(t, "pvc-1", 64*mib, capability(oneWriter, ""))
	reader, writer := mountPoint(t, "reader"), mountPoint(t, "writer")
	must(t, p.stage())
	must(t, p.publish(writer, false))
	data := random(t, 64<<10)
	must(t, pwrite(t, writer, 0, data))
	if err := p.publish(reader, true); !refused(err) {
		t.Errorf("read-only beside a writer: %v", err)
	}
	must(t, pwrite(t, writer, 0, data))
	ns, err := p.i.Find(p.nqn)
	must(t, err)
	open, err := os.OpenFile(ns.DevicePath, os.O_RDWR, 0) // as a container has it: a file of its own, same number
	must(t, err)
	defer func() { _ = open.Close() }()
	must(t, p.unpublish(writer))
	must(t, p.publish(reader, true))
	if _, err := open.WriteAt(data, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("a write through an old file: %v", err)
	}
	err = pwrite(t, reader, 0, data)
	t.Logf("the kernel says: %v", err)
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EROFS) {
		t.Errorf("a write: %v", err)
	}
	in, err := os.Open(reader)
	must(t, err)
	got := make([]byte, len(data))
	if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a read: %v", err)
	}
	must(t, errors.Join(in.Close(), open.Close()))
	loop := strings.TrimSpace(command(t, "losetup", "--show", "-f", reader)) // kubelet does so to read-only ones too
	command(t, "losetup", "-d", loop)
	if err := p.publish(writer, false); !refused(err) {
		t.Errorf("writable beside a reader: %v", err)
	}
	must(t, p.unpublish(reader))
	must(t, p.publish(writer, false))
	must(t, pwrite(t, writer, 0, data))
	must(t, p.unpublish(writer))
	must(t, p.unstage())
}

// Reconnected, the volume has another number, and the old one is another volume's.
func TestRawVolumeUnderAnotherNumber(t *testing.T) {
	p := newPlugin(t, "pvc-1", 32*mib, capability(oneWriter, ""))
	other := newExport(t, "pvc-2", 48*mib)
	target := mountPoint(t, "target")
	must(t, p.stage())
	before, err := p.i.Find(p.nqn)
	must(t, err)
	must(t, p.i.Disconnect(soon(t), p.nqn)) // nothing holds a device file's device
	taken := connect(t, p.i, other)
	if taken.Major != before.Major || taken.Minor != before.Minor {
		t.Logf("the number was not handed on: %d:%d, then %d:%d", before.Major, before.Minor, taken.Major, taken.Minor)
	}
	must(t, p.publish(target, false))
	p.isDevice(target)
	data := random(t, 4096)
	must(t, pwrite(t, target, 0, data))
	if dataBytes(t, other.file) != 0 || dataBytes(t, p.file) == 0 {
		t.Error("written to another volume")
	}
	must(t, p.unpublish(target))
	must(t, p.unstage())
	must(t, p.i.Disconnect(soon(t), other.nqn))
}

// Read-only at the node: nothing at all reaches the target, and a file system whose log would have to be replayed is
// refused instead of shown as it never was.
func TestReadersOnly(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			p := newPlugin(t, "pvc-1", volumeSize, capability(readers, fstype))
			v := &volume{export: p.export, i: p.i}
			target := mountPoint(t, "target")
			if err := p.stage(); !refused(err) || !strings.Contains(err.Error(), "blank") {
				t.Errorf("blank: %v", err)
			}
			if dataBytes(t, p.file) != 0 {
				t.Fatal("formatted")
			}
			fill := func() {
				v.connect()
				must(t, p.f.Stage(soon(t), v.dev, p.staging, fstype, nil))
				write(t, p.staging+"/data", "precious")
			}
			fill()
			shutdown(t, p.staging)
			must(t, p.unstage())
			before := v.sum()
			if err := p.stage(); !refused(err) || !strings.Contains(err.Error(), "ReadWriteOnce") {
				t.Errorf("unclean: %v", err)
			}
			if v.sum() != before || len(controllersOf(t, p.nqn)) != 0 {
				t.Error("something was written, or the connection is left")
			}
			fill() // the kernel replays
			must(t, p.unstage())
			before = v.sum()
			for range 2 {
				must(t, p.stage())
			}
			must(t, p.publish(target, false))
			if read(t, target+"/data") != "precious" {
				t.Error("data lost")
			}
			if err := os.WriteFile(target+"/more", nil, 0o600); !errors.Is(err, syscall.EROFS) {
				t.Errorf("a file: %v", err)
			}
			ns, err := p.i.Find(p.nqn)
			must(t, err)
			if err := pwrite(t, ns.DevicePath, 0, make([]byte, 512)); err == nil {
				t.Error("the device takes writes")
			}
			if unix.Mount("", p.staging, "", unix.MS_REMOUNT, "") == nil {
				t.Error("remounted writable")
			}
			must(t, p.unpublish(target))
			must(t, p.unstage())
			if v.sum() != before {
				t.Error("something was written")
			}
		})
	}
}
