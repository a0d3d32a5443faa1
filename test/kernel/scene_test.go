//go:build kernel

package kernel

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/nvme"
	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
	"github.com/rds-csi/rds-csi/test/guest/wire"
)

// scene is the driver from end to end: its controller over SSH to a simulated RDS, whose exports are this kernel's nvmet,
// and the node service on this kernel's initiator. What comes back from a device went over all of it.
type scene struct {
	*driver.Controller
	t      *testing.T
	server *simtest.Server
	ledger *attach.Ledger
	node   *driver.Node
	i      *nvme.Initiator
}

const (
	rdsName   = "rds1"
	clusterID = "kernel-test"
	nodeA     = "node-a"
	nodeB     = "node-b"
	// rdsAddress is where both machines reach the exports.
	rdsAddress = wire.FirstAddress
)

// newScene: dir is where the simulator keeps its pools, pool the one that volumes are made on.
func newScene(t *testing.T, dir, pool string, quirks map[string]string) *scene {
	t.Helper()
	return newSceneOf(t, attach.Standalone(), dir, pool, quirks)
}

// newSceneOf has a ledger that the test tells what Kubernetes would.
func newSceneOf(t *testing.T, ledger *attach.Ledger, dir, pool string, quirks map[string]string) *scene {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	server := simtest.Start(t, sim.Options{Dir: dir, NVMe: &sim.NVMeOptions{Address: rdsAddress}, Quirks: quirks, Logger: logger})
	if !server.Device.RealExports() {
		t.Fatal("the simulator does not export through nvmet here")
	}
	s := &scene{t: t, server: server, ledger: ledger, i: newInitiator(t)}
	s.Controller = driver.NewController(rdsName, s.ledger, logger)
	s.Use(driver.Fleet{ClusterID: clusterID, Appliances: map[string]driver.Appliance{rdsName: s.console(pool)}})
	files := newFilesystem(t)
	s.node = driver.NewNode(driver.NodeConfig{
		NodeID: nodeA, Initiator: s.i, Filesystem: files, Mounts: driver.KernelMounts, Logger: logger,
		Options: nvme.Options{CtrlLossTimeout: -1, ReconnectDelay: 2 * time.Second, KeepAlive: 5 * time.Second},
	})
	t.Cleanup(func() {
		if err := files.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// console is the driver's way to the RDS.
func (s *scene) console(pool string) *appliance.RDS {
	s.t.Helper()
	pin, err := routeros.Fingerprint(s.server.HostKeyFingerprint)
	must(s.t, err)
	client, err := routeros.New(routeros.Config{
		Name: rdsName, Address: s.server.Address, User: "csi", Signers: []ssh.Signer{s.server.Signer}, HostKey: pin,
	})
	must(s.t, err)
	client.Start(s.t.Context())
	s.t.Cleanup(func() {
		if err := client.Close(); err != nil {
			s.t.Error(err)
		}
	})
	path, err := appliance.ParsePath("/" + pool + "/k8s")
	must(s.t, err)
	rds, err := appliance.NewRDS(appliance.Settings{
		Name: rdsName, Default: true, ClusterID: clusterID, Pool: path, NVMeAddress: rdsAddress, NVMePort: 4420,
	}, client)
	must(s.t, err)
	return rds
}

// btrfs is a directory whose file system shares blocks, as the pool of an RDS does.
func btrfs(t *testing.T) string {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "pool.img"), mountPoint(t, "pool")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 4<<30))
	must(t, os.Mkdir(dir, 0o755))
	command(t, "mkfs.btrfs", "-q", image)
	command(t, "mount", "-o", "loop", image, dir)
	// Before the one of mountPoint, which does not wait: what is behind a loop device must be written while its file is there.
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the pool: %v", err)
		}
	})
	return dir
}

// host is a node that claims are used on.
type host struct {
	name   string
	plugin nodePlugin
	// controllers are those of a subsystem in the host's kernel, as "<host NQN> <state>".
	controllers func(nqn string) []string
}

// here is this machine.
func (s *scene) here() host {
	return host{nodeA, s.node, func(nqn string) (list []string) {
		for _, dir := range controllersOf(s.t, nqn) {
			list = append(list, strings.TrimSpace(readQuietly(dir+"/hostnqn"))+" "+strings.TrimSpace(readQuietly(dir+"/state")))
		}
		return list
	}}
}

