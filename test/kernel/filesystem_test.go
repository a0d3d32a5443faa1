//go:build kernel

package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

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

func TestBlankIsFormattedOnceAndDataStays(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			v, f := newVolume(t, "disk-1"), newFilesystem(t)
			staging := mountPoint(t, "globalmount")
			if c, err := f.Inspect(soon(t), v.dev); err != nil || c.Kind != filesystem.Blank {
				t.Fatalf("%+v %v", c, err)
			}
			must(t, f.Stage(soon(t), v.dev, staging, fstype, nil))
			write(t, staging+"/data", "precious")
			must(t, f.Unmount(soon(t), staging))
			v.disconnect()
			v.connect() // another device number perhaps, the same volume
			if c, err := f.Inspect(soon(t), v.dev); err != nil || c.Kind != filesystem.FileSystem || c.FSType != fstype {
				t.Fatalf("%+v %v", c, err)
			}
			must(t, f.Stage(soon(t), v.dev, staging, fstype, nil))
			if read(t, staging+"/data") != "precious" {
				t.Error("data lost")
			}
			must(t, f.Unmount(soon(t), staging))
			checkFeatures(t, v.dev.Path, fstype)
			v.disconnect()
		})
	}
}

// checkFeatures: rule 23, nothing newer than the baseline got in.
func checkFeatures(t *testing.T, device, fstype string) {
	t.Helper()
	var have string
	if fstype == "ext4" {
		have = command(t, "dumpe2fs", "-h", device)
	} else {
		have = command(t, "xfs_db", "-r", "-c", "version", device)
	}
	for _, newer := range []string{"orphan_file", "metadata_csum_seed", "BIGTIME", "INOBTCNT", "NREXT64", "PARENT", "EXCHANGE", "RMAPBT"} {
		if strings.Contains(have, newer) {
			t.Errorf("%s: has %s:\n%s", fstype, newer, have)
		}
	}
	if !strings.Contains(have, "metadata_csum") && !strings.Contains(have, "CRC") {
		t.Errorf("%s: without checksums:\n%s", fstype, have)
	}
}

// B1: kubelet repeats NodeStage under running pods.
func TestRepeatedStageUnderALiveMountChangesNothing_B1(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			v, f := newVolume(t, "disk-1"), newFilesystem(t)
			staging, target := mountPoint(t, "globalmount"), mountPoint(t, "mount")
			must(t, f.Stage(soon(t), v.dev, staging, fstype, nil))
			must(t, f.Bind(soon(t), staging, target, false, nil))
			open, err := os.Create(target + "/open")
			must(t, err)
			controllers := controllersOf(t, v.nqn)
			var all sync.WaitGroup
			for range 6 {
				all.Go(func() {
					if _, err := v.i.Connect(soon(t), v.target(), nvme.Options{}); err != nil {
						t.Error(err)
					}
					if err := newFilesystem(t).Stage(soon(t), v.dev, staging, fstype, nil); err != nil { // a restarted plugin
						t.Error(err)
					}
					if err := f.Stage(soon(t), v.dev, staging, fstype, nil); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if _, err := open.WriteString("goes on"); err != nil {
				t.Error(err)
			}
			must(t, errors.Join(open.Sync(), open.Close()))
			if n := mountsAt(t, staging); n != 1 || !slices.Equal(controllers, controllersOf(t, v.nqn)) {
				t.Errorf("%d mounts, controllers %v", n, controllersOf(t, v.nqn))
			}
			if err := v.i.Disconnect(soon(t), v.nqn); !errors.Is(err, nvme.ErrInUse) {
				t.Errorf("disconnect under a live mount: %v", err)
			}
			must(t, f.Unmount(soon(t), target))
			must(t, f.Unmount(soon(t), staging))
			v.disconnect()
		})
	}
}

