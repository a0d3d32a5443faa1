//go:build kernel

package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

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

// A clone carries its source's UUID; the kernel refuses a second xfs of one UUID, unless it is told nouuid, by us or by the claim.
func TestCloneMountsBesideItsSource_B24(t *testing.T) {
	source, clone, f := newVolume(t, "disk-1"), newVolume(t, "disk-2"), newFilesystem(t)
	a, b := mountPoint(t, "source"), mountPoint(t, "clone")
	must(t, f.Stage(soon(t), source.dev, a, "xfs", nil))
	write(t, a+"/data", "precious")
	must(t, f.Unmount(soon(t), a))
	extents(t, source.file, clone.put)
	must(t, errors.Join(os.MkdirAll(a, 0o755), os.MkdirAll(b, 0o755)))
	must(t, unix.Mount(source.dev.Path, a, "xfs", 0, "")) // by somebody who does not say nouuid
	if err := unix.Mount(clone.dev.Path, b, "xfs", 0, ""); !errors.Is(err, unix.EINVAL) {
		t.Errorf("this kernel mounts two of one UUID, so this proves nothing: %v", err)
	}
	for _, options := range [][]string{nil, {"nouuid"}} {
		must(t, f.Stage(soon(t), clone.dev, b, "xfs", options))
		if read(t, b+"/data") != "precious" {
			t.Error("not the clone")
		}
		must(t, f.Unmount(soon(t), b))
	}
	must(t, f.Unmount(soon(t), a))
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

// The plugin mounts in its container's mount namespace; pods use what propagates
// from there to the host's. A remount does not propagate, so a bind that becomes
// read-only after it was attached is writable on the host.
func TestReadOnlyBindIsReadOnlyOnTheHost(t *testing.T) {
	if inContainer(t) {
		return
	}
	v, f := newVolume(t, "disk-1"), newFilesystem(t)
	staging, target := mountPoint(t, "globalmount"), mountPoint(t, "ro")
	output, err := container(t, containerJob{Device: v.dev, Staging: staging, Target: target, Options: []string{"ro", "nodev", "noexec", "strictatime"}})
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	write(t, staging+"/data", "precious") // the staged mount is on the host too, and writable
	if err := os.WriteFile(target+"/data", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("the host can write through a read-only publish: %v", err)
	}
	m, ok, err := f.Mounted(target)
	if err != nil || !ok || !m.ReadOnly || !m.Shared {
		t.Errorf("%+v %v %v", m, ok, err)
	}
	if got := strings.Join(m.Options, ","); got != "ro,nodev,noexec" { // strictatime has no word there; relatime would
		t.Errorf("on the host: %s", got)
	}
	if read(t, target+"/data") != "precious" || mountsAt(t, target) != 1 || mountsAt(t, staging) != 1 {
		t.Errorf("%d and %d mounts", mountsAt(t, target), mountsAt(t, staging))
	}
	must(t, f.Unmount(soon(t), target))
	must(t, f.Unmount(soon(t), staging))
	v.disconnect()
}

// Without mountPropagation: Bidirectional (None is a private mount, HostToContainer
// a slave) pods would write to the node's own disk.
func TestMountsThatTheHostWouldNotSeeAreRefused(t *testing.T) {
	if inContainer(t) {
		return
	}
	for name, propagation := range map[string]uintptr{"None": unix.MS_PRIVATE, "HostToContainer": unix.MS_SLAVE} {
		t.Run(name, func(t *testing.T) {
			v, f := newVolume(t, "disk-1"), newFilesystem(t)
			staging, target := mountPoint(t, "globalmount"), mountPoint(t, "mount")
			refused := func(job containerJob) {
				t.Helper()
				job.Propagation = propagation
				output, err := container(t, job)
				if err == nil || !strings.Contains(output, "mountPropagation: Bidirectional") {
					t.Errorf("%v: %s", err, output)
				}
			}
			refused(containerJob{Device: v.dev, Staging: staging})
			if c, err := f.Inspect(soon(t), v.dev); err != nil || c.Kind != filesystem.Blank {
				t.Errorf("formatted before the refusal: %+v %v", c, err)
			}
			must(t, f.Stage(soon(t), v.dev, staging, "ext4", nil))
			refused(containerJob{Device: v.dev, Staging: staging, Target: target})
			if mountsAt(t, target) != 0 {
				t.Errorf("%d mounts", mountsAt(t, target))
			}
			must(t, f.Unmount(soon(t), staging))
			v.disconnect()
		})
	}
}

// containerJob is what the plugin does in a mount namespace of its own.
type containerJob struct {
	Propagation uintptr // of all mounts there; zero leaves them shared with the host
	Device      filesystem.Device
	Staging     string
	Target      string // empty: stage only
	Options     []string
}

const containerVariable = "RDS_CSI_TEST_CONTAINER_JOB"

// container runs the calling test once more, as another process: a goroutine
// cannot do it, its Filesystem works on other threads.
func container(t *testing.T, job containerJob) (output string, err error) {
	t.Helper()
	text, err := json.Marshal(job)
	must(t, err)
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.CommandContext(soon(t), "/proc/self/exe", "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), containerVariable+"="+string(text))
	// Cloned, not unshared: after an unshare the syscall package makes all mounts private.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// inContainer does the job if this process is the one in the container.
func inContainer(t *testing.T) bool {
	t.Helper()
	text, inside := os.LookupEnv(containerVariable)
	if !inside {
		return false
	}
	var job containerJob
	must(t, json.Unmarshal([]byte(text), &job))
	if job.Propagation != 0 {
		must(t, unix.Mount("", "/", "", unix.MS_REC|job.Propagation, ""))
	}
	f := newFilesystem(t)
	must(t, f.Stage(soon(t), job.Device, job.Staging, "ext4", nil))
	for range 2 { // the second finds its own flags in the table and changes nothing
		if job.Target == "" {
			break
		}
		must(t, f.Bind(soon(t), job.Staging, job.Target, false, job.Options))
	}
	return true
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
			// Its class entry goes first; for a moment the subsystem still lists it as deleting.
			eventually(t, "the subsystem has no path", func() bool {
				_, err = i.Find(e.nqn)
				return errors.Is(err, nvme.ErrNoPath) || errors.Is(err, nvme.ErrNotConnected)
			})
			t.Logf("under a dead mount: %v", err)
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
		if err := f.Unmount(within(t, 5*time.Second), staging); !errors.Is(err, filesystem.ErrTimeout) {
			t.Errorf("%v", err)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("two deadlines of 5 s took %v", took)
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