// nodePlugin is what kubelet calls to give a pod a volume and to take it away.
type nodePlugin interface {
	NodeStageVolume(context.Context, *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error)
	NodePublishVolume(context.Context, *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error)
	NodeUnpublishVolume(context.Context, *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error)
	NodeUnstageVolume(context.Context, *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error)
}

// claim is a volume as a pod of a node has it.
type claim struct {
	host
	s                  *scene
	volume             *csi.Volume
	mode               *csi.VolumeCapability
	published          map[string]string
	staging, directory string
}

// create makes a volume, from what source says; it asks again as external-provisioner does.
func (s *scene) create(name string, size int64, mode *csi.VolumeCapability, source *csi.VolumeContentSource) *claim {
	s.t.Helper()
	var reply *csi.CreateVolumeResponse
	var err error
	eventually(s.t, "volume "+name+" is there", func() bool {
		reply, err = s.CreateVolume(soon(s.t), &csi.CreateVolumeRequest{
			Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapabilities: []*csi.VolumeCapability{mode}, VolumeContentSource: source,
		})
		return !errors.Is(err, appliance.ErrCopying)
	})
	must(s.t, err)
	if got := reply.GetVolume().GetCapacityBytes(); got < size {
		s.t.Errorf("%s has %d bytes, %d were asked for", name, got, size)
	}
	c := &claim{host: s.here(), s: s, volume: reply.GetVolume(), mode: mode}
	s.t.Cleanup(func() { // after a failure: another test must not find the connection
		for _, dir := range controllersOf(s.t, c.nqn()) {
			_ = os.WriteFile(filepath.Join(dir, "delete_controller"), []byte("1"), 0o200)
		}
	})
	c.staging, c.directory = mountPoint(s.t, "staging"), mountPoint(s.t, "target")
	return c
}

func fromSnapshot(snapshot *csi.Snapshot) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot.GetSnapshotId()},
	}}
}

func fromVolume(c *claim) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: c.id()}}}
}

func (c *claim) id() string   { return c.volume.GetVolumeId() }
func (c *claim) slot() string { return strings.TrimPrefix(c.id(), rdsName+"/") }
func (c *claim) nqn() string  { return c.published["nqn"] }

// attach is what external-attacher does.
func (c *claim) attach(node string) error {
	reply, err := c.s.ControllerPublishVolume(soon(c.s.t), &csi.ControllerPublishVolumeRequest{
		VolumeId: c.id(), NodeId: node, VolumeCapability: c.mode, VolumeContext: c.volume.GetVolumeContext(),
	})
	if err == nil {
		c.published = reply.GetPublishContext()
	}
	return err
}

func (c *claim) detach(node string) {
	c.s.t.Helper()
	_, err := c.s.ControllerUnpublishVolume(soon(c.s.t), &csi.ControllerUnpublishVolumeRequest{VolumeId: c.id(), NodeId: node})
	must(c.s.t, err)
}

func (c *claim) stage() error {
	_, err := c.plugin.NodeStageVolume(soon(c.s.t), &csi.NodeStageVolumeRequest{
		VolumeId: c.id(), StagingTargetPath: c.staging, VolumeCapability: c.mode, PublishContext: c.published, VolumeContext: c.volume.GetVolumeContext(),
	})
	return err
}

func (c *claim) publish(readonly bool) error {
	_, err := c.plugin.NodePublishVolume(soon(c.s.t), &csi.NodePublishVolumeRequest{
		VolumeId: c.id(), StagingTargetPath: c.staging, TargetPath: c.directory, VolumeCapability: c.mode, Readonly: readonly,
		PublishContext: c.published, VolumeContext: c.volume.GetVolumeContext(),
	})
	return err
}

// up gives the volume to a pod on the claim's node.
func (c *claim) up() {
	c.s.t.Helper()
	must(c.s.t, c.attach(c.name))
	must(c.s.t, c.stage())
	must(c.s.t, c.publish(false))
}

// leave takes it from the node's pod and from the node.
func (c *claim) leave() {
	c.s.t.Helper()
	_, err := c.plugin.NodeUnpublishVolume(soon(c.s.t), &csi.NodeUnpublishVolumeRequest{VolumeId: c.id(), TargetPath: c.directory})
	must(c.s.t, err)
	_, err = c.plugin.NodeUnstageVolume(soon(c.s.t), &csi.NodeUnstageVolumeRequest{VolumeId: c.id(), StagingTargetPath: c.staging})
	must(c.s.t, err)
	if left := c.controllers(c.nqn()); len(left) != 0 {
		c.s.t.Errorf("still connected: %v", left)
	}
}

