package driver_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/sim"
)

// export is which export of the volume the device has now, and how large that is to those who connect to it. The identifiers
// tell one from the other: with the switch that changes them each export has its own.
func (r *rig) export(id string) string {
	r.t.Helper()
	on, found := r.server.Device.Disk(strings.TrimPrefix(id, "rds1/"))
	info, err := os.Stat(on.HostFile)
	if !found || err != nil || !on.Up {
		r.t.Fatalf("%s: %+v, %v", id, on, err)
	}
	return fmt.Sprintf("%s of %d MiB", on.UUID, info.Size()/mib)
}

// Whatever the target makes of growth, a node that gets a volume which nobody had sees its size, and no node that has it is cut
// off: not by the growth, not by a publish that is repeated, and not by one to another node.
func TestGrownVolumeIsExportedAnewWhenUnused(t *testing.T) {
	for _, visible := range []string{"notify", "rescan", "reconnect", "reexport"} {
		t.Run(visible, func(t *testing.T) {
			r := start(t, sim.Options{Quirks: map[string]string{"growth-visible": visible, "identifiers-on-reexport": "change"}})
			var told []string
			r.Repaired = func(_, what string) { told = append(told, what) }
			create := createRequest("pvc-1", 64*mib)
			create.VolumeCapabilities[0] = raw(manyWrite)
			reply, err := r.CreateVolume(t.Context(), create)
			if err != nil {
				t.Fatal(err)
			}
			id := reply.GetVolume().GetVolumeId()
			commands := 0
			publish := func(node string) (same bool) {
				t.Helper()
				before, sent := r.export(id), len(r.server.Device.Commands())
				req := publishRequest(id, node)
				req.VolumeCapability = raw(manyWrite)
				answer, err := r.ControllerPublishVolume(t.Context(), req)
				if err != nil || answer.GetPublishContext()["sizeBytes"] == "" {
					t.Errorf("%s: %v, %v", node, answer, err)
				}
				commands = len(r.server.Device.Commands()) - sent
				return r.export(id) == before
			}
			unused := publish("node-a")
			wants(t, r.expand(t.Context(), id, 128*mib), codes.OK)
			if again, other, third := publish("node-a"), publish("node-b"), publish("node-b"); !unused || !again || !other || !third || commands != 1 {
				t.Errorf("cut off: %t, %t, %t, %t; %d commands", !unused, !again, !other, !third, commands)
			}
			wants(t, r.unpublish(t.Context(), id, "node-a"), codes.OK)
			if !publish("node-a") {
				t.Error("node-b is cut off by node-a")
			}
			wants(t, r.unpublish(t.Context(), id, ""), codes.OK)
			if len(told) != 0 || publish("node-b") || commands != 2 || len(told) != 1 || !strings.Contains(told[0], "new size") {
				t.Errorf("not exported anew, or not told: %d commands, %q", commands, told)
			}
			if now := r.export(id); !strings.HasSuffix(now, " of 128 MiB") {
				t.Errorf("a node sees %s", now)
			}
			wants(t, r.unpublish(t.Context(), id, ""), codes.OK)
			if !publish("node-a") || commands != 1 || len(told) != 1 {
				t.Errorf("exported anew twice: %d commands, %q", commands, told)
			}
			wants(t, r.unpublish(t.Context(), id, ""), codes.OK)
			wants(t, r.expand(t.Context(), id, 192*mib), codes.OK) // while no node has it
			if publish("node-a") || !strings.HasSuffix(r.export(id), " of 192 MiB") {
				t.Errorf("grown while detached, and a node sees %s", r.export(id))
			}
		})
	}
}

// unusedScene is a grown volume in Kubernetes: the ledger has the VolumeAttachments and the words of kubelets.
type unusedScene struct {
	*scene
	id string
}

func (s unusedScene) publish() error {
	_, err := s.ControllerPublishVolume(s.t.Context(), publishRequest(s.id, "node-a"))
	return err
}

func (s unusedScene) wants(code codes.Code) { s.t.Helper(); wants(s.t, s.publish(), code) }

func (s unusedScene) attachment(node string, attached bool) attach.Attachment {
	return attach.Attachment{UID: "uid-" + node, Name: "csi-" + node, Volume: s.id, Node: node, Attached: attached, Mode: attach.MultiNode, Created: time.Now()}
}

// says is a word of node-a's or node-b's kubelet.
func (s unusedScene) says(node string, volumes ...string) {
	s.ledger.UpsertNode(attach.Node{Name: node, UID: node, InUse: volumes})
}

