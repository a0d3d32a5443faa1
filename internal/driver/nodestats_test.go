package driver_test

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/driver/drivertest"
	"github.com/rds-csi/rds-csi/internal/filesystem"
)

func (s *nodeScene) stats(volume, path string) (map[csi.VolumeUsage_Unit]*csi.VolumeUsage, error) {
	reply, err := s.NodeGetVolumeStats(s.t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: volume, VolumePath: path})
	usage := map[csi.VolumeUsage_Unit]*csi.VolumeUsage{}
	for _, u := range reply.GetUsage() {
		usage[u.GetUnit()] = u
	}
	return usage, err
}

func TestStats(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.must(s.publish())
	for _, live := range []bool{true, false} { // it is asked while the RDS reboots as well
		s.kernel.SetLive(s.nqn, live)
		for _, path := range []string{s.staging, s.target, s.target + "/"} {
			u, err := s.stats(s.volume, path)
			b, i := u[csi.VolumeUsage_BYTES], u[csi.VolumeUsage_INODES]
			if err != nil || b.GetTotal() != gib || b.GetUsed() != gib/2 || b.GetAvailable() != gib/2 || i.GetTotal() != 100 || i.GetUsed() != 10 || i.GetAvailable() != 90 {
				t.Errorf("%s: %v, %v", path, u, err)
			}
		}
	}
	s = newNodeScene(t)
	s.must(s.stageRaw(oneWriter))
	s.must(s.publishRaw(s.target, oneWriter, false))
	if u, err := s.stats(s.volume, s.target); err != nil || len(u) != 1 || u[csi.VolumeUsage_BYTES].GetTotal() != gib {
		t.Errorf("raw: %v, %v", u, err)
	}
}

func TestStatsOfWhatIsNotThere(t *testing.T) {
	s := newNodeScene(t)
	s.must(s.stage())
	s.must(s.publish())
	for name, c := range map[string]struct {
		volume, path string
		code         codes.Code
	}{
		"no volume":       {"", s.target, codes.InvalidArgument},
		"no path":         {s.volume, "", codes.InvalidArgument},
		"a relative path": {s.volume, "some/path", codes.NotFound},
		"nothing there":   {s.volume, s.target + "2", codes.NotFound},
		"another volume":  {"rds1/pvc-other", s.target, codes.NotFound},
	} {
		if _, err := s.stats(c.volume, c.path); true {
			t.Run(name, func(t *testing.T) { wants(t, err, c.code) })
		}
	}
	s.kernel.Fail(drivertest.Usage, filesystem.ErrTimeout)
	_, err := s.stats(s.volume, s.target)
	wants(t, err, codes.DeadlineExceeded, s.volume, "node-a")
	s.kernel.Fail(drivertest.Usage, nil)
	s.kernel.Lose(s.nqn)
	_, err = s.stats(s.volume, s.target)
	wants(t, err, codes.NotFound, "stop the pods")
}