func TestStageOfAnotherDeviceAtTheSamePlaceIsRefused(t *testing.T) {
	a, b, f := newVolume(t, "disk-1"), newVolume(t, "disk-10"), newFilesystem(t)
	staging := mountPoint(t, "globalmount")
	must(t, f.Stage(soon(t), a.dev, staging, "ext4", nil))
	before := b.sum()
	if err := f.Stage(soon(t), b.dev, staging, "ext4", nil); !errors.Is(err, filesystem.ErrWrongDevice) {
		t.Errorf("%v", err)
	}
	wrong := b.dev
	wrong.Path = a.dev.Path // a stale path
	if err := f.Stage(soon(t), wrong, mountPoint(t, "other"), "ext4", nil); !errors.Is(err, filesystem.ErrWrongDevice) {
		t.Errorf("%v", err)
	}
	wrong = b.dev
	wrong.SizeBytes += mib
	if err := f.Stage(soon(t), wrong, mountPoint(t, "other"), "ext4", nil); !errors.Is(err, filesystem.ErrWrongDevice) {
		t.Errorf("%v", err)
	}
	if b.sum() != before {
		t.Error("the other volume was written to")
	}
	must(t, f.Unmount(soon(t), staging))
}

// The state in which mount-utils formats (kubernetes/kubernetes#142243): the
// device is there, every read fails, and blkid ends with 2.
func TestUnreadableDeviceIsNeverFormatted(t *testing.T) {
	for _, formatted := range []bool{false, true} {
		t.Run(fmt.Sprintf("formatted=%v", formatted), func(t *testing.T) {
			e, i, f := newExport(t, "disk-1", volumeSize), newInitiator(t), newFilesystem(t)
			connectRaw(t, e, ourHost(t), ",ctrl_loss_tmo=600,reconnect_delay=1,fast_io_fail_tmo=1")
			ns := connect(t, i, e)
			v := &volume{export: e, i: i, dev: filesystem.Device{Path: ns.DevicePath, Major: ns.Major, Minor: ns.Minor, SizeBytes: ns.SizeBytes}}
			staging := mountPoint(t, "globalmount")
			if formatted {
				must(t, f.Stage(soon(t), v.dev, staging, "ext4", nil))
				must(t, f.Unmount(soon(t), staging))
			}
			before := v.sum()
			e.down()
			eventually(t, "reads fail", func() bool { return readFails(v.dev.Path) })
			for _, fstype := range []string{"ext4", "xfs"} {
				if err := f.Stage(soon(t), v.dev, staging, fstype, nil); !errors.Is(err, filesystem.ErrUnreadable) {
					t.Errorf("%v", err)
				}
			}
			if c, err := f.Inspect(soon(t), v.dev); !errors.Is(err, filesystem.ErrUnreadable) {
				t.Errorf("%+v %v", c, err)
			}
			e.up()
			eventually(t, "live again", func() bool { _, err := i.Find(e.nqn); return err == nil })
			if v.sum() != before || mountsAt(t, staging) != 0 {
				t.Error("written to")
			}
			must(t, f.Stage(soon(t), v.dev, staging, "ext4", nil)) // and now it may
			must(t, f.Unmount(soon(t), staging))
		})
	}
}

func readFails(device string) bool {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return true
	}
	defer func() { _ = f.Close() }()
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Munmap(page) }()
	_, err = f.Read(page)
	return err != nil
}

// A target that hangs: the caller leaves in time, and when the target is back
// nothing is formatted on behalf of the call that is over.
func TestStageOnAHungTargetIsBoundedAndFormatsNothing(t *testing.T) {
	e, i, f := newExport(t, "disk-1", volumeSize), newInitiator(t), newFilesystem(t)
	s := newSilencer(t, e)
	ns, err := i.Connect(soon(t), s.target(e), nvme.Options{})
	must(t, err)
	v := &volume{export: e, i: i, dev: filesystem.Device{Path: ns.DevicePath, Major: ns.Major, Minor: ns.Minor}}
	staging := mountPoint(t, "globalmount")
	before := v.sum()
	s.freeze(true)
	start := time.Now()
	for range 2 {
		if err := f.Stage(within(t, time.Second), v.dev, staging, "ext4", nil); !errors.Is(err, filesystem.ErrTimeout) {
			t.Errorf("%v", err)
		}
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("two deadlines of 1 s took %v", took)
	}
	s.freeze(false)
	if c, err := f.Inspect(soon(t), v.dev); err != nil || c.Kind != filesystem.Blank { // waits for the lane
		t.Errorf("%+v %v", c, err)
	}
	if v.sum() != before || mountsAt(t, staging) != 0 {
		t.Error("formatted or mounted after the caller had left")
	}
	v.disconnect()
}

