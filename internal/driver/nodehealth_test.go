package driver_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/driver/drivertest"
	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// health answers "STATUS Reason" of each entry.
func (s *nodeScene) health() ([]string, error) {
	s.t.Helper()
	reply, err := s.NodeGetVolumeHealth(s.t.Context(), &csi.NodeGetVolumeHealthRequest{
		VolumeId: s.volume, StagingTargetPath: s.staging, VolumePublishPath: s.target,
	})
	var got []string
	for _, e := range reply.GetVolumeHealth().GetHealthStatuses() {
		got = append(got, e.GetStatus().String()+" "+e.GetReason())
		if len(e.GetMessage()) < 40 || strings.Contains(e.GetReason(), " ") {
			s.t.Errorf("%s: %q is nothing to act on", e.GetReason(), e.GetMessage())
		}
	}
	if err == nil && reply.GetVolumeHealth().GetVolumeId() != s.volume {
		s.t.Errorf("of %q", reply.GetVolumeHealth().GetVolumeId())
	}
	return got, err
}

func TestVolumeHealth(t *testing.T) {
	for name, c := range map[string]struct {
		disturb func(*nodeScene)
		want    []string
	}{
		"healthy":            {func(*nodeScene) {}, nil},
		"the RDS is away":    {func(s *nodeScene) { s.kernel.SetLive(s.nqn, false) }, []string{"INACCESSIBLE SessionNotLive"}},
		"the kernel gave up": {func(s *nodeScene) { s.kernel.Lose(s.nqn) }, []string{"INACCESSIBLE ConnectionLost"}},
		"the export is off":  {func(s *nodeScene) { s.kernel.Fail(drivertest.Find, nvme.ErrNoNamespace) }, []string{"INACCESSIBLE DeviceGone"}},
		"two devices":        {func(s *nodeScene) { s.kernel.Fail(drivertest.Find, nvme.ErrIdentity) }, []string{"INACCESSIBLE DeviceAmbiguous"}},
		"never staged here":  {func(s *nodeScene) { s.kernel.Fail(drivertest.Find, nvme.ErrNotConnected) }, []string{"INACCESSIBLE ConnectionLost"}},
		"under another one":  {func(s *nodeScene) { s.kernel.Renumber(s.nqn) }, []string{"INACCESSIBLE DeviceReplaced"}},
		"not to be told":     {func(s *nodeScene) { s.kernel.Fail(drivertest.Examine, errors.New("sysfs")) }, []string{"DEGRADED NotExamined"}},
		"file system is ill": {func(s *nodeScene) { s.kernel.Ail(filesystem.Symptom{Ailment: filesystem.ErrorsRecorded}) }, []string{"DEGRADED FilesystemErrors"}},
		"read-only and noted": {func(s *nodeScene) {
			s.kernel.Ail(filesystem.Symptom{Ailment: filesystem.TurnedReadOnly}, filesystem.Symptom{Ailment: filesystem.ErrorsRecorded})
		}, []string{"INACCESSIBLE FilesystemReadOnly", "DEGRADED FilesystemErrors"}},
		"shut down": {func(s *nodeScene) { s.kernel.Ail(filesystem.Symptom{Ailment: filesystem.ShutDown}) }, []string{"INACCESSIBLE FilesystemShutDown"}},
		"shrunk":    {func(s *nodeScene) { s.kernel.Ail(filesystem.Symptom{Ailment: filesystem.LargerThanDevice}) }, []string{"DATA_LOSS DeviceTooSmall"}},
		"not grown": {func(s *nodeScene) { s.kernel.Ail(filesystem.Symptom{Ailment: filesystem.SmallerThanDevice}) }, []string{"DEGRADED FilesystemNotGrown"}},
		"silent":    {func(s *nodeScene) { s.kernel.Ail(filesystem.Symptom{Ailment: filesystem.NotAnswering}) }, []string{"INACCESSIBLE FilesystemNotAnswering"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNodeScene(t)
			s.must(s.stage())
			s.must(s.publish())
			c.disturb(s)
			if got, err := s.health(); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestVolumeHealthOfARawVolume(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stageRaw(oneWriter))
	s.must(s.publishRaw(s.target, oneWriter, false))
	if got, err := s.health(); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	s.kernel.Renumber(s.nqn)
	if got, err := s.health(); err != nil || !slices.Equal(got, []string{"INACCESSIBLE DeviceReplaced"}) {
		t.Errorf("%q, %v", got, err)
	}
	s.kernel.Lose(s.nqn)
	if got, err := s.health(); err != nil || !slices.Equal(got, []string{"INACCESSIBLE ConnectionLost"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// Unknown is neither healthy nor ill, and what is not here is not found.
func TestVolumeHealthThatIsNotKnown(t *testing.T) {
	s := newNodeScene(t)
	_, err := s.health()
	wants(t, err, codes.NotFound)
	s.must(s.stage())
	s.kernel.Fail(drivertest.Find, errors.New("sysfs"))
	_, err = s.health()
	wants(t, err, codes.Internal)
	s.kernel.Fail(drivertest.Find, nil)
	reply, err := s.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: s.volume}) // without paths
	if err != nil || len(reply.GetVolumeHealth().GetHealthStatuses()) != 0 {
		t.Errorf("%v, %v", reply, err)
	}
	s.kernel.Ail(filesystem.Symptom{Ailment: filesystem.ShutDown})
	reply, err = s.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: s.volume})
	if err != nil || len(reply.GetVolumeHealth().GetHealthStatuses()) != 1 {
		t.Errorf("%v, %v", reply, err)
	}
	for _, req := range []*csi.NodeGetVolumeHealthRequest{{}, {VolumeId: s.volume, StagingTargetPath: "x"}} {
		_, err := s.NodeGetVolumeHealth(t.Context(), req)
		wants(t, err, codes.InvalidArgument)
	}
}

func TestStorageHealth(t *testing.T) {
	s := newNodeScene(t)
	health := func() ([]string, error) {
		reply, err := s.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
		var got []string
		for _, e := range reply.GetBackendHealth() {
			got = append(got, e.GetStatus().String()+" "+e.GetReason())
			if !strings.Contains(e.GetMessage(), "node-a") {
				t.Errorf("%q", e.GetMessage())
			}
		}
		return got, err
	}
	check := func(want ...string) {
		t.Helper()
		if got, err := health(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	check()
	s.kernel.Target = func(string) (int64, bool) { return gib, true }
	s.must(s.stage())
	if _, err := s.kernel.Connect(t.Context(), nvme.Target{NQN: "nqn.2000-02.com.mikrotik:other"}, nvme.Options{}); err != nil {
		t.Fatal(err)
	}
	check()
	s.kernel.SetLive(s.nqn, false)
	check("STORAGE_DEGRADED SessionsNotLive")
	s.kernel.SetLive("nqn.2000-02.com.mikrotik:other", false)
	check("STORAGE_UNREACHABLE RDSUnreachable")
	s.kernel.Fail(drivertest.Sessions, nvme.ErrUnsupported)
	check("STORAGE_UNREACHABLE NVMeTCPMissing")
	s.kernel.Fail(drivertest.Sessions, errors.New("sysfs"))
	_, err := health()
	wants(t, err, codes.Internal)
}
