package driver_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/driver/drivertest"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// B2: published twice is one mount; and where two are stacked all the same, unpublish removes both and no file.
func TestRepeatedPublishStacksNothing_B2(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	for range 3 {
		s.must(s.publish())
	}
	s.is(1, 1, 1)
	s.kernel.StackAgain(s.target)
	s.is(1, 1, 2)
	s.must(s.unpublish(s.target))
	s.is(1, 1, 0)
	s.must(s.unpublish(s.target))
}

func TestPublishRefusesOnTheNode(t *testing.T) {
	s := newNodeScene(t)
	wants(t, s.publish(), codes.FailedPrecondition, "stage the volume first")
	s.must(s.stage())
	for name, c := range map[string]struct {
		change func(*csi.NodePublishVolumeRequest)
		code   codes.Code
	}{
		"no volume":     {func(r *csi.NodePublishVolumeRequest) { r.VolumeId = "" }, codes.InvalidArgument},
		"no target":     {func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "" }, codes.InvalidArgument},
		"no capability": {func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = nil }, codes.InvalidArgument},
		"no staging":    {func(r *csi.NodePublishVolumeRequest) { r.StagingTargetPath = "" }, codes.FailedPrecondition},
		"another's":     {func(r *csi.NodePublishVolumeRequest) { r.VolumeId = "rds1/pvc-other" }, codes.FailedPrecondition},
		"block": {func(r *csi.NodePublishVolumeRequest) {
			r.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		}, codes.AlreadyExists},
	} {
		t.Run(name, func(t *testing.T) {
			wants(t, s.publish(c.change), c.code)
			s.is(1, 1, 0)
		})
	}
}

// B9 and rule 21: the device behind the staging path is proved again at every publish.
func TestPublishProvesTheDeviceAgain_B9(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.kernel.Renumber(s.nqn)
	wants(t, s.publish(), codes.FailedPrecondition, "is device")
	s.is(1, 1, 0)

	s = newNodeScene(t)
	s.must(s.stage())
	s.kernel.MountOver(s.staging, "ext4")
	wants(t, s.publish(), codes.FailedPrecondition)

	s = newNodeScene(t)
	s.must(s.stage())
	s.kernel.SetLive(s.nqn, false) // the RDS reboots: the device is the same, its I/O waits
	s.must(s.publish())
}

func TestReadOnlyIsHonoured(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.must(s.publish(func(r *csi.NodePublishVolumeRequest) { r.Readonly = true }))
	if m, _, _ := s.kernel.Mounted(s.target); !m.ReadOnly {
		t.Error("the pod can write")
	}
	wants(t, s.publish(), codes.AlreadyExists)
	s.must(s.unpublish(s.target))
	s.must(s.publish(func(r *csi.NodePublishVolumeRequest) {
		r.VolumeCapability = capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY, "")
	}))
	if m, _, _ := s.kernel.Mounted(s.target); !m.ReadOnly {
		t.Error("the pod can write")
	}
}

// ReadWriteOncePod is one pod; ReadWriteOnce is one node with as many pods as there are.
func TestSingleWriter(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	at := func(target string, mode csi.VolumeCapability_AccessMode_Mode) error {
		return s.publish(func(r *csi.NodePublishVolumeRequest) { r.TargetPath, r.VolumeCapability = target, capability(mode, "") })
	}
	s.must(at(s.target, csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER))
	s.must(at(s.target, csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER))
	wants(t, at(s.target+"2", csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER), codes.FailedPrecondition, s.target)
	s.kernel.BindElsewhere(s.target, s.target+"-subpath") // kubelet's, for a container of the same pod
	s.must(at(s.target, csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER))
	s.must(s.unpublish(s.target))
	wants(t, at(s.target+"2", csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER), codes.FailedPrecondition, "subpath") // the pod is not gone
	s.must(at(s.target+"2", csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER))
	s.kernel.Fail(drivertest.Mounts, errors.New("mountinfo"))
	wants(t, at(s.target+"3", csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER), codes.Internal)
}