func TestForeignContentIsNeverFormatted(t *testing.T) {
	for name, tt := range map[string]struct {
		fill func(v *volume)
		want error
		text string
	}{
		"btrfs":               {func(v *volume) { command(v.t, "mkfs.btrfs", "-q", v.dev.Path) }, filesystem.ErrForeignSignature, "btrfs"},
		"xfs":                 {func(v *volume) { command(v.t, "mkfs.xfs", "-q", v.dev.Path) }, filesystem.ErrForeignSignature, "holds xfs, wanted ext4"},
		"LVM":                 {func(v *volume) { v.put(512, lvmLabel()) }, filesystem.ErrForeignSignature, "LVM2_member"},
		"GPT":                 {func(v *volume) { v.put(0, gpt(volumeSize)) }, filesystem.ErrForeignSignature, "gpt"},
		"LUKS":                {func(v *volume) { v.put(0, append([]byte("LUKS\xba\xbe\x00\x01aes"), make([]byte, 1024)...)) }, filesystem.ErrForeignSignature, "crypto_LUKS"},
		"swap":                {func(v *volume) { v.put(1024, swapHeader()) }, filesystem.ErrForeignSignature, "swap"},
		"RAID at the end":     {func(v *volume) { v.put(volumeSize-64<<10, mdSuperblock()) }, filesystem.ErrForeignSignature, "linux_raid_member"},
		"random data":         {func(v *volume) { v.put(4096, noise(64<<10)) }, filesystem.ErrNotBlank, "data at offset 4096"},
		"data at the end":     {func(v *volume) { v.put(volumeSize-512, noise(512)) }, filesystem.ErrNotBlank, "data at offset"},
		"wiped head of ext4":  {func(v *volume) { wipedHead(v, "mkfs.ext4") }, filesystem.ErrNotBlank, "data at offset"},
		"wiped head of xfs":   {func(v *volume) { wipedHead(v, "mkfs.xfs") }, filesystem.ErrNotBlank, "data at offset"},
		"wiped head of btrfs": {func(v *volume) { wipedHead(v, "mkfs.btrfs") }, filesystem.ErrNotBlank, "data at offset"},
	} {
		t.Run(name, func(t *testing.T) {
			v, f := newVolume(t, "disk-1"), newFilesystem(t)
			tt.fill(v)
			before, staging := v.sum(), mountPoint(t, "globalmount")
			for range 2 {
				err := f.Stage(soon(t), v.dev, staging, "ext4", nil)
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%v", err)
				}
			}
			if name != "xfs" {
				if err := f.Stage(soon(t), v.dev, staging, "xfs", nil); !errors.Is(err, tt.want) {
					t.Errorf("%v", err)
				}
			}
			if v.sum() != before || mountsAt(t, staging) != 0 {
				t.Error("written to, or mounted")
			}
			v.disconnect()
		})
	}
}

// wipedHead leaves only what lies beyond the first MiB, the backup superblocks
// among it: what a dd over the wrong disk does.
func wipedHead(v *volume, mkfs string) {
	command(v.t, mkfs, "-q", v.dev.Path)
	v.put(0, make([]byte, mib))
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// lvmLabel is a physical volume's label for sector 1.
func lvmLabel() []byte {
	b := make([]byte, 512)
	copy(b, "LABELONE")
	binary.LittleEndian.PutUint64(b[8:], 1)
	binary.LittleEndian.PutUint32(b[20:], 32)
	copy(b[24:], "LVM2 001")
	copy(b[32:], "abcdefghijklmnopqrstuvwxyz012345")
	// LVM's checksum starts from its own value and is not inverted at the end.
	binary.LittleEndian.PutUint32(b[16:], ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b[20:]))
	return b
}

// gpt is a protective MBR and an empty GUID partition table.
func gpt(size int64) []byte {
	b := make([]byte, 34*512)
	last := uint64(size/512 - 1)
	b[446+4], b[446+8] = 0xee, 1
	binary.LittleEndian.PutUint32(b[446+12:], uint32(last))
	b[510], b[511] = 0x55, 0xaa
	h := b[512:604]
	copy(h, "EFI PART\x00\x00\x01\x00")
	binary.LittleEndian.PutUint32(h[12:], 92)
	for offset, v := range map[int]uint64{24: 1, 32: last, 40: 34, 48: last - 33, 56: 0x1122334455667788, 64: 0x99aabbccddeeff00, 72: 2} {
		binary.LittleEndian.PutUint64(h[offset:], v)
	}
	binary.LittleEndian.PutUint32(h[80:], 128)
	binary.LittleEndian.PutUint32(h[84:], 128)
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(b[1024:]))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return b
}

