package driver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/driver/drivertest"
	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// nodeScene is a node service over a kernel in memory, and one volume that is exported.
type nodeScene struct {
	*driver.Node
	kernel          *drivertest.Kernel
	t               *testing.T
	volume, nqn     string
	staging, target string
}

func newNodeScene(t *testing.T) *nodeScene {
	slot := appliance.SlotFor(cluster, "pvc-1")
	nqn := appliance.NQNFor(slot)
	kernel := drivertest.NewKernel(func(asked string) (int64, bool) { return gib, asked == nqn })
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &nodeScene{
		Node: newNode(kernel, kernel), kernel: kernel, t: t, volume: "rds1/" + slot, nqn: nqn,
		staging: filepath.Join(dir, "globalmount"), target: filepath.Join(dir, "mount"),
	}
}

func newNode(initiator driver.Initiator, kernel *drivertest.Kernel) *driver.Node {
	return newNodeOver(initiator, kernel, kernel)
}

func newNodeOver(initiator driver.Initiator, files driver.Filesystem, kernel *drivertest.Kernel) *driver.Node {
	return driver.NewNode(driver.NodeConfig{
		NodeID: "node-a", Initiator: initiator, Filesystem: files, Mounts: kernel.Mounts, Logger: slog.New(slog.DiscardHandler),
	})
}

func (s *nodeScene) stageRequest() *csi.NodeStageVolumeRequest {
	return &csi.NodeStageVolumeRequest{
		VolumeId: s.volume, StagingTargetPath: s.staging, VolumeCapability: writer(),
		PublishContext: map[string]string{"nqn": s.nqn, "nvmeAddress": "10.42.68.1", "nvmePort": "4420", "sizeBytes": fmt.Sprint(gib)},
	}
}

func (s *nodeScene) publishRequest() *csi.NodePublishVolumeRequest {
	return &csi.NodePublishVolumeRequest{VolumeId: s.volume, StagingTargetPath: s.staging, TargetPath: s.target, VolumeCapability: writer()}
}

func (s *nodeScene) stage(change ...func(*csi.NodeStageVolumeRequest)) error {
	req := s.stageRequest()
	for _, c := range change {
		c(req)
	}
	_, err := s.NodeStageVolume(s.t.Context(), req)
	return err
}

func (s *nodeScene) publish(change ...func(*csi.NodePublishVolumeRequest)) error {
	req := s.publishRequest()
	for _, c := range change {
		c(req)
	}
	_, err := s.NodePublishVolume(s.t.Context(), req)
	return err
}

func (s *nodeScene) unpublish(target string) error {
	_, err := s.NodeUnpublishVolume(s.t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: s.volume, TargetPath: target})
	return err
}

func (s *nodeScene) unstage() error {
	_, err := s.NodeUnstageVolume(s.t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: s.volume, StagingTargetPath: s.staging})
	return err
}

// is compares what the kernel holds.
func (s *nodeScene) is(connected, staged, published int) {
	s.t.Helper()
	if c, st, p := len(s.kernel.Connected()), s.kernel.MountsAt(s.staging), s.kernel.MountsAt(s.target); c != connected || st != staged || p != published {
		s.t.Errorf("connected %d, staged %d, published %d; want %d, %d, %d", c, st, p, connected, staged, published)
	}
}

func (s *nodeScene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestLifeOfAVolumeOnANode(t *testing.T) {
	s := newNodeScene(t)
	for range 3 {
		s.must(s.stage())
		s.is(1, 1, 0)
		s.must(s.publish())
		s.is(1, 1, 1)
		s.must(s.unpublish(s.target))
		s.is(1, 1, 0)
		s.must(s.unstage())
		s.is(0, 0, 0)
	}
	if _, err := os.Stat(s.target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the target is left: %v", err)
	}
	if c := s.kernel.Counters(); c.Formats != 1 {
		t.Errorf("formatted %d times", c.Formats)
	}
}

// B1: kubelet stages again after a restart of its own; nothing under the pod may change.
func TestRepeatedStageChangesNothing_B1(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.must(s.publish())
	before := s.kernel.Counters()
	for range 3 {
		s.must(s.stage())
	}
	s.is(1, 1, 1)
	if after := s.kernel.Counters(); after != before {
		t.Errorf("%+v became %+v", before, after)
	}
}

// B1: also when the RDS is away, and when the repetition fails: never a disconnect under a live mount.
func TestRepeatedStageNeverDisconnects_B1(t *testing.T) {
	for name, c := range map[string]struct {
		disturb func(*nodeScene)
		change  func(*csi.NodeStageVolumeRequest)
		code    codes.Code
	}{
		"rds away":              {func(s *nodeScene) { s.kernel.SetLive(s.nqn, false) }, nil, codes.OK},
		"another fs asked":      {nil, func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability.GetMount().FsType = "xfs" }, codes.AlreadyExists},
		"another staging path":  {nil, func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath += "2" }, codes.OK},
		"sysfs unreadable":      {func(s *nodeScene) { s.kernel.Fail(drivertest.Find, errors.New("sysfs")) }, nil, codes.Internal},
		"renumbered (B9)":       {func(s *nodeScene) { s.kernel.Renumber(s.nqn) }, nil, codes.FailedPrecondition},
		"mounted over":          {func(s *nodeScene) { s.kernel.MountOver(s.staging, "ext4") }, nil, codes.FailedPrecondition},
		"mount fails elsewhere": {func(s *nodeScene) { s.kernel.Fail(drivertest.Stage, filesystem.ErrMount) }, func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath += "2" }, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNodeScene(t)
			s.must(s.stage())
			s.must(s.publish())
			if c.disturb != nil {
				c.disturb(s)
			}
			if c.change == nil {
				c.change = func(*csi.NodeStageVolumeRequest) {}
			}
			wants(t, s.stage(c.change), c.code)
			if n := s.kernel.Counters().Disconnects; n != 0 || s.kernel.MountsAt(s.target) != 1 {
				t.Errorf("%d disconnects, %d mounts at the pod", n, s.kernel.MountsAt(s.target))
			}
		})
	}
}

