package driver_test

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/driver/drivertest"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

func raw(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	c := capability(mode, "")
	c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	return c
}

const (
	oneWriter  = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	onePod     = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	oneReader  = csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
	manyRead   = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	manyWrite  = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	oneOfMany  = csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER
	manyInOne  = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	noSuchMode = csi.VolumeCapability_AccessMode_UNKNOWN
)

func (s *nodeScene) stageRaw(mode csi.VolumeCapability_AccessMode_Mode) error {
	return s.stage(func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability = raw(mode) })
}

func (s *nodeScene) publishRaw(target string, mode csi.VolumeCapability_AccessMode_Mode, readonly bool) error {
	return s.publish(func(r *csi.NodePublishVolumeRequest) {
		r.TargetPath, r.VolumeCapability, r.Readonly = target, raw(mode), readonly
		r.PublishContext = s.stageRequest().PublishContext
	})
}

func TestLifeOfARawVolume(t *testing.T) {
	for _, mode := range []csi.VolumeCapability_AccessMode_Mode{oneWriter, onePod, manyInOne, oneReader, manyRead, manyWrite} {
		t.Run(mode.String(), func(t *testing.T) {
			s := newNodeScene(t)
			for range 3 {
				s.must(s.stageRaw(mode))
			}
			for range 3 {
				s.must(s.publishRaw(s.target, mode, false))
			}
			s.must(s.stageRaw(mode)) // kubelet was restarted
			s.is(1, 1, 1)
			if n := s.kernel.Counters(); n.Formats != 0 || n.Connects != 1 {
				t.Errorf("%+v", n)
			}
			if ro := s.kernel.ReadOnly(s.nqn); ro != (mode == oneReader || mode == manyRead) {
				t.Errorf("read-only: %v", ro)
			}
			for range 2 {
				s.must(s.unpublish(s.target))
			}
			for range 2 {
				s.must(s.unstage())
			}
			s.is(0, 0, 0)
		})
	}
	s := newNodeScene(t)
	for _, mode := range []csi.VolumeCapability_AccessMode_Mode{oneOfMany, noSuchMode} {
		wants(t, s.stageRaw(mode), codes.InvalidArgument)
	}
	wants(t, s.stage(func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability = capability(manyWrite, "") }), codes.InvalidArgument)
	s.is(0, 0, 0)
}

// A raw volume is never formatted, and never both.
func TestRawVolumeIsNoFileSystem(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stageRaw(oneWriter))
	wants(t, s.stage(), codes.AlreadyExists, "nothing is formatted")
	wants(t, s.publish(), codes.AlreadyExists)
	wants(t, s.stage(func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath += "-2" }), codes.FailedPrecondition, s.staging)
	s.is(1, 1, 0)
	if n := s.kernel.Counters(); n.Formats != 0 || n.Disconnects != 0 {
		t.Errorf("%+v", n)
	}

	s = newNodeScene(t)
	s.must(s.stage())
	wants(t, s.stageRaw(oneWriter), codes.AlreadyExists)
	wants(t, s.publishRaw(s.target, oneWriter, false), codes.AlreadyExists)
	wants(t, s.stage(func(r *csi.NodeStageVolumeRequest) {
		r.VolumeCapability, r.StagingTargetPath = raw(oneWriter), s.staging+"-2"
	}), codes.FailedPrecondition, s.staging)
	s.is(1, 1, 0)
}

// Read-only is a property of the device: who needs it otherwise than a pod that has it is told so.
func TestRawReadOnlyIsForAllPodsOfTheNode(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stageRaw(oneWriter))
	s.must(s.publishRaw(s.target, oneWriter, false))
	wants(t, s.publishRaw(s.target+"2", oneWriter, true), codes.FailedPrecondition, s.target)
	wants(t, s.publishRaw(s.target, oneWriter, true), codes.AlreadyExists)
	if s.kernel.ReadOnly(s.nqn) {
		t.Error("a pod that writes was cut off")
	}
	s.must(s.unpublish(s.target))
	s.must(s.publishRaw(s.target, oneWriter, true))
	s.must(s.publishRaw(s.target+"2", oneWriter, true))
	wants(t, s.publishRaw(s.target+"3", oneWriter, false), codes.FailedPrecondition)
	if !s.kernel.ReadOnly(s.nqn) {
		t.Error("the pods can write")
	}
	s.must(s.unpublish(s.target))
	s.must(s.unpublish(s.target + "2"))
	s.must(s.publishRaw(s.target, oneWriter, false))
	if s.kernel.ReadOnly(s.nqn) {
		t.Error("the pod cannot write")
	}
}