// swapHeader goes to offset 1024: version, last page; the magic ends the page.
func swapHeader() []byte {
	b := make([]byte, 4096-1024)
	binary.LittleEndian.PutUint32(b, 1)
	binary.LittleEndian.PutUint32(b[4:], 1000)
	copy(b[len(b)-10:], "SWAPSPACE2")
	return b
}

// mdSuperblock is version 0.90, which lies in the last 64 KiB.
func mdSuperblock() []byte {
	b := make([]byte, 4096)
	for n, v := range []uint32{0xa92b4efc, 0, 90, 0, 0, 1, 1, 1, 1024, 2, 2} {
		binary.LittleEndian.PutUint32(b[4*n:], v)
	}
	var sum uint64
	for n := 0; n < len(b); n += 4 {
		sum += uint64(binary.LittleEndian.Uint32(b[n:]))
	}
	binary.LittleEndian.PutUint32(b[152:], uint32(sum)+uint32(sum>>32))
	return b
}

// B2: two binds at one place, then one unpublish; the volume's files went.
func TestStackedPublishIsUndoneAndFilesStay_B2(t *testing.T) {
	v, f := newVolume(t, "disk-1"), newFilesystem(t)
	staging, target := mountPoint(t, "globalmount"), mountPoint(t, "mount")
	must(t, f.Stage(soon(t), v.dev, staging, "ext4", nil))
	must(t, os.Mkdir(staging+"/db", 0o755))
	write(t, staging+"/db/data", "precious")
	for range 3 { // ours does not stack
		must(t, f.Bind(soon(t), staging, target, false, nil))
	}
	if n := mountsAt(t, target); n != 1 {
		t.Errorf("%d mounts after three publishes", n)
	}
	// Another driver's did. Staging and target are peers on a node's shared root,
	// so each mount over the one also lands on the other, and they multiply: that
	// is how a node got 2048 mounts.
	for range 3 {
		must(t, unix.Mount(staging, target, "", unix.MS_BIND, ""))
	}
	if n := mountsAt(t, target); n < 4 {
		t.Fatalf("%d mounts", n)
	}
	for range 2 {
		must(t, f.Unmount(soon(t), target))
		if _, err := os.Lstat(target); mountsAt(t, target) != 0 || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d mounts, %v", mountsAt(t, target), err)
		}
	}
	if read(t, staging+"/db/data") != "precious" {
		t.Error("the volume's files are gone")
	}
	must(t, f.Unmount(soon(t), staging))
	if n := mountsAt(t, staging); n != 0 {
		t.Errorf("%d mounts left", n)
	}
	v.disconnect()
}

// B17: a node crashed; the log is dirty. The kernel replays it, nobody else may.
func TestUncleanFilesystemMounts_B17(t *testing.T) {
	for fstype, words := range map[string]string{"ext4": "recovery complete", "xfs": "Ending recovery"} {
		t.Run(fstype, func(t *testing.T) {
			v, f := newVolume(t, "disk-1"), newFilesystem(t)
			staging := mountPoint(t, "globalmount")
			must(t, f.Stage(soon(t), v.dev, staging, fstype, nil))
			for n := range 20 {
				write(t, fmt.Sprintf("%s/file-%d", staging, n), "precious")
			}
			shutdown(t, staging)
			must(t, f.Unmount(soon(t), staging)) // works although every access is EIO
			v.disconnect()
			v.connect()
			said := kernelLog(t)
			must(t, f.Stage(soon(t), v.dev, staging, fstype, nil))
			if log := said(); !strings.Contains(log, words) {
				t.Errorf("the log was not dirty, so this proved nothing:\n%s", log)
			}
			for n := range 20 {
				if got := read(t, fmt.Sprintf("%s/file-%d", staging, n)); got != "precious" {
					t.Errorf("file %d: %q", n, got)
				}
			}
			must(t, f.Unmount(soon(t), staging))
			v.disconnect()
		})
	}
}

