package driver_test

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/sim"
)

func expandRequest(volume string, size int64) *csi.ControllerExpandVolumeRequest {
	return &csi.ControllerExpandVolumeRequest{VolumeId: volume, CapacityRange: &csi.CapacityRange{RequiredBytes: size}}
}

// A volume grows whether a node has it or not, and never shrinks; the size answered is the one on the RDS (B12).
func TestExpand_B12(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	for _, c := range []struct{ ask, limit, want int64 }{
		{2 * gib, 0, 2 * gib},
		{2 * gib, 0, 2 * gib}, // the reply may have been lost
		{gib, 0, 2 * gib},
		{2*gib + 1, 0, 2*gib + mib},
		{3*gib + 1, 3*gib + 5000, 3*gib + 4096},
		{0, 4 * gib, 3*gib + 4096},
	} {
		reply, err := s.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
			VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: c.ask, LimitBytes: c.limit},
		})
		if err != nil || reply.GetCapacityBytes() != c.want || !reply.GetNodeExpansionRequired() {
			t.Errorf("[%d, %d]: %v, %v; want %d bytes, and the node asked", c.ask, c.limit, reply, err, c.want)
		}
		if disk := s.rds.Disks(t)[strings.TrimPrefix(id, "rds1/")]; disk.SizeBytes != c.want {
			t.Errorf("[%d, %d]: on the rds are %d bytes", c.ask, c.limit, disk.SizeBytes)
		}
		_, err = s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a"))
		wants(t, err, codes.OK)
	}
	for _, can := range []*csi.VolumeCapability{writer(), raw(oneWriter), raw(manyWrite)} {
		req := expandRequest(id, 4*gib)
		req.VolumeCapability = can
		reply, err := s.ControllerExpandVolume(t.Context(), req)
		if err != nil || !reply.GetNodeExpansionRequired() {
			t.Errorf("%v: %v, %v", can, reply, err)
		}
	}
	published, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a"))
	if err != nil || published.GetPublishContext()["sizeBytes"] != "4294967296" {
		t.Errorf("a node is told %v, %v", published, err)
	}
}

func TestExpandRefuses(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	s.rds.PutDisk(t, appliancetest.Disk{Slot: "pvc-foreign", Cluster: "another", Path: "/storage-pool/k8s/pvc-foreign.img", SizeBytes: gib})
	for name, c := range map[string]struct {
		id              string
		required, limit int64
		code            codes.Code
		word            string
	}{
		"no volume":         {"", gib, 0, codes.InvalidArgument, "volume id"},
		"no range":          {id, 0, 0, codes.InvalidArgument, "capacity range"},
		"a negative size":   {id, -1, 0, codes.InvalidArgument, "negative"},
		"limit below need":  {id, 2 * gib, gib, codes.OutOfRange, "limit"},
		"never smaller":     {id, 0, gib / 2, codes.OutOfRange, ""},
		"no size fits":      {id, 2*gib + 1, 2*gib + 2, codes.OutOfRange, ""},
		"larger than pool":  {id, 200 * gib, 0, codes.ResourceExhausted, "no space"},
		"no handle of ours": {"Not A Handle", gib, 0, codes.NotFound, "handle"},
		"no such volume":    {"rds1/pvc-none", gib, 0, codes.NotFound, "pvc-none"},
		"no such rds":       {"rds9/pvc-none", gib, 0, codes.FailedPrecondition, "rds9"},
		"somebody else's":   {"rds1/pvc-foreign", 2 * gib, 0, codes.FailedPrecondition, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
				VolumeId: c.id, CapacityRange: &csi.CapacityRange{RequiredBytes: c.required, LimitBytes: c.limit},
			})
			wants(t, err, c.code, c.word)
		})
	}
	for _, d := range s.rds.Disks(t) {
		if d.SizeBytes != gib {
			t.Errorf("%s has %d bytes", d.Slot, d.SizeBytes)
		}
	}
	req := expandRequest(id, 2*gib)
	req.VolumeCapability = capability(manyWrite, "")
	_, err := s.ControllerExpandVolume(t.Context(), req)
	wants(t, err, codes.InvalidArgument)
	s.rds.Fail(appliancetest.Expand, appliance.ErrUnavailable)
	_, err = s.ControllerExpandVolume(t.Context(), expandRequest(id, 2*gib))
	wants(t, err, codes.Unavailable)
}

// Only the leader grows, and no two calls for one volume meet.
func TestExpandIsLockedAndLed(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	release := s.rds.Hold(appliancetest.Expand)
	first := make(chan error, 1)
	go func() {
		_, err := s.ControllerExpandVolume(t.Context(), expandRequest(id, 2*gib))
		first <- err
	}()
	waitFor(t, func() bool { return s.rds.Calls(appliancetest.Expand) == 1 })
	_, err := s.ControllerExpandVolume(t.Context(), expandRequest(strings.TrimPrefix(id, "rds1/"), 2*gib))
	wants(t, err, codes.Aborted)
	release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	s.Lead = func() error { return driver.Standby("other") }
	_, err = s.ControllerExpandVolume(t.Context(), expandRequest(id, 3*gib))
	wants(t, err, codes.Unavailable, "other")
	if n := s.rds.Calls(appliancetest.Expand); n != 1 {
		t.Errorf("the rds was asked %d times", n)
	}
}

// A full pool is the user's to hear about, and the volume stays as it was.
func TestExpandOnAFullPool(t *testing.T) {
	r := start(t, sim.Options{})
	id := r.create("pvc-1")
	wants(t, r.expand(t.Context(), id, 1<<50), codes.ResourceExhausted)
	if disk := r.server.Device.Disks()[0]; disk.FileSize != 64*mib {
		t.Errorf("the disk has %d bytes", disk.FileSize)
	}
	wants(t, r.expand(t.Context(), id, 65*mib), codes.OK)
}

func TestPluginCapabilities(t *testing.T) {
	reply, err := (&driver.Identity{}).GetPluginCapabilities(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var online bool
	for _, c := range reply.GetCapabilities() {
		online = online || c.GetVolumeExpansion().GetType() == csi.PluginCapability_VolumeExpansion_ONLINE
	}
	if !online {
		t.Errorf("%v does not say that volumes grow while they are used", reply)
	}
}
