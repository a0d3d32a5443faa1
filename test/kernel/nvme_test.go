//go:build kernel

package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

func newInitiator(t *testing.T) *nvme.Initiator {
	return nvme.New(nvme.Config{Host: ourHost(t), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

func ourHost(t *testing.T) nvme.Host { return nvme.HostFor("rds.csi.test", "cluster", t.Name()) }

// soon is a deadline for what must work, generous for an emulated machine.
func soon(t *testing.T) context.Context { return within(t, 60*time.Second) }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, i *nvme.Initiator, e *export) nvme.Namespace {
	t.Helper()
	ns, err := i.Connect(soon(t), e.target(), nvme.Options{})
	must(t, err)
	return ns
}

func TestConnectFindDisconnect(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 64*mib)
	ns := connect(t, i, e)
	if ns.NSID != 1 || ns.SizeBytes != 64*mib || ns.UUID != read(t, e.namespace()+"/device_uuid") {
		t.Errorf("%+v", ns)
	}
	// Native multipath is on: the device is the subsystem's head, no ANA needed.
	if read(t, "/sys/module/nvme_core/parameters/multipath") != "Y" {
		t.Error("this kernel runs without native multipath")
	}
	if again, err := i.Find(e.nqn); err != nil || !same(again, ns) {
		t.Errorf("%+v %v", again, err)
	}
	c := controllersOf(t, e.nqn)
	if len(c) != 1 || read(t, c[0]+"/hostnqn") != ourHost(t).NQN || read(t, c[0]+"/hostid") != ourHost(t).ID ||
		read(t, c[0]+"/ctrl_loss_tmo") != "off" || read(t, c[0]+"/reconnect_delay") != "2" || read(t, c[0]+"/kato") != "5" {
		t.Errorf("controllers %v", c)
	}
	payload := []byte(strings.Repeat("0123456789abcdef", 256))
	must(t, os.WriteFile(ns.DevicePath, payload, 0)) // one block through the wire
	counts, err := i.Connections()
	if err != nil || counts["live"] != 1 {
		t.Errorf("%v %v", counts, err)
	}
	for range 2 {
		must(t, i.Disconnect(soon(t), e.nqn))
		if _, err := i.Find(e.nqn); !errors.Is(err, nvme.ErrNotConnected) {
			t.Errorf("%v", err)
		}
	}
	if got, err := os.ReadFile(e.file); err != nil || string(got[:len(payload)]) != string(payload) {
		t.Error("what was written is not on the target")
	}
}

// Rule 1: numbers are handed out again, in another order.
func TestDeviceIsFoundByNQNAfterRenumbering(t *testing.T) {
	i := newInitiator(t)
	exports := map[string]*export{"a": newExport(t, "disk-1", 32*mib), "b": newExport(t, "disk-10", 48*mib)}
	names := map[string]string{}
	renumbered := false
	for _, order := range []string{"ab", "ba"} {
		for _, k := range strings.Split(order, "") {
			connect(t, i, exports[k])
		}
		for k, e := range exports {
			ns, err := i.Find(e.nqn)
			must(t, err)
			info, err := os.Stat(e.file)
			must(t, err)
			if ns.SizeBytes != info.Size() || ns.UUID != read(t, e.namespace()+"/device_uuid") {
				t.Errorf("%s: found %+v", e.nqn, ns)
			}
			renumbered = renumbered || names[k] != "" && names[k] != ns.Name
			names[k] = ns.Name
		}
		for _, e := range exports {
			must(t, i.Disconnect(soon(t), e.nqn))
		}
	}
	if !renumbered {
		t.Error("the kernel gave the same numbers, so this proved nothing")
	}
}

func TestConnectsAtOnceMakeOneController(t *testing.T) {
	e := newExport(t, "disk-1", 32*mib)
	// Two initiators know nothing of each other, as two processes on one node.
	initiators := []*nvme.Initiator{newInitiator(t), newInitiator(t)}
	var all sync.WaitGroup
	for n := range 6 {
		all.Go(func() {
			if _, err := initiators[n%2].Connect(soon(t), e.target(), nvme.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if c := controllersOf(t, e.nqn); len(c) != 1 {
		t.Errorf("%d controllers: %v", len(c), c)
	}
	must(t, initiators[0].Disconnect(soon(t), e.nqn))
}

// The node may live on NVMe/TCP itself: another subsystem, with a name that ours
// is the beginning of, connected by another host, is not touched by anything.
func TestForeignSubsystemsAreNeverTouched(t *testing.T) {
	i := newInitiator(t)
	foreign, ours := newExport(t, "disk-10", 32*mib), newExport(t, "disk-1", 32*mib)
	somebody := nvme.HostFor("somebody", "else", "entirely")
	c := connectRaw(t, foreign, somebody, "")
	before := read(t, c+"/cntlid")
	connect(t, i, ours)
	if counts, err := i.Connections(); err != nil || counts["live"] != 1 {
		t.Errorf("%v %v: the foreign one is counted", counts, err)
	}
	for range 2 {
		must(t, i.Disconnect(soon(t), ours.nqn))
	}
	_, err := i.Connect(soon(t), nvme.Target{NQN: "nqn.2000-02.com.mikrotik:disk", Address: "127.0.0.1", Port: ours.port}, nvme.Options{})
	if !errors.Is(err, nvme.ErrRefused) {
		t.Errorf("an NQN that nobody exports: %v", err)
	}
	must(t, i.Disconnect(soon(t), "nqn.2000-02.com.mikrotik:disk"))
	if read(t, c+"/state") != "live" || read(t, c+"/cntlid") != before || read(t, c+"/hostnqn") != somebody.NQN || read(t, c+"/subsysnqn") != foreign.nqn {
		t.Error("the foreign controller changed")
	}
	if _, err := os.ReadFile(filepath.Join(c, "delete_controller")); errors.Is(err, os.ErrNotExist) {
		t.Error("the foreign controller is being deleted")
	}
}

// same: the sysfs entry of a new device is there a moment before the kernel's own file in /dev. The initiator then opens it
// by its number under another name, which is as good.
func same(a, b nvme.Namespace) bool {
	a.DevicePath = b.DevicePath
	return a == b
}

// While the target is away the device stays what it is, a repeated Connect makes
// no second controller, and I/O goes on afterwards.
func TestTargetReboots(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	ns := connect(t, i, e)
	e.down()
	eventually(t, "reconnecting", func() bool { _, err := i.Find(e.nqn); return errors.Is(err, nvme.ErrNotLive) })
	if got, err := i.Find(e.nqn); !errors.Is(err, nvme.ErrNotLive) || got.Major != ns.Major || got.Minor != ns.Minor {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := i.Connect(within(t, 5*time.Second), e.target(), nvme.Options{}); !errors.Is(err, nvme.ErrTimeout) || !errors.Is(err, nvme.ErrNotLive) {
		t.Errorf("%v", err)
	}
	if counts, err := i.Connections(); err != nil || counts["connecting"] != 1 {
		t.Errorf("%v %v", counts, err)
	}
	e.up()
	if again := connect(t, i, e); !same(again, ns) {
		t.Errorf("%+v, before %+v", again, ns)
	}
	if c := controllersOf(t, e.nqn); len(c) != 1 {
		t.Errorf("%v", c)
	}
}

func TestConnectToNobodyFailsAtOnce(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	e.down()
	if _, err := i.Connect(soon(t), e.target(), nvme.Options{}); !errors.Is(err, nvme.ErrRefused) {
		t.Errorf("%v", err)
	}
	if c := controllersOf(t, e.nqn); len(c) != 0 {
		t.Errorf("left behind: %v", c)
	}
}

// A target that accepts TCP and says nothing keeps the write in the kernel.
func TestConnectToASilentTargetIsBounded(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	other := newExport(t, "disk-2", 32*mib)
	s := newSilencer(t, e)
	s.freeze(true)
	start := time.Now()
	for range 2 {
		if _, err := i.Connect(within(t, 2*time.Second), s.target(e), nvme.Options{}); !errors.Is(err, nvme.ErrTimeout) {
			t.Fatalf("%v", err)
		}
	}
	if took := time.Since(start); took > 15*time.Second { // the kernel gives each of them up after 10 s
		t.Errorf("two deadlines of 2 s took %v", took)
	}
	connect(t, i, other) // waits for the kernel's one mutex, not for ever
	s.freeze(false)      // the connect may still come about now
	must(t, i.Disconnect(soon(t), e.nqn))
	if c := controllersOf(t, e.nqn); len(c) != 0 {
		t.Errorf("the late connect left %v", c)
	}
	must(t, i.Disconnect(soon(t), other.nqn))
}

// Rule 8: the kernel waits for a target that does not answer; the caller does not.
func TestDisconnectUnderAHungTargetIsBounded(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	other := newExport(t, "disk-2", 32*mib)
	s := newSilencer(t, e)
	_, err := i.Connect(soon(t), s.target(e), nvme.Options{})
	must(t, err)
	connect(t, i, other)
	s.freeze(true)
	for range 2 {
		start := time.Now()
		err := i.Disconnect(within(t, 5*time.Second), e.nqn)
		if took := time.Since(start); took > 20*time.Second { // the kernel's own commands have a minute
			t.Errorf("deadline 5 s, took %v", took)
		}
		t.Logf("under a hung target: %v", err)
		if err != nil && !errors.Is(err, nvme.ErrTimeout) {
			t.Errorf("%v", err)
		}
	}
	must(t, i.Disconnect(soon(t), other.nqn)) // one dead volume blocks no other
	s.freeze(false)
	must(t, i.Disconnect(soon(t), e.nqn))
	if c := controllersOf(t, e.nqn); len(c) != 0 {
		t.Errorf("%v", c)
	}
}

// The target falls silent after the connect and before the kernel has read the
// partition table: the kernel opens the device for nobody until it is deleted.
func TestDisconnectBeforeTheFirstRead(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	c := newChoke(t, e)
	if ns, err := i.Connect(soon(t), c.target(e), nvme.Options{}); err != nil {
		t.Fatalf("%+v %v", ns, err)
	}
	c.close() // and now the RDS is away for good
	start := time.Now()
	must(t, i.Disconnect(soon(t), e.nqn))
	t.Logf("took %v", time.Since(start))
	if c := controllersOf(t, e.nqn); len(c) != 0 {
		t.Errorf("left: %v", c)
	}
	connect(t, i, e) // the lane is free, and so is the name
	must(t, i.Disconnect(soon(t), e.nqn))
}

// B8: the kernel is asked, and knows about every claim.
func TestDisconnectOfADeviceInUseIsRefused_B8(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	ns := connect(t, i, e)
	claim, err := os.OpenFile(ns.DevicePath, os.O_RDONLY|unix.O_EXCL, 0)
	must(t, err)
	if err := i.Disconnect(soon(t), e.nqn); !errors.Is(err, nvme.ErrInUse) {
		t.Errorf("claimed: %v", err)
	}
	must(t, claim.Close())
	command(t, "mkfs.ext4", "-q", ns.DevicePath)
	dir := t.TempDir()
	must(t, unix.Mount(ns.DevicePath, dir, "ext4", 0, ""))
	if err := i.Disconnect(soon(t), e.nqn); !errors.Is(err, nvme.ErrInUse) {
		t.Errorf("mounted: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "still"), []byte("writable"), 0o600))
	must(t, unix.Unmount(dir, 0))
	if got, err := i.Find(e.nqn); err != nil || !same(got, ns) {
		t.Errorf("%+v %v", got, err)
	}
	must(t, i.Disconnect(soon(t), e.nqn))
}

// Rule 7: somebody holds the device open, so the subsystem outlives its paths.
func TestSubsystemWithoutPathIsAStateOfItsOwn(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	ns := connect(t, i, e)
	reader, err := os.Open(ns.DevicePath) // not exclusive: no claim
	must(t, err)
	defer func() { _ = reader.Close() }()
	if err := i.Disconnect(soon(t), e.nqn); !errors.Is(err, nvme.ErrNoPath) {
		t.Fatalf("%v", err)
	}
	if _, err := i.Find(e.nqn); !errors.Is(err, nvme.ErrNoPath) {
		t.Errorf("%v", err)
	}
	if fresh := connect(t, i, e); fresh.Major == ns.Major && fresh.Minor == ns.Minor {
		t.Errorf("the dead device %s was taken for the new one", ns.Name)
	}
	must(t, reader.Close())
	must(t, i.Disconnect(soon(t), e.nqn))
	if _, err := i.Find(e.nqn); !errors.Is(err, nvme.ErrNotConnected) {
		t.Errorf("%v", err)
	}
}

// ctrl_loss_tmo over: the kernel drops the controller, and the volume is simply
// not connected; the next connect starts from nothing.
func TestControllerLossIsNotConnected(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	_, err := i.Connect(soon(t), e.target(), nvme.Options{CtrlLossTimeout: time.Second, ReconnectDelay: time.Second})
	must(t, err)
	e.down()
	eventually(t, "the controller is gone", func() bool { _, err := i.Find(e.nqn); return errors.Is(err, nvme.ErrNotConnected) })
	must(t, i.Disconnect(soon(t), e.nqn))
	e.up()
	connect(t, i, e)
	must(t, i.Disconnect(soon(t), e.nqn))
}

func TestManyVolumesComeAndGo(t *testing.T) {
	i := newInitiator(t)
	var all sync.WaitGroup
	for n := range 6 {
		e := newExport(t, fmt.Sprintf("disk-%d", n), 16*mib)
		all.Go(func() {
			for range 10 {
				ns, err := i.Connect(soon(t), e.target(), nvme.Options{})
				if err != nil || ns.UUID != strings.TrimSpace(readQuietly(e.namespace()+"/device_uuid")) {
					t.Errorf("%+v %v", ns, err)
				}
				if f, err := os.Open(ns.DevicePath); err != nil {
					t.Errorf("connected, and not to be opened: %v", err)
				} else if err := f.Close(); err != nil {
					t.Error(err)
				}
				if err := i.Disconnect(soon(t), e.nqn); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if counts, err := i.Connections(); err != nil || counts["live"] != 0 {
		t.Errorf("%v %v", counts, err)
	}
}

func readQuietly(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

func TestWithoutTheModuleTheErrorSaysWhatToLoad(t *testing.T) {
	e := newExport(t, "disk-1", 16*mib)
	i := nvme.New(nvme.Config{Host: ourHost(t), Fabrics: "/dev/no-nvme-fabrics"})
	_, err := i.Connect(soon(t), e.target(), nvme.Options{})
	if !errors.Is(err, nvme.ErrUnsupported) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("%v", err)
	}
}

// An RDS that listens before its exports are back says that the subsystem does
// not exist, and the kernel gives the controller up although ctrl_loss_tmo is -1.
// kubelet only publishes again, and the pod has to get its data.
func TestExportAwayUnderAListeningPort(t *testing.T) {
	e, keep := newExport(t, "pvc-1", volumeSize), newExport(t, "pvc-2", 32*mib)
	e.also(keep) // the port stays up
	i, f := newInitiator(t), newFilesystem(t)
	node := driver.NewNode(driver.NodeConfig{
		NodeID: "node-a", Initiator: i, Filesystem: f, Mounts: driver.KernelMounts, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	staging, target := mountPoint(t, "globalmount"), mountPoint(t, "mount")
	contexts := map[string]string{"nvmeAddress": "127.0.0.1", "nvmePort": fmt.Sprint(e.port)}
	mode := &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
	publish := func() error {
		_, err := node.NodePublishVolume(soon(t), &csi.NodePublishVolumeRequest{
			VolumeId: "pvc-1", StagingTargetPath: staging, TargetPath: target, PublishContext: contexts, VolumeCapability: mode,
		})
		return err
	}
	_, err := node.NodeStageVolume(soon(t), &csi.NodeStageVolumeRequest{
		VolumeId: "pvc-1", StagingTargetPath: staging, PublishContext: contexts, VolumeCapability: mode,
	})
	must(t, err)
	must(t, publish())
	write(t, target+"/data", "precious")

	e.down()
	eventually(t, "the kernel gives up", func() bool {
		_, err := i.Find(e.nqn)
		return errors.Is(err, nvme.ErrNoPath) || errors.Is(err, nvme.ErrNotConnected)
	})
	e.up()
	if err := publish(); err == nil || mountsAt(t, staging) != 1 || mountsAt(t, target) != 1 {
		t.Errorf("under a pod: %v", err)
	}
	_, err = node.NodeUnpublishVolume(soon(t), &csi.NodeUnpublishVolumeRequest{VolumeId: "pvc-1", TargetPath: target})
	must(t, err)
	e.down()
	if err := publish(); err == nil || mountsAt(t, staging) != 1 {
		t.Errorf("while it is away: %v", err)
	}
	e.up()
	must(t, publish())
	if read(t, target+"/data") != "precious" {
		t.Error("not the volume")
	}
	write(t, target+"/more", "still writable")
	_, err = node.NodeUnpublishVolume(soon(t), &csi.NodeUnpublishVolumeRequest{VolumeId: "pvc-1", TargetPath: target})
	must(t, err)
	_, err = node.NodeUnstageVolume(soon(t), &csi.NodeUnstageVolumeRequest{VolumeId: "pvc-1", StagingTargetPath: staging})
	must(t, err)
	if c := controllersOf(t, e.nqn); len(c) != 0 {
		t.Errorf("left: %v", c)
	}
}