func TestStagesAtOnce_B1(t *testing.T) {
	s := newNodeScene(t)
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for range 8 {
		wg.Go(func() { results <- s.stage() })
	}
	wg.Wait()
	close(results)
	for err := range results {
		if c := driver.Code(err); c != codes.OK && c != codes.Aborted {
			t.Error(err)
		}
	}
	s.must(s.stage())
	s.is(1, 1, 0)
	if c := s.kernel.Counters(); c.Connects != 1 || c.Disconnects != 0 {
		t.Errorf("%+v", c)
	}
}

// A stage that fails leaves no connection, also none of a plugin that was killed before its mount.
func TestFailedStageLeavesNoConnection(t *testing.T) {
	s := newNodeScene(t)
	s.kernel.Fail(drivertest.Stage, filesystem.ErrForeignSignature)
	wants(t, s.stage(), codes.FailedPrecondition, s.volume, "node-a")
	s.is(0, 0, 0)

	connected := func() {
		_, err := s.kernel.Connect(t.Context(), nvme.Target{NQN: s.nqn}, nvme.Options{})
		s.must(err)
	}
	connected()
	wants(t, s.stage(), codes.FailedPrecondition)
	s.is(0, 0, 0)

	connected() // at another address, perhaps to other data: not ours to take down
	s.kernel.Fail(drivertest.Connect, nvme.ErrIdentity)
	wants(t, s.stage(), codes.FailedPrecondition)
	s.is(1, 0, 0)

	s = newNodeScene(t)
	wants(t, s.stage(func(r *csi.NodeStageVolumeRequest) { r.PublishContext["sizeBytes"] = fmt.Sprint(2 * gib) }), codes.FailedPrecondition, "bytes")
	s.is(0, 0, 0)
}

// The undo has a deadline of its own: that of the call is over.
func TestStageOverItsDeadlineIsUndone(t *testing.T) {
	s := newNodeScene(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.Node = newNode(cancelling{s.kernel, cancel}, s.kernel)
	_, err := s.NodeStageVolume(ctx, s.stageRequest())
	wants(t, err, codes.Canceled)
	s.is(0, 0, 0)
}

// cancelling ends the caller's context once the volume is connected.
type cancelling struct {
	*drivertest.Kernel
	cancel context.CancelFunc
}

func (c cancelling) Connect(ctx context.Context, t nvme.Target, o nvme.Options) (nvme.Namespace, error) {
	ns, err := c.Kernel.Connect(ctx, t, o)
	c.cancel()
	return ns, err
}

func TestStageRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*csi.NodeStageVolumeRequest)
		code   codes.Code
	}{
		"no volume":      {func(r *csi.NodeStageVolumeRequest) { r.VolumeId = "" }, codes.InvalidArgument},
		"a bad handle":   {func(r *csi.NodeStageVolumeRequest) { r.VolumeId = "rds1/../x" }, codes.InvalidArgument},
		"no path":        {func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath = "" }, codes.InvalidArgument},
		"a relative one": {func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath = "a/b" }, codes.InvalidArgument},
		"the root":       {func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath = "/a/.." }, codes.InvalidArgument},
		"no capability":  {func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability = nil }, codes.InvalidArgument},
		"another nqn":    {func(r *csi.NodeStageVolumeRequest) { r.PublishContext["nqn"] = "nqn.2014-08.org:boot" }, codes.InvalidArgument},
		"no address":     {func(r *csi.NodeStageVolumeRequest) { delete(r.PublishContext, "nvmeAddress") }, codes.InvalidArgument},
		"a name to dial": {func(r *csi.NodeStageVolumeRequest) { r.PublishContext["nvmeAddress"] = "x,nqn=y" }, codes.InvalidArgument},
		"a bad port":     {func(r *csi.NodeStageVolumeRequest) { r.PublishContext["nvmePort"] = "0" }, codes.InvalidArgument},
		"a bad size":     {func(r *csi.NodeStageVolumeRequest) { r.PublishContext["sizeBytes"] = "1G" }, codes.InvalidArgument},
		"a bad timeout":  {func(r *csi.NodeStageVolumeRequest) { r.VolumeContext = map[string]string{"ctrlLossTimeout": "1ms"} }, codes.InvalidArgument},
		"a bad delay":    {func(r *csi.NodeStageVolumeRequest) { r.VolumeContext = map[string]string{"reconnectDelay": "x"} }, codes.InvalidArgument},
		"a bad fs":       {func(r *csi.NodeStageVolumeRequest) { r.VolumeContext = map[string]string{"fsType": "ntfs"} }, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNodeScene(t)
			wants(t, s.stage(c.change), c.code)
			s.is(0, 0, 0)
		})
	}
	s := newNodeScene(t)
	s.volume = "rds1/pvc-not-exported"
	wants(t, s.stage(func(r *csi.NodeStageVolumeRequest) { r.PublishContext["nqn"] = "" }), codes.Unavailable)
}