func TestRawSingleWriter(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stageRaw(onePod))
	s.must(s.publishRaw(s.target, onePod, false))
	s.kernel.BindElsewhere(s.target, s.target+"-kubelet") // it binds what is published once more
	s.must(s.publishRaw(s.target, onePod, false))
	wants(t, s.publishRaw(s.target+"2", onePod, false), codes.FailedPrecondition, s.target)
	wants(t, s.unstage(), codes.FailedPrecondition, s.target)
	s.must(s.unpublish(s.target))
	wants(t, s.unstage(), codes.FailedPrecondition, "-kubelet")
	s.is(1, 1, 0)
}

// The number of a device that is gone is free, since a device file holds no device: what is staged is made anew, unless
// a pod has it. kubelet publishes without staging again.
func TestRawVolumeUnderAnotherNumber(t *testing.T) {
	for name, lose := range map[string]func(*nodeScene){
		"lost":       func(s *nodeScene) { s.kernel.Lose(s.nqn) },
		"renumbered": func(s *nodeScene) { s.kernel.Renumber(s.nqn) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newNodeScene(t)
			s.must(s.stageRaw(oneWriter))
			lose(s)
			s.must(s.publishRaw(s.target, oneWriter, false))
			ns, err := s.kernel.Find(s.nqn)
			s.must(err)
			for _, path := range []string{s.staging, s.target} {
				if m, ok, _ := s.kernel.Mounted(path); !ok || m.Minor != ns.Minor || s.kernel.MountsAt(path) != 1 {
					t.Errorf("%s: %+v, the device is %d", path, m, ns.Minor)
				}
			}
			lose(s)
			wants(t, s.publishRaw(s.target+"2", oneWriter, false), codes.FailedPrecondition, s.target, "stop the pods")
			wants(t, s.publishRaw(s.target, oneWriter, false), codes.FailedPrecondition)
			wants(t, s.stageRaw(oneWriter), codes.FailedPrecondition)
			s.is(1, 1, 1)
		})
	}
	s := newNodeScene(t)
	s.must(s.stageRaw(oneWriter))
	s.kernel.SetLive(s.nqn, false) // the RDS reboots: the device is the same
	s.must(s.publishRaw(s.target, oneWriter, false))
	s.must(s.stageRaw(oneWriter))
	s.is(1, 1, 1)
}

func TestFailedRawStageLeavesNoConnection(t *testing.T) {
	s := newNodeScene(t)
	s.kernel.Fail(drivertest.Stage, nvme.ErrTimeout)
	wants(t, s.stageRaw(oneWriter), codes.DeadlineExceeded)
	s.is(0, 0, 0)
}

func TestReadersOnly(t *testing.T) {
	for _, mode := range []csi.VolumeCapability_AccessMode_Mode{oneReader, manyRead} {
		s := newNodeScene(t)
		read := func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability = capability(mode, "") }
		wants(t, s.stage(read), codes.FailedPrecondition, "blank")
		s.is(0, 0, 0)
		s.must(s.stage())
		wants(t, s.stage(read), codes.AlreadyExists, "writable")
		s.must(s.unstage())
		s.must(s.stage(read))
		s.must(s.stage(read))
		s.must(s.publish(func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = capability(mode, "") }))
		for _, path := range []string{s.staging, s.target} {
			if m, _, _ := s.kernel.Mounted(path); !m.ReadOnly {
				t.Errorf("%s: %s is writable", mode, path)
			}
		}
		if !s.kernel.ReadOnly(s.nqn) {
			t.Errorf("%s: the device is writable", mode)
		}
	}
}