func (c *claim) down() {
	c.s.t.Helper()
	c.leave()
	c.detach(c.name)
}

func (c *claim) expand(size int64) {
	c.s.t.Helper()
	reply, err := c.s.ControllerExpandVolume(soon(c.s.t), &csi.ControllerExpandVolumeRequest{
		VolumeId: c.id(), CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapability: c.mode,
	})
	must(c.s.t, err)
	if reply.GetCapacityBytes() != size || !reply.GetNodeExpansionRequired() {
		c.s.t.Errorf("grown to %d bytes, node asked: %t", reply.GetCapacityBytes(), reply.GetNodeExpansionRequired())
	}
}

func (c *claim) nodeExpand(size int64) error {
	_, err := c.s.node.NodeExpandVolume(soon(c.s.t), &csi.NodeExpandVolumeRequest{
		VolumeId: c.id(), VolumePath: c.directory, StagingTargetPath: c.staging, VolumeCapability: c.mode, CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	})
	return err
}

func (c *claim) remove() {
	c.s.t.Helper()
	_, err := c.s.DeleteVolume(soon(c.s.t), &csi.DeleteVolumeRequest{VolumeId: c.id()})
	must(c.s.t, err)
}

// fsck has the file system looked at by its own checker, on the device, with nothing mounted.
func (c *claim) fsck() {
	c.s.t.Helper()
	must(c.s.t, c.attach(nodeA))
	target := nvme.Target{NQN: c.nqn(), Address: rdsAddress, Port: 4420}
	ns, err := c.s.i.Connect(soon(c.s.t), target, nvme.Options{})
	must(c.s.t, err)
	checker := map[string][]string{"ext4": {"e2fsck", "-fn"}, "xfs": {"xfs_repair", "-n"}}[c.mode.GetMount().GetFsType()]
	command(c.s.t, checker[0], append(checker[1:], ns.DevicePath)...)
	must(c.s.t, c.s.i.Disconnect(soon(c.s.t), c.nqn()))
	c.detach(nodeA)
}

// snapshot takes one and asks until it is ready, as external-snapshotter does.
func (c *claim) snapshot(name string) *csi.Snapshot {
	c.s.t.Helper()
	var reply *csi.CreateSnapshotResponse
	eventually(c.s.t, "snapshot "+name+" is ready", func() bool {
		var err error
		reply, err = c.s.CreateSnapshot(soon(c.s.t), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: c.id()})
		must(c.s.t, err)
		return reply.GetSnapshot().GetReadyToUse()
	})
	if got := reply.GetSnapshot(); got.GetSourceVolumeId() != c.id() || got.GetSizeBytes() != c.volume.GetCapacityBytes() {
		c.s.t.Errorf("snapshot %v of a volume of %d bytes", got, c.volume.GetCapacityBytes())
	}
	return reply.GetSnapshot()
}

// contents is what files of a file system are to hold, by name.
type contents map[string][sha256.Size]byte

// fill writes files and flushes each to the device.
func fill(t *testing.T, dir string, size int, names ...string) contents {
	t.Helper()
	sums := contents{}
	for _, name := range names {
		data := random(t, size)
		f, err := os.Create(filepath.Join(dir, name))
		must(t, err)
		_, err = f.Write(data)
		must(t, errors.Join(err, f.Sync(), f.Close()))
		sums[name] = sha256.Sum256(data)
	}
	return sums
}

// verify reads the files from the device: memory would answer otherwise.
func (want contents) verify(t *testing.T, dir string) {
	t.Helper()
	must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o600))
	entries, err := os.ReadDir(dir)
	must(t, err)
	n := 0
	for _, e := range entries {
		if e.IsDir() { // lost+found
			continue
		}
		n++
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if sum, ok := want[e.Name()]; err != nil || !ok || sha256.Sum256(b) != sum {
			t.Errorf("%s in %s is not what it is to be: %v", e.Name(), dir, err)
		}
	}
	if n != len(want) {
		t.Errorf("%d files in %s instead of %d", n, dir, len(want))
	}
}

// empty: the RDS has neither an item nor a file of ours.
func (s *scene) empty(pool string) {
	s.t.Helper()
	if left := s.server.Device.Disks(); len(left) != 0 {
		s.t.Errorf("still on the rds: %v", left)
	}
	dir := filepath.Join(s.server.Dir, "files", pool, "k8s")
	entries, err := os.ReadDir(dir)
	must(s.t, err)
	for _, e := range entries {
		s.t.Errorf("still in %s: %s", dir, e.Name())
	}
}