// shutdown stops a filesystem where it stands, its log flushed and not written back.
func shutdown(t *testing.T, dir string) {
	t.Helper()
	const goingDown = 0x8004587d // _IOR('X', 125, __u32), the same for ext4 and xfs
	logFlush := uint32(1)
	f, err := os.Open(dir)
	must(t, err)
	defer func() { _ = f.Close() }()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), goingDown, uintptr(unsafe.Pointer(&logFlush))); errno != 0 {
		t.Fatalf("shut down %s: %v", dir, errno)
	}
}

// A filesystem that e2fsck -p cannot mend is not mounted, and the error says why;
// no tool touches an xfs.
func TestDamagedFilesystem(t *testing.T) {
	for fstype, text := range map[string]string{"ext4": "e2fsck -p ended with", "xfs": "structure needs cleaning"} {
		t.Run(fstype, func(t *testing.T) {
			v, f := newVolume(t, "disk-1"), newFilesystem(t)
			staging := mountPoint(t, "globalmount")
			must(t, f.Stage(soon(t), v.dev, staging, fstype, nil))
			must(t, f.Unmount(soon(t), staging))
			damage(v, fstype)
			err := f.Stage(soon(t), v.dev, staging, fstype, nil)
			if !errors.Is(err, filesystem.ErrMount) || !strings.Contains(err.Error(), text) {
				t.Errorf("%v", err)
			}
			if mountsAt(t, staging) != 0 {
				t.Error("mounted")
			}
		})
	}
}

func damage(v *volume, fstype string) {
	if fstype == "ext4" {
		v.put(4096, noise(4096)) // the group descriptors
		return
	}
	// The root inode (number 128 of 512 bytes in the default geometry).
	var inode int64
	for line := range strings.Lines(command(v.t, "xfs_db", "-r", "-c", "sb 0", "-c", "p rootino", "-c", "convert ino 128 fsblock", "-c", "inode 128", "-c", "daddr", v.dev.Path)) {
		_, _ = fmt.Sscanf(line, "current daddr is %d", &inode)
	}
	if inode == 0 {
		v.t.Fatal("xfs_db does not say where the root inode is")
	}
	v.put(inode*512, noise(512))
}

// B24: what the claim asks for is done, and nothing else.
func TestOptionsAreHonoured_B24(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fstype  string
		options []string
		runs    bool
		has     []string
	}{
		{"none", "ext4", nil, true, nil},
		{"exec", "xfs", []string{"exec"}, true, nil},
		{"noexec", "ext4", []string{"noexec", "nosuid"}, false, []string{"noexec", "nosuid"}},
		{"ext4's own", "ext4", []string{"discard,noatime,commit=17", "errors=remount-ro", "_netdev"}, true, []string{"discard", "noatime", "commit=17", "errors=remount-ro"}},
		{"xfs's own", "xfs", []string{"nouuid", "discard", "logbsize=64k"}, true, []string{"nouuid", "discard", "logbsize=64k"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, f := newVolume(t, "disk-1"), newFilesystem(t)
			staging, target := mountPoint(t, "globalmount"), mountPoint(t, "mount")
			must(t, f.Stage(soon(t), v.dev, staging, tt.fstype, tt.options))
			must(t, f.Bind(soon(t), staging, target, false, tt.options))
			must(t, os.WriteFile(target+"/program", []byte("#!/bin/sh\nexit 0\n"), 0o755))
			if err := exec.CommandContext(t.Context(), target+"/program").Run(); (err == nil) != tt.runs {
				t.Errorf("run a program: %v", err)
			}
			m, _, err := f.Mounted(target)
			must(t, err)
			for _, o := range tt.has {
				if !slices.Contains(append(m.Options, m.SuperOptions...), o) {
					t.Errorf("%s is missing: %q %q", o, m.Options, m.SuperOptions)
				}
			}
			must(t, f.Unmount(soon(t), target))
			must(t, f.Unmount(soon(t), staging))
		})
	}
}

func TestOptionThatTheFilesystemDoesNotKnow(t *testing.T) {
	v, f := newVolume(t, "disk-1"), newFilesystem(t)
	for _, fstype := range []string{"ext4", "xfs"} {
		v.put(0, make([]byte, mib))
		must(t, os.Truncate(v.file, 0)) // blank again
		must(t, os.Truncate(v.file, volumeSize))
		err := f.Stage(soon(t), v.dev, mountPoint(t, "globalmount"), fstype, []string{"no-such-option"})
		if !errors.Is(err, filesystem.ErrOption) || !strings.Contains(err.Error(), "no-such-option") {
			t.Errorf("%v", err)
		}
	}
}