// With Kubernetes a volume is exported anew only if no VolumeAttachment, no word of a kubelet and no answer of this process speaks
// against it; and an RDS that fails does not spoil that.
func TestWhoSpeaksAgainstAnotherExport(t *testing.T) {
	for name, c := range map[string]struct {
		before func(unusedScene)
		anew   bool
	}{
		"nobody":                {func(unusedScene) {}, true},
		"its own pod waits":     {func(s unusedScene) { s.says("node-a", s.id) }, true},
		"a pod waits elsewhere": {func(s unusedScene) { s.says("node-b", s.id) }, true},
		"the rds failed": {func(s unusedScene) {
			s.rds.Fail(appliancetest.Export, appliance.ErrUnavailable, appliance.ErrOutcomeUnknown)
			s.wants(codes.Unavailable)
			s.says("node-a", s.id)
			s.wants(codes.Unavailable)
		}, true},
		"the rds did it, and its reply was lost": {func(s unusedScene) {
			s.rds.LoseReply(appliancetest.Export, appliance.ErrOutcomeUnknown)
			s.wants(codes.Unavailable)
		}, true},
		"an answer that may have arrived": {func(s unusedScene) {
			s.wants(codes.OK)
			_, err := s.ControllerExpandVolume(s.t.Context(), expandRequest(s.id, 3*gib))
			wants(s.t, err, codes.OK)
		}, false},
		"it is attached":     {func(s unusedScene) { s.ledger.Upsert(s.attachment("node-a", true)) }, false},
		"another has it":     {func(s unusedScene) { s.ledger.Upsert(s.attachment("node-b", true)) }, false},
		"another may get it": {func(s unusedScene) { s.ledger.Upsert(s.attachment("node-b", false)) }, false},
		"its kubelet's word of before this process": {func(s unusedScene) {
			s.ledger.ReplaceNodes(nil)
			s.ledger.Doubt()
			s.ledger.ReplaceNodes([]attach.Node{{Name: "node-a", UID: "node-a", InUse: []string{s.id}}})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := unusedScene{scene: newScene(t, attach.NewLedger(attach.Options{}))}
			s.ledger.Replace(nil)
			s.ledger.ReplaceNodes([]attach.Node{{Name: "node-a", UID: "node-a"}, {Name: "node-b", UID: "node-b"}})
			create := createRequest("pvc-1", gib)
			create.VolumeCapabilities[0] = raw(manyWrite)
			reply, err := s.CreateVolume(t.Context(), create)
			if err != nil {
				t.Fatal(err)
			}
			s.id = reply.GetVolume().GetVolumeId()
			_, err = s.ControllerExpandVolume(t.Context(), expandRequest(s.id, 2*gib))
			wants(t, err, codes.OK)
			s.ledger.Upsert(s.attachment("node-a", false))
			c.before(s)
			req := publishRequest(s.id, "node-a")
			req.VolumeCapability = raw(manyWrite)
			if _, err := s.ControllerPublishVolume(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			if anew := s.rds.Disks(t)[strings.TrimPrefix(s.id, "rds1/")].GrownTo == 0; anew != c.anew {
				t.Errorf("exported anew: %t", anew)
			}
		})
	}
}

// A publish that began under a leadership which is over exports nothing anew: the next leader may have given the volume to a node.
func TestNothingIsExportedAnewByWhoLeadsNoMore(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	_, err := s.ControllerExpandVolume(t.Context(), expandRequest(id, 2*gib))
	wants(t, err, codes.OK)
	_, err = s.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: id})
	wants(t, err, codes.OK)
	for _, c := range []struct {
		leads int // how often it is told that it leads
		code  codes.Code
		anew  bool
	}{{1, codes.Unavailable, false}, {2, codes.OK, true}} {
		asked := 0
		s.Lead = func() error {
			if asked++; asked > c.leads {
				return driver.Standby("other")
			}
			return nil
		}
		_, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a"))
		wants(t, err, c.code)
		if anew := s.rds.Disks(t)[strings.TrimPrefix(id, "rds1/")].GrownTo == 0; anew != c.anew || (len(s.ledger.Nodes(id)) == 1) != c.anew {
			t.Errorf("told %d times: exported anew: %t, admitted: %v", c.leads, anew, s.ledger.Nodes(id))
		}
	}
}

// What is attached is repaired, and not exported anew: the nodes that have it would be cut off.
func TestRepairExportsNothingAnew(t *testing.T) {
	r := start(t, sim.Options{Quirks: map[string]string{"growth-visible": "reexport", "identifiers-on-reexport": "change"}})
	id := r.create("pvc-1")
	wants(t, r.publish(t.Context(), id, "node-a"), codes.OK)
	wants(t, r.expand(t.Context(), id, 128*mib), codes.OK)
	before := r.export(id)
	if done, err := r.Repair(t.Context(), id); !done || err != nil {
		t.Errorf("%t, %v", done, err)
	}
	if now := r.export(id); now != before {
		t.Errorf("%s became %s", before, now)
	}
}

// A volume of the existing driver grows before any node has got it from this one: it has an owner from then on.
func TestAdoptedVolumeGrowsFirst(t *testing.T) {
	r, pv := adopt(t)
	id := pv.Spec.CSI.VolumeHandle
	wants(t, r.expand(t.Context(), id, 2*gib), codes.OK)
	if on, _ := r.server.Device.Disk(id); !strings.HasPrefix(on.Comment, "rds-csi/1 cluster="+cluster+" name="+id+" ") {
		t.Errorf("its comment is %q", on.Comment)
	}
	wants(t, r.unpublish(t.Context(), id, ""), codes.OK) // no node has it from before
	answer, err := r.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId: id, NodeId: "node-a", VolumeCapability: writer(), VolumeContext: pv.Spec.CSI.VolumeAttributes,
	})
	on, _ := r.server.Device.Disk(id)
	if err != nil || answer.GetPublishContext()["sizeBytes"] != "2147483648" || !on.Up || on.MountFilesystem || on.Comment != "rds-csi/1 cluster="+cluster+" name="+id {
		t.Errorf("%v, %+v, %v", answer, on, err)
	}
	if _, err := r.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id}); driver.Code(err) != codes.FailedPrecondition {
		t.Errorf("deleted while it is attached: %v", err)
	}
}
