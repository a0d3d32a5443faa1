//go:build kernel

package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

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
		if err := f.Stage(within(t, 5*time.Second), v.dev, staging, "ext4", nil); !errors.Is(err, filesystem.ErrTimeout) {
			t.Errorf("%v", err)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("two deadlines of 5 s took %v", took)
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
