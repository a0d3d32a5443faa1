package driver_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// A standby decides nothing and says who does; what only reads is served.
func TestStandbyDecidesNothing(t *testing.T) {
	s := newScene(t, attach.Standalone())
	v := s.create("pvc-1")
	id := v.GetVolumeId()
	if _, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a")); err != nil {
		t.Fatal(err)
	}
	leader := "rds-csi-controller-1"
	s.Lead = func() error { return driver.Standby(leader) }
	create := func() error {
		_, err := s.CreateVolume(t.Context(), createRequest("pvc-2", gib))
		return err
	}
	wants(t, create(), codes.Unavailable, leader)
	_, err := s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	wants(t, err, codes.Unavailable, leader, id)
	_, err = s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a"))
	wants(t, err, codes.Unavailable, leader, id)
	_, err = s.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: "node-a"})
	wants(t, err, codes.Unavailable, leader, id)
	if n := len(s.rds.Disks(t)); n != 1 {
		t.Errorf("there are %d disks", n)
	}
	if nodes := s.ledger.Nodes(id); len(nodes) != 1 {
		t.Errorf("the ledger says %v", nodes)
	}

	list, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil || len(list.GetEntries()) != 1 {
		t.Errorf("ListVolumes = %v, %v", list, err)
	}
	_, err = s.GetCapacity(t.Context(), &csi.GetCapacityRequest{})
	wants(t, err, codes.OK)
	_, err = s.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: id, VolumeContext: v.GetVolumeContext(), VolumeCapabilities: []*csi.VolumeCapability{writer()},
	})
	wants(t, err, codes.OK)

	leader = ""
	wants(t, create(), codes.Unavailable, "no controller leads yet")
	s.Lead = func() error { return nil }
	wants(t, create(), codes.OK)
}

func TestProbeOfAStandby(t *testing.T) {
	var lead error
	i := &driver.Identity{Ready: func(context.Context) error { return nil }, Lead: func() error { return lead }}
	for _, lead = range []error{nil, driver.Standby("other"), nil} {
		reply, err := i.Probe(t.Context(), &csi.ProbeRequest{})
		if err != nil || reply.GetReady().GetValue() != (lead == nil) {
			t.Errorf("%v, %v while the leadership is %v", reply, err, lead)
		}
	}
}

// Users hear of a refusal that they must lift, and of nothing that passes by itself.
func TestRefusalsAreTold(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	s := newScene(t, ledger)
	id := s.create("pvc-1").GetVolumeId()
	type refusal struct{ volume, message string }
	var told []refusal
	s.Refused = func(volume, message string) { told = append(told, refusal{volume, message}) }
	publish := func(node string) error {
		_, err := s.ControllerPublishVolume(t.Context(), publishRequest(strings.TrimPrefix(id, "rds1/"), node))
		return err
	}
	of := func(node string, attached bool) attach.Attachment {
		return attach.Attachment{UID: "uid-" + node, Name: "csi-" + node, Volume: id, Node: node, Attached: attached, Created: time.Unix(1_700_000_000, 0)}
	}
	wants(t, publish("node-a"), codes.Unavailable)
	ledger.Replace(nil)
	ledger.ReplaceNodes(nil)
	wants(t, publish("node-a"), codes.NotFound)
	ledger.Upsert(of("node-a", true))
	s.rds.Fail(appliancetest.Export, errors.New("broken"))
	wants(t, publish("node-a"), codes.Internal)
	if len(told) > 0 {
		t.Errorf("told %v of what passes by itself", told)
	}
	ledger.Upsert(of("node-b", false))
	wants(t, publish("node-b"), codes.FailedPrecondition)
	if len(told) != 1 || told[0].volume != id || !strings.Contains(told[0].message, "node-a") || !strings.Contains(told[0].message, "node-b") {
		t.Errorf("told %v; want the canonical volume and both nodes", told)
	}
	s.Refused = nil
	wants(t, publish("node-b"), codes.FailedPrecondition)
}

// A virtual machine that did not migrate in time is the user's to cancel.
func TestAnExpiredMigrationIsTold(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	s := newScene(t, ledger)
	id := s.create("pvc-1").GetVolumeId()
	of := func(node string, attached bool) attach.Attachment {
		return attach.Attachment{
			UID: "uid-" + node, Name: "csi-" + node, Volume: id, Node: node, Attached: attached,
			Mode: attach.MultiNode, MigrationTimeout: time.Minute, Created: time.Unix(1_700_000_000, 0),
		}
	}
	ledger.ReplaceNodes(nil)
	ledger.Replace([]attach.Attachment{of("node-a", true), of("node-b", false)})
	var told []string
	s.Refused = func(_, message string) { told = append(told, message) }
	req := publishRequest(id, "node-b")
	req.VolumeCapability = &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
	_, err := s.ControllerPublishVolume(t.Context(), req)
	wants(t, err, codes.FailedPrecondition, "node-a", "node-b")
	if len(told) != 1 || !strings.Contains(told[0], "migration") {
		t.Errorf("told %q", told)
	}
}