// B7: unstage fails until the device is gone, and never disconnects what somebody else still has mounted.
func TestUnstageFailsUntilTheDeviceIsGone_B7(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.must(s.publish())
	wants(t, s.unstage(), codes.FailedPrecondition, s.target)
	s.is(1, 1, 1)
	s.must(s.unpublish(s.target))
	s.kernel.Fail(drivertest.Mounts, errors.New("mountinfo"))
	wants(t, s.unstage(), codes.Internal)
	s.is(1, 1, 0)
	s.kernel.Fail(drivertest.Mounts, nil)
	s.kernel.Fail(drivertest.Disconnect, nvme.ErrTimeout)
	wants(t, s.unstage(), codes.DeadlineExceeded, s.volume, "node-a")
	s.is(1, 0, 0)
	s.kernel.Fail(drivertest.Disconnect, nil)
	s.must(s.unstage())
	s.is(0, 0, 0)
	s.must(s.unstage())
}

// B7: sysfs that cannot be read is not "not connected".
func TestUnstageWithUnreadableSysfs_B7(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.kernel.Fail(drivertest.Find, errors.New("sysfs: input/output error"))
	s.kernel.Fail(drivertest.Disconnect, errors.New("sysfs: input/output error"))
	wants(t, s.unstage(), codes.Internal)
	s.is(1, 1, 0)
	s.kernel.Fail(drivertest.Find, nil)
	wants(t, s.unstage(), codes.Internal)
	s.is(1, 0, 0)
	s.kernel.Fail(drivertest.Disconnect, nil)
	s.must(s.unstage())
	s.is(0, 0, 0)
}

func TestUnstageOfADeadMount(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.kernel.Renumber(s.nqn)
	s.must(s.unstage())
	s.is(0, 0, 0)
	_, err := s.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: s.volume})
	wants(t, err, codes.InvalidArgument)
	_, err = s.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{StagingTargetPath: s.staging})
	wants(t, err, codes.InvalidArgument)
	wants(t, s.unpublish(""), codes.InvalidArgument)
	s.volume = ""
	wants(t, s.unpublish(s.target), codes.InvalidArgument)
}

// /var/lib/kubelet is a symbolic link on some hosts; the mount table knows none.
func TestPathsThroughSymbolicLinks(t *testing.T) {
	s := newNodeScene(t)
	link := filepath.Join(t.TempDir(), "kubelet")
	if err := os.Symlink(filepath.Dir(s.staging), link); err != nil {
		t.Fatal(err)
	}
	s.must(s.stage())
	s.must(s.publish())
	wants(t, s.publish(func(r *csi.NodePublishVolumeRequest) {
		r.TargetPath, r.VolumeCapability = s.target+"2", capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, "")
	}), codes.FailedPrecondition, s.target)
	s.must(s.unpublish(s.target))
	// The kernel in memory knows paths only as written; that the link is seen through shows in the refusal being absent.
	_, err := s.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: s.volume, StagingTargetPath: filepath.Join(link, "globalmount")})
	if driver.Code(err) == codes.FailedPrecondition && !errors.Is(err, nvme.ErrInUse) {
		t.Errorf("the staging path itself is in the way: %v", err)
	}
}

// One path in several spellings is one place.
func TestPathsAreCleaned(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage(func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath += "/" }))
	s.must(s.stage(func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath += "/./" }))
	s.must(s.publish(func(r *csi.NodePublishVolumeRequest) { r.StagingTargetPath += "//"; r.TargetPath += "/" }))
	s.is(1, 1, 1)
	s.must(s.unpublish(s.target + "/"))
	_, err := s.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: s.volume, StagingTargetPath: s.staging + "/"})
	s.must(err)
	s.is(0, 0, 0)
}

func TestNodeInfo(t *testing.T) {
	s := newNodeScene(t)
	info, err := s.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || info.GetNodeId() != "node-a" || info.GetMaxVolumesPerNode() != 0 {
		t.Errorf("%v, %v", info, err)
	}
	limited := driver.NewNode(driver.NodeConfig{NodeID: "node-a", MaxVolumes: 217})
	if info, err := limited.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{}); err != nil || info.GetMaxVolumesPerNode() != 217 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestKernelMountsReadsThisProcess(t *testing.T) {
	var proc, other int
	places, err := driver.KernelMounts(statOf(t, "/proc"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		switch p {
		case "/proc":
			proc++
		case "/":
			other++
		}
	}
	if proc == 0 || other != 0 {
		t.Errorf("/proc is said to be mounted at %v", places)
	}
}

func statOf(t *testing.T, path string) (major, minor uint32) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return unix.Major(st.Dev), unix.Minor(st.Dev)
}
