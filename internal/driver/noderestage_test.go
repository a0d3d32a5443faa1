package driver_test

import (
	"context"
	"errors"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/driver/drivertest"
	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// fromKubelet publishes as kubelet does: with everything that a stage needs.
func (s *nodeScene) fromKubelet() error {
	return s.publish(func(r *csi.NodePublishVolumeRequest) { r.PublishContext = s.stageRequest().PublishContext })
}

// healthy proves that what is mounted everywhere is the device that the volume is now.
func (s *nodeScene) healthy(paths ...string) {
	s.t.Helper()
	ns, err := s.kernel.Find(s.nqn)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range paths {
		if m, ok, _ := s.kernel.Mounted(path); !ok || m.Minor != ns.Minor || s.kernel.MountsAt(path) != 1 {
			s.t.Errorf("%s: %d mounts, of %d; the volume is %d", path, s.kernel.MountsAt(path), m.Minor, ns.Minor)
		}
	}
	if f := s.kernel.Counters().Formats; f != 1 {
		s.t.Errorf("formatted %d times", f)
	}
}

// The device was lost for good while no pod had it: kubelet publishes without staging, and that has to do.
func TestLostDeviceIsStagedAnew(t *testing.T) {
	for name, lose := range map[string]func(*nodeScene){
		"no path left":         func(s *nodeScene) { s.kernel.Lose(s.nqn) },
		"under another number": func(s *nodeScene) { s.kernel.Renumber(s.nqn) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newNodeScene(t)
			s.must(s.stage())
			lose(s)
			s.must(s.fromKubelet())
			s.healthy(s.staging, s.target)
			s.must(s.unpublish(s.target))
			lose(s)
			s.must(s.stage())
			s.healthy(s.staging)
			if d := s.kernel.Counters().Disconnects; d != 0 {
				t.Errorf("%d disconnects", d)
			}
		})
	}
}

// Never under a pod, never under a device that lives, never on a guess; what is there stays there.
func TestLostDeviceStaysWhereItMust(t *testing.T) {
	for name, c := range map[string]struct {
		disturb func(*nodeScene)
		code    codes.Code
		words   string
	}{
		"a pod has it": {func(s *nodeScene) {
			s.must(s.publish())
			s.kernel.Lose(s.nqn)
		}, codes.FailedPrecondition, "stop the pods that use it"},
		"a pod has a directory of it": {func(s *nodeScene) {
			s.kernel.BindElsewhere(s.staging, s.target+"-subpath")
			s.kernel.Lose(s.nqn)
		}, codes.FailedPrecondition, "subpath"},
		"a live device over it": {func(s *nodeScene) { s.kernel.MountOver(s.staging, "ext4") }, codes.FailedPrecondition, "is device"},
		"sysfs unreadable":      {func(s *nodeScene) { s.kernel.Fail(drivertest.Find, errors.New("sysfs")) }, codes.Internal, "sysfs"},
		"devices unreadable": {func(s *nodeScene) {
			s.kernel.Lose(s.nqn)
			s.kernel.Fail(drivertest.Present, errors.New("sysfs"))
		}, codes.Unavailable, "cannot be told"},
		"mounts unreadable": {func(s *nodeScene) {
			s.kernel.Lose(s.nqn)
			s.kernel.Fail(drivertest.Mounts, errors.New("mountinfo"))
		}, codes.Unavailable, "mountinfo"},
		"the RDS is away": {func(s *nodeScene) {
			s.kernel.Lose(s.nqn)
			s.kernel.Fail(drivertest.Connect, nvme.ErrRefused)
		}, codes.Unavailable, "connect failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNodeScene(t)
			s.must(s.stage())
			c.disturb(s)
			before, pods := s.kernel.MountsAt(s.staging), s.kernel.MountsAt(s.target)
			wants(t, s.fromKubelet(), c.code, c.words)
			wants(t, s.stage(), c.code, c.words)
			if s.kernel.MountsAt(s.staging) != before || s.kernel.MountsAt(s.target) != pods {
				t.Error("something was unmounted or mounted")
			}
			if n := s.kernel.Counters(); n.Disconnects != 0 || n.Connects != 1 {
				t.Errorf("%+v", n)
			}
		})
	}
}

// Cut off after its unmount, a restage is finished by the next publish: kubelet takes the volume for staged.
func TestCutOffRestageIsFinished(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.kernel.Lose(s.nqn)
	s.kernel.Fail(drivertest.Stage, filesystem.ErrMount)
	wants(t, s.fromKubelet(), codes.Internal)
	if s.kernel.MountsAt(s.staging)+s.kernel.MountsAt(s.target) != 0 {
		t.Error("something is mounted")
	}
	s.kernel.Fail(drivertest.Stage, nil)
	s.must(s.fromKubelet())
	s.healthy(s.staging, s.target)
}

// holding is a process that keeps the dead mount busy.
type holding struct{ *drivertest.Kernel }

func (holding) Unmount(context.Context, string) error { return filesystem.ErrBusy }

func TestDeadMountThatIsBusyIsRefused(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.kernel.Lose(s.nqn)
	s.Node = newNodeOver(s.kernel, holding{s.kernel}, s.kernel)
	wants(t, s.fromKubelet(), codes.FailedPrecondition)
	if s.kernel.MountsAt(s.staging) != 1 || s.kernel.MountsAt(s.target) != 0 {
		t.Error("mounted over it")
	}
}