// seen keeps what the initiator is asked for.
type seen struct {
	*drivertest.Kernel
	target  nvme.Target
	options nvme.Options
}

func (s *seen) Connect(ctx context.Context, t nvme.Target, o nvme.Options) (nvme.Namespace, error) {
	s.target, s.options = t, o
	return s.Kernel.Connect(ctx, t, o)
}

func TestContextsSayHowToConnect(t *testing.T) {
	s := newNodeScene(t)
	asked := &seen{Kernel: s.kernel}
	s.Node = newNode(asked, s.kernel)
	// What the existing driver wrote into a PersistentVolume is enough.
	s.must(s.stage(func(r *csi.NodeStageVolumeRequest) {
		r.PublishContext = map[string]string{"nvme_address": "10.1.1.1"}
		r.VolumeContext = map[string]string{"nqn": s.nqn, "nvmeAddress": "10.0.0.1", "nvmePort": "4421", "ctrlLossTmo": "-1", "reconnectDelay": "5", "storage.kubernetes.io/csiProvisionerIdentity": "x"}
	}))
	if asked.target != (nvme.Target{NQN: s.nqn, Address: "10.0.0.1", Port: 4421}) || asked.options.ReconnectDelay.Seconds() != 5 {
		t.Errorf("%+v, %+v", asked.target, asked.options)
	}
	s.must(s.unstage())
	// What the RDS says now wins over what the PersistentVolume remembers; the StorageClass decides on timeouts.
	s.must(s.stage(func(r *csi.NodeStageVolumeRequest) {
		r.VolumeContext = map[string]string{"nvmeAddress": "10.0.0.1", "nvmePort": "1", "ctrlLossTimeout": "-1"}
	}))
	if asked.target.Address != "10.42.68.1" || asked.target.Port != 4420 || asked.options.CtrlLossTimeout >= 0 {
		t.Errorf("%+v, %+v", asked.target, asked.options)
	}
	// A capability without a file system leaves the choice to the StorageClass.
	s = newNodeScene(t)
	s.must(s.stage(func(r *csi.NodeStageVolumeRequest) { r.VolumeContext = map[string]string{"fsType": "xfs"} }))
	if m, _, _ := s.kernel.Mounted(s.staging); m.FSType != "xfs" {
		t.Errorf("holds %s", m.FSType)
	}
}

// What was made from a snapshot and reads as zeros has lost its data: a new file system would hide it.
func TestWhatWasRestoredIsNotFormatted(t *testing.T) {
	s := newNodeScene(t)
	restored := func(r *csi.NodeStageVolumeRequest) {
		r.VolumeContext = map[string]string{"source": "snapshot rds1/snap-1"}
	}
	wants(t, s.stage(restored), codes.FailedPrecondition, "rds1/")
	s.is(0, 0, 0)
	s.must(s.stage())
	s.must(s.stage(restored))
}

// told keeps how a volume is to be mounted.
type told struct {
	*drivertest.Kernel
	device  filesystem.Device
	options []string
}

func (f *told) Stage(ctx context.Context, dev filesystem.Device, target, fsType string, options []string) error {
	f.device, f.options = dev, options
	return f.Kernel.Stage(ctx, dev, target, fsType, options)
}

// B24: what the claim asks for reaches the mount as it is; nothing is added to it or taken from it here.
func TestMountOptionsAreHonoured_B24(t *testing.T) {
	s := newNodeScene(t)
	files := &told{Kernel: s.kernel}
	s.Node = driver.NewNode(driver.NodeConfig{NodeID: "node-a", Initiator: s.kernel, Filesystem: files, Mounts: s.kernel.Mounts, Logger: slog.New(slog.DiscardHandler)})
	asked := []string{"discard", "nouuid", "noatime", "exec"}
	s.must(s.stage(func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability.GetMount().MountFlags = asked }))
	ns, err := s.kernel.Find(s.nqn)
	if err != nil || !slices.Equal(files.options, asked) || files.device.Minor != ns.Minor || files.device.SizeBytes != gib {
		t.Errorf("mounted %+v with %v, %v", files.device, files.options, err)
	}
}