// A clone carries its source's UUID; xfs mounts both only with nouuid.
func TestCloneMountsBesideItsSource_B24(t *testing.T) {
	source, clone, f := newVolume(t, "disk-1"), newVolume(t, "disk-2"), newFilesystem(t)
	a, b := mountPoint(t, "source"), mountPoint(t, "clone")
	must(t, f.Stage(soon(t), source.dev, a, "xfs", nil))
	write(t, a+"/data", "precious")
	must(t, f.Unmount(soon(t), a))
	extents(t, source.file, clone.put)
	must(t, f.Stage(soon(t), source.dev, a, "xfs", nil))
	if err := f.Stage(soon(t), clone.dev, b, "xfs", nil); !errors.Is(err, filesystem.ErrMount) {
		t.Errorf("two filesystems with one UUID: %v", err)
	}
	must(t, f.Stage(soon(t), clone.dev, b, "xfs", []string{"nouuid"}))
	if read(t, b+"/data") != "precious" {
		t.Error("not the clone")
	}
	must(t, f.Unmount(soon(t), a))
	must(t, f.Unmount(soon(t), b))
}

func TestReadOnlyBindIsReadOnly(t *testing.T) {
	v, f := newVolume(t, "disk-1"), newFilesystem(t)
	staging, target, writable := mountPoint(t, "globalmount"), mountPoint(t, "ro"), mountPoint(t, "rw")
	must(t, f.Stage(soon(t), v.dev, staging, "ext4", []string{"nosuid"}))
	for range 2 {
		must(t, f.Bind(soon(t), staging, target, true, []string{"nodev"}))
		must(t, f.Bind(soon(t), staging, writable, false, nil))
	}
	if err := os.WriteFile(target+"/data", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("wrote through a read-only bind: %v", err)
	}
	write(t, writable+"/data", "precious")
	if read(t, target+"/data") != "precious" {
		t.Error("not the same volume")
	}
	m, ok, err := f.Mounted(target)
	if err != nil || !ok || !m.ReadOnly || !slices.Contains(m.Options, "nodev") || !slices.Contains(m.Options, "nosuid") {
		t.Errorf("%+v %v %v", m, ok, err)
	}
	if err := f.Bind(soon(t), staging, target, false, nil); !errors.Is(err, filesystem.ErrIncompatible) {
		t.Errorf("%v", err)
	}
	if err := f.Bind(soon(t), mountPoint(t, "nothing"), mountPoint(t, "m"), false, nil); !errors.Is(err, filesystem.ErrNotMounted) {
		t.Errorf("%v", err)
	}
	for _, path := range []string{target, writable, staging} {
		must(t, f.Unmount(soon(t), path))
	}
	ro := mountPoint(t, "globalmount-ro")
	must(t, f.Stage(soon(t), v.dev, ro, "ext4", []string{"ro"}))
	if err := os.WriteFile(ro+"/data", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("wrote to a volume staged read-only: %v", err)
	}
	must(t, f.Unmount(soon(t), ro))
}

func TestUnmountOfABusyMountSaysSo(t *testing.T) {
	v, f := newVolume(t, "disk-1"), newFilesystem(t)
	staging := mountPoint(t, "globalmount")
	must(t, f.Stage(soon(t), v.dev, staging, "ext4", nil))
	open, err := os.Create(staging + "/open")
	must(t, err)
	if err := f.Unmount(soon(t), staging); !errors.Is(err, filesystem.ErrBusy) || mountsAt(t, staging) != 1 {
		t.Errorf("%v", err)
	}
	must(t, open.Close())
	must(t, f.Unmount(soon(t), staging))
}

