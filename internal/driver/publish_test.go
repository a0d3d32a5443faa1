package driver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

func TestPublishBringsWhatTheNodeNeeds(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	for range 2 { // the reply may have been lost
		reply, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a"))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"nqn": appliance.NQNFor(appliance.SlotFor(cluster, "pvc-1")), "nvmeAddress": "10.42.68.1", "nvmePort": "4420", "sizeBytes": fmt.Sprint(gib), "volume": id, "grantedMode": "SingleNode"}
		if fmt.Sprint(reply.GetPublishContext()) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", reply.GetPublishContext(), want)
		}
		// What the VolumeAttachment keeps must lead back to the volume.
		if handle, nodeUID, granted := driver.Published(reply.GetPublishContext()); handle != id || nodeUID != "" || granted != attach.GrantOf(attach.SingleNode) {
			t.Errorf("the publish context tells %q, node %q, granted %q", handle, nodeUID, granted)
		}
	}
}

func TestPublishRefuses(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	for name, c := range map[string]struct {
		change func(*csi.ControllerPublishVolumeRequest)
		code   codes.Code
	}{
		"no volume":       {func(r *csi.ControllerPublishVolumeRequest) { r.VolumeId = "" }, codes.InvalidArgument},
		"no node":         {func(r *csi.ControllerPublishVolumeRequest) { r.NodeId = "" }, codes.InvalidArgument},
		"no capability":   {func(r *csi.ControllerPublishVolumeRequest) { r.VolumeCapability = nil }, codes.InvalidArgument},
		"readonly":        {func(r *csi.ControllerPublishVolumeRequest) { r.Readonly = true }, codes.InvalidArgument},
		"a bad handle":    {func(r *csi.ControllerPublishVolumeRequest) { r.VolumeId = "A/B/C" }, codes.InvalidArgument},
		"an unknown slot": {func(r *csi.ControllerPublishVolumeRequest) { r.VolumeId = "rds1/pvc-none" }, codes.NotFound},
		"an unknown rds":  {func(r *csi.ControllerPublishVolumeRequest) { r.VolumeId = "rds9/pvc-none" }, codes.FailedPrecondition},
		"more than a node": {func(r *csi.ControllerPublishVolumeRequest) {
			r.VolumeCapability = capability(csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER, "")
		}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			req := publishRequest(id, "node-a")
			c.change(req)
			_, err := s.ControllerPublishVolume(t.Context(), req)
			wants(t, err, c.code)
			if nodes, err := s.ledger.InUse("rds1/pvc-none"); err != nil || len(nodes) > 0 {
				t.Errorf("a refused publish left its admission: %v, %v", nodes, err)
			}
		})
	}
}

// B3: a second node is refused, both are named, and no time opens the door; detaching does.
func TestSecondNodeIsRefused_B3(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	publish := func(id, node string) error {
		_, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, node))
		return err
	}
	unpublish := func(node string) {
		if _, err := s.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: node}); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, publish(id, "node-a"), codes.OK)
	wants(t, publish(id, "node-b"), codes.FailedPrecondition, "node-a", "node-b", id)
	wants(t, publish(strings.TrimPrefix(id, "rds1/"), "node-b"), codes.FailedPrecondition, "node-a", "node-b")
	exports := s.rds.Calls(appliancetest.Export)
	wants(t, publish(id, "node-b"), codes.FailedPrecondition)
	if s.rds.Calls(appliancetest.Export) != exports {
		t.Error("the rds was asked for a node that is refused")
	}
	unpublish("node-a")
	wants(t, publish(id, "node-b"), codes.OK)
	wants(t, publish(id, "node-c"), codes.FailedPrecondition)
	unpublish("") // B18: no node means all nodes
	wants(t, publish(id, "node-c"), codes.OK)
}

func TestUnpublishOfWhatIsGone_B18(t *testing.T) {
	s := newScene(t, attach.Standalone())
	for _, id := range []string{"rds1/pvc-gone", "rds9/pvc-gone", "Not A Handle"} {
		_, err := s.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: "gone"})
		wants(t, err, codes.OK)
	}
	_, err := s.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{NodeId: "a"})
	wants(t, err, codes.InvalidArgument)
}

// A publish that fails gives the admission back, but not that of an earlier one that the node may rest on.
func TestFailedPublishAbandonsOnlyItsOwnAdmission(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	publish := func(node string) error {
		_, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, node))
		return err
	}
	s.rds.Fail(appliancetest.Export, appliance.ErrUnavailable)
	wants(t, publish("node-a"), codes.Unavailable)
	wants(t, publish("node-b"), codes.OK)
	s.rds.Fail(appliancetest.Export, appliance.ErrUnavailable)
	wants(t, publish("node-b"), codes.Unavailable)
	wants(t, publish("node-a"), codes.FailedPrecondition, "node-b")
}

