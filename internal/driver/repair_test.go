package driver_test

import (
	"context"
	"errors"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// What is attached is exported again, and nothing else is.
func TestRepair(t *testing.T) {
	lose := func(s *scene, slot string) {
		disk := s.rds.Disks(t)[slot]
		disk.Exported = false
		s.rds.PutDisk(t, disk)
	}
	for name, tt := range map[string]struct {
		before func(t *testing.T, s *scene, slot string)
		done   bool
		code   codes.Code
		export bool // at the end
	}{
		"attached":                     {func(*testing.T, *scene, string) {}, true, codes.OK, true},
		"detached since":               {func(_ *testing.T, s *scene, slot string) { s.ledger.Unpublish("rds1/"+slot, "node-a") }, false, codes.OK, false},
		"the rds is silent":            {func(_ *testing.T, s *scene, _ string) { s.rds.Fail(appliancetest.Export, appliance.ErrUnavailable) }, false, codes.Unavailable, false},
		"its answer is lost":           {func(_ *testing.T, s *scene, _ string) { s.rds.Fail(appliancetest.Export, appliance.ErrOutcomeUnknown) }, false, codes.Unavailable, false},
		"the rds refuses":              {func(_ *testing.T, s *scene, _ string) { s.rds.Fail(appliancetest.Export, appliance.ErrPermission) }, true, codes.PermissionDenied, false},
		"another controller decides":   {func(_ *testing.T, s *scene, _ string) { s.Lead = func() error { return driver.Standby("other") } }, false, codes.Unavailable, false},
		"it has become another's":      {func(t *testing.T, s *scene, slot string) { own(t, s, slot, "another") }, true, codes.FailedPrecondition, false},
		"the rds has mounted it since": {func(t *testing.T, s *scene, slot string) { mount(t, s, slot) }, true, codes.FailedPrecondition, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, attach.Standalone())
			slot := appliance.SlotFor(cluster, "pvc-1")
			if _, err := s.ControllerPublishVolume(t.Context(), publishRequest(s.create("pvc-1").GetVolumeId(), "node-a")); err != nil {
				t.Fatal(err)
			}
			lose(s, slot)
			tt.before(t, s, slot)
			done, err := s.Repair(t.Context(), "rds1/"+slot)
			wants(t, err, tt.code)
			if done != tt.done {
				t.Errorf("done: %t", done)
			}
			if got := s.rds.Disks(t)[slot].Exported; got != tt.export {
				t.Errorf("exported: %t", got)
			}
		})
	}
}

func own(t *testing.T, s *scene, slot, cluster string) {
	disk := s.rds.Disks(t)[slot]
	disk.Cluster = cluster
	s.rds.PutDisk(t, disk)
}

func mount(t *testing.T, s *scene, slot string) {
	disk := s.rds.Disks(t)[slot]
	disk.MountFilesystem, disk.Mounted = true, true
	s.rds.PutDisk(t, disk)
}

// A repair and a CSI call never work on one volume at once.
func TestRepairTakesTheVolumesLock(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	publish := func() error {
		_, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a"))
		return err
	}
	wants(t, publish(), codes.OK)
	calls := s.rds.Calls(appliancetest.Export)
	release := s.rds.Hold(appliancetest.Export)
	repaired := make(chan error, 1)
	go func() {
		_, err := s.Repair(t.Context(), id)
		repaired <- err
	}()
	waitFor(t, func() bool { return s.rds.Calls(appliancetest.Export) == calls+1 })
	wants(t, publish(), codes.Aborted, "Repair")
	_, err := s.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: "node-a"})
	wants(t, err, codes.Aborted)
	if done, err := s.Repair(t.Context(), id); done || err == nil {
		t.Errorf("a second repair of a busy volume: %t, %v", done, err)
	}
	release()
	if err := <-repaired; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if done, err := s.Repair(ctx, id); done || !errors.Is(err, appliance.ErrUnavailable) {
		t.Errorf("a repair that was cut off settled something: %t, %v", done, err)
	}
}
