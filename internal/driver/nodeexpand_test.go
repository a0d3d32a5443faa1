package driver_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/driver/drivertest"
)

// grow makes the volume larger on the RDS.
func (s *nodeScene) grow(size int64) {
	s.kernel.Target = func(nqn string) (int64, bool) { return size, nqn == s.nqn }
}

func (s *nodeScene) expand(size int64, change ...func(*csi.NodeExpandVolumeRequest)) (int64, error) {
	req := &csi.NodeExpandVolumeRequest{
		VolumeId: s.volume, VolumePath: s.target, StagingTargetPath: s.staging,
		CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	}
	for _, c := range change {
		c(req)
	}
	reply, err := s.NodeExpandVolume(s.t.Context(), req)
	return reply.GetCapacityBytes(), err
}

func TestNodeExpands(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	for name, change := range map[string]func(*csi.NodeExpandVolumeRequest){
		"staged":            func(r *csi.NodeExpandVolumeRequest) { r.VolumePath = s.staging },
		"published":         func(*csi.NodeExpandVolumeRequest) {},
		"no staging path":   func(r *csi.NodeExpandVolumeRequest) { r.StagingTargetPath = "" },
		"with a capability": func(r *csi.NodeExpandVolumeRequest) { r.VolumeCapability = writer() },
	} {
		s.must(s.publish())
		before := s.kernel.FilesystemBytes(s.nqn)
		s.grow(before + gib)
		for range 2 {
			if size, err := s.expand(before+gib, change); err != nil || size != before+gib || s.kernel.FilesystemBytes(s.nqn) != before+gib {
				t.Errorf("%s: %d, %v; the file system has %d", name, size, err, s.kernel.FilesystemBytes(s.nqn))
			}
		}
	}
	now := s.kernel.FilesystemBytes(s.nqn)
	for _, less := range []int64{0, gib} { // not required
		if size, err := s.expand(less); err != nil || size != now {
			t.Errorf("%d, %v", size, err)
		}
	}
	s.is(1, 1, 1)
}

func TestNodeExpandsARawVolume(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stageRaw(oneWriter))
	s.must(s.publishRaw(s.target, oneWriter, false))
	s.grow(2 * gib)
	for _, c := range []*csi.VolumeCapability{nil, raw(oneWriter)} {
		if size, err := s.expand(2*gib, func(r *csi.NodeExpandVolumeRequest) { r.VolumeCapability = c }); err != nil || size != 2*gib {
			t.Errorf("%d, %v", size, err)
		}
	}
	if s.kernel.FilesystemBytes(s.nqn) != 0 {
		t.Error("a file system was grown")
	}
	_, err := s.expand(2*gib, func(r *csi.NodeExpandVolumeRequest) { r.VolumeCapability = writer() })
	wants(t, err, codes.InvalidArgument)
}

// Never a success with the old size, and what is to be done is said.
func TestNodeExpandThatIsNotSeen(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.must(s.publish())
	_, err := s.expand(2 * gib) // before the volume has grown
	wants(t, err, codes.FailedPrecondition, "stop the pods")
	s.grow(2 * gib)
	s.kernel.HideGrowth()
	_, err = s.expand(2 * gib)
	wants(t, err, codes.FailedPrecondition, "stop the pods", s.volume, "node-a")
	s.kernel.SetLive(s.nqn, false)
	_, err = s.expand(2 * gib)
	wants(t, err, codes.Unavailable) // comes again by itself
	s.kernel.SetLive(s.nqn, true)
	if s.kernel.FilesystemBytes(s.nqn) != gib {
		t.Error("grown")
	}
	s.must(s.unpublish(s.target))
	s.must(s.unstage())
	s.must(s.stage())
	if size, err := s.expand(2 * gib); err != nil || size != 2*gib || s.kernel.FilesystemBytes(s.nqn) != 2*gib {
		t.Errorf("%d, %v", size, err)
	}
}

func TestNodeExpandRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*nodeScene, *csi.NodeExpandVolumeRequest)
		code   codes.Code
	}{
		"no volume":      {func(_ *nodeScene, r *csi.NodeExpandVolumeRequest) { r.VolumeId = "" }, codes.InvalidArgument},
		"no path":        {func(_ *nodeScene, r *csi.NodeExpandVolumeRequest) { r.VolumePath = "" }, codes.InvalidArgument},
		"a strange mode": {func(_ *nodeScene, r *csi.NodeExpandVolumeRequest) { r.VolumeCapability = capability(manyWrite, "") }, codes.InvalidArgument},
		"another volume": {func(_ *nodeScene, r *csi.NodeExpandVolumeRequest) { r.VolumeId = "rds1/pvc-other" }, codes.FailedPrecondition},
		"nothing there": {func(s *nodeScene, r *csi.NodeExpandVolumeRequest) {
			r.VolumePath, r.StagingTargetPath = s.target+"2", ""
		}, codes.NotFound},
		"a negative size": {func(_ *nodeScene, r *csi.NodeExpandVolumeRequest) { r.CapacityRange.RequiredBytes = -1 }, codes.OutOfRange},
		"a limit below":   {func(_ *nodeScene, r *csi.NodeExpandVolumeRequest) { r.CapacityRange.LimitBytes = 1 }, codes.OutOfRange},
		"another number":  {func(s *nodeScene, _ *csi.NodeExpandVolumeRequest) { s.kernel.Renumber(s.nqn) }, codes.FailedPrecondition},
		"sysfs unreadable": {func(s *nodeScene, _ *csi.NodeExpandVolumeRequest) {
			s.kernel.Fail(drivertest.Grown, errors.New("sysfs"))
		}, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNodeScene(t)
			s.must(s.stage())
			_, err := s.expand(gib, func(r *csi.NodeExpandVolumeRequest) { c.change(s, r) })
			wants(t, err, c.code)
		})
	}
}

// The volume grew while the connection of an aborted stage was left: the kernel is told to look again, and when that
// does not help, the failed stage takes the connection away and the next one sees the new size.
func TestStageOfAGrownVolumeOverAnOldConnection(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		s := newNodeScene(t)
		s.must(s.stageRaw(oneWriter))
		s.must(s.unstageOnlyPath())
		s.grow(2 * gib)
		if hidden {
			s.kernel.HideGrowth()
		}
		large := func(r *csi.NodeStageVolumeRequest) { r.PublishContext["sizeBytes"] = "2147483648" }
		err := s.stage(large)
		if hidden {
			wants(t, err, codes.FailedPrecondition, "not staged", "/disk set "+strings.TrimPrefix(s.nqn, "nqn.2000-02.com.mikrotik:")+" nvme-tcp-export=no")
			err = s.stage(large)
		}
		s.must(err)
		if s.kernel.FilesystemBytes(s.nqn) != 2*gib {
			t.Errorf("hidden %v: %d", hidden, s.kernel.FilesystemBytes(s.nqn))
		}
	}
}

// unstageOnlyPath leaves the connection, as a plugin that was killed in the middle does.
func (s *nodeScene) unstageOnlyPath() error { return s.kernel.Unmount(s.t.Context(), s.staging) }