// With Kubernetes: no yes before the VolumeAttachments are known, none without one of its own, and a restart of the
// controller changes no answer.
func TestPublishWithKubernetes(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	s := newScene(t, ledger)
	id := s.create("pvc-1").GetVolumeId()
	publish := func(s *scene, node string) error {
		_, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, node))
		return err
	}
	wants(t, publish(s, "node-a"), codes.Unavailable)
	if n := s.rds.Calls(appliancetest.Export); n != 0 {
		t.Error("the rds was asked while nothing is known")
	}
	of := func(node string, attached bool) attach.Attachment {
		return attach.Attachment{UID: "uid-" + node, Name: "csi-" + node, Volume: id, Node: node, Attached: attached, Created: time.Unix(1_700_000_000, 0)}
	}
	ledger.Replace(nil)
	wants(t, publish(s, "node-a"), codes.Unavailable)
	ledger.ReplaceNodes(nil)
	wants(t, publish(s, "node-a"), codes.NotFound)
	ledger.Upsert(of("node-a", false))
	wants(t, publish(s, "node-a"), codes.OK)
	ledger.Upsert(of("node-a", true))
	ledger.Upsert(of("node-b", false))
	wants(t, publish(s, "node-b"), codes.FailedPrecondition, "node-a", "node-b")

	restarted := attach.NewLedger(attach.Options{})
	restarted.ReplaceNodes(nil)
	restarted.Replace([]attach.Attachment{of("node-a", true), of("node-b", false)})
	again := newScene(t, restarted)
	again.create("pvc-1")
	wants(t, publish(again, "node-b"), codes.FailedPrecondition, "node-a", "node-b")
	wants(t, publish(again, "node-a"), codes.OK)
}

func TestValidate(t *testing.T) {
	s := newScene(t, attach.Standalone())
	v := s.create("pvc-1")
	validate := func(change func(*csi.ValidateVolumeCapabilitiesRequest)) (*csi.ValidateVolumeCapabilitiesResponse, error) {
		req := &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: v.GetVolumeId(), VolumeContext: v.GetVolumeContext(), VolumeCapabilities: []*csi.VolumeCapability{writer()},
		}
		change(req)
		return s.ValidateVolumeCapabilities(t.Context(), req)
	}
	for _, can := range []*csi.VolumeCapability{writer(), raw(oneWriter), raw(onePod), raw(manyWrite)} {
		reply, err := validate(func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeCapabilities[0] = can })
		if err != nil || reply.GetConfirmed() == nil {
			t.Errorf("not confirmed: %v, %v", reply, err)
		}
	}
	for name, change := range map[string]func(*csi.ValidateVolumeCapabilitiesRequest){
		"a file system for many nodes": func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeCapabilities[0] = capability(manyWrite, "") },
		"another subsystem":            func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeContext = map[string]string{"nqn": "nqn.x"} },
		"a parameter":                  func(r *csi.ValidateVolumeCapabilitiesRequest) { r.Parameters = map[string]string{"x": "y"} },
	} {
		reply, err := validate(change)
		if err != nil || reply.GetConfirmed() != nil || reply.GetMessage() == "" {
			t.Errorf("%s: %v, %v", name, reply, err)
		}
	}
	_, err := validate(func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeId = "rds1/none" })
	wants(t, err, codes.NotFound)
	_, err = validate(func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeId = "NONE" })
	wants(t, err, codes.NotFound)
	_, err = validate(func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeCapabilities = nil })
	wants(t, err, codes.InvalidArgument)
	s.rds.Fail(appliancetest.Get, appliance.ErrUnavailable)
	_, err = validate(func(*csi.ValidateVolumeCapabilitiesRequest) {})
	wants(t, err, codes.Unavailable) // B15: a failed look-up is not "not found"
}

func TestCapacity(t *testing.T) {
	s := newScene(t, attach.Standalone())
	s.create("pvc-1")
	ask := func(req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
		return s.GetCapacity(t.Context(), req)
	}
	reply, err := ask(&csi.GetCapacityRequest{})
	if err != nil || reply.GetAvailableCapacity() != 99*gib || reply.GetMinimumVolumeSize().GetValue() != 16*mib {
		t.Errorf("%v, %v", reply, err)
	}
	reply, err = ask(&csi.GetCapacityRequest{
		Parameters:         map[string]string{"poolPath": "/storage-pool/other", "rds": rds1},
		VolumeCapabilities: []*csi.VolumeCapability{capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "xfs")},
	})
	if err != nil || reply.GetAvailableCapacity() != 99*gib || reply.GetMinimumVolumeSize().GetValue() != 300*mib {
		t.Errorf("%v, %v", reply, err)
	}
	reply, err = ask(&csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{capability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, "")}})
	if err != nil || reply.GetAvailableCapacity() != 0 {
		t.Errorf("%v, %v", reply, err)
	}
	_, err = ask(&csi.GetCapacityRequest{Parameters: map[string]string{"x": "y"}})
	wants(t, err, codes.InvalidArgument)
	_, err = ask(&csi.GetCapacityRequest{Parameters: map[string]string{"poolPath": "/nowhere"}})
	wants(t, err, codes.FailedPrecondition)
}