// The controller is lost for good under a mount with unwritten data.
func TestUnmountWhenTheDeviceIsGone(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			e, i, f := newExport(t, "disk-1", volumeSize), newInitiator(t), newFilesystem(t)
			ns, err := i.Connect(soon(t), e.target(), nvme.Options{CtrlLossTimeout: time.Second, ReconnectDelay: time.Second})
			must(t, err)
			dev := filesystem.Device{Path: ns.DevicePath, Major: ns.Major, Minor: ns.Minor, SizeBytes: ns.SizeBytes}
			staging, target := mountPoint(t, "globalmount"), mountPoint(t, "mount")
			must(t, f.Stage(soon(t), dev, staging, fstype, nil))
			must(t, f.Bind(soon(t), staging, target, false, nil))
			must(t, os.WriteFile(target+"/dirty", noise(1<<20), 0o600)) // not synced
			e.down()
			eventually(t, "the controller is gone", func() bool { return len(controllersOf(t, e.nqn)) == 0 })
			_, err = i.Find(e.nqn)
			t.Logf("under a dead mount: %v", err)
			if !errors.Is(err, nvme.ErrNoPath) && !errors.Is(err, nvme.ErrNotConnected) {
				t.Errorf("%v", err)
			}
			// A repeated publish still finds its mount; a fresh device is another one.
			if m, ok, err := f.Mounted(staging); err != nil || !ok || m.Major != dev.Major || m.Minor != dev.Minor {
				t.Errorf("%+v %v %v", m, ok, err)
			}
			e.up()
			fresh := connect(t, i, e)
			other := filesystem.Device{Path: fresh.DevicePath, Major: fresh.Major, Minor: fresh.Minor, SizeBytes: fresh.SizeBytes}
			if err := f.Stage(soon(t), other, staging, fstype, nil); !errors.Is(err, filesystem.ErrWrongDevice) {
				t.Errorf("the dead mount was taken for the volume's: %v", err)
			}
			must(t, f.Unmount(soon(t), target))
			must(t, f.Unmount(soon(t), staging))
			must(t, i.Disconnect(soon(t), e.nqn))
		})
	}
}

// The target hangs under a mount with unwritten data and no loss timeout: the
// unmount waits in the kernel, the caller does not; then the target is back.
func TestUnmountUnderAHungTargetIsBounded(t *testing.T) {
	e, i, f := newExport(t, "disk-1", volumeSize), newInitiator(t), newFilesystem(t)
	s := newSilencer(t, e)
	ns, err := i.Connect(soon(t), s.target(e), nvme.Options{})
	must(t, err)
	dev := filesystem.Device{Path: ns.DevicePath, Major: ns.Major, Minor: ns.Minor, SizeBytes: ns.SizeBytes}
	staging := mountPoint(t, "globalmount")
	must(t, f.Stage(soon(t), dev, staging, "ext4", nil))
	data := noise(1 << 20)
	must(t, os.WriteFile(staging+"/dirty", data, 0o600))
	s.freeze(true)
	start := time.Now()
	for range 2 {
		if err := f.Unmount(within(t, time.Second), staging); !errors.Is(err, filesystem.ErrTimeout) {
			t.Errorf("%v", err)
		}
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("two deadlines of 1 s took %v", took)
	}
	s.freeze(false)
	must(t, f.Unmount(soon(t), staging))
	must(t, f.Stage(soon(t), dev, staging, "ext4", nil))
	if got, err := os.ReadFile(staging + "/dirty"); err != nil || string(got) != string(data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	must(t, f.Unmount(soon(t), staging))
	must(t, i.Disconnect(soon(t), e.nqn))
}

func TestRawBlockVolume(t *testing.T) {
	v, other, f := newVolume(t, "disk-1"), newVolume(t, "disk-2"), newFilesystem(t)
	target := filepath.Join(t.TempDir(), "publish")
	before := mountsAt(t, target)
	for range 2 {
		must(t, f.PublishDevice(soon(t), v.dev, target))
	}
	if err := f.PublishDevice(soon(t), other.dev, target); !errors.Is(err, filesystem.ErrWrongDevice) {
		t.Errorf("%v", err)
	}
	node, err := os.OpenFile(target, os.O_WRONLY|unix.O_SYNC, 0)
	must(t, err)
	_, err = node.Write(noise(4096))
	must(t, errors.Join(err, node.Close()))
	back, err := os.ReadFile(v.file)
	if err != nil || string(back[:4096]) != string(noise(4096)) || mountsAt(t, target) != before {
		t.Error("not this volume, or mounted")
	}
	for range 2 {
		must(t, f.Unmount(soon(t), target))
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
