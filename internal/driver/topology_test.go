package driver_test

import (
	"log/slog"
	"maps"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// racks: rds1 is reached by rack a, rds2 by rack b, rds3 by all, and node both by all three.
func racks() driver.Topology {
	return driver.Topology{Driver: "rds.csi.srvlab.io", Nodes: map[string][]string{rds1: {"a-*", "both"}, "rds2": {"b-?", "both"}}}
}

func segments(one, two string) *csi.Topology {
	return &csi.Topology{Segments: map[string]string{"rds.csi.srvlab.io/reaches-rds1": one, "rds.csi.srvlab.io/reaches-rds2": two}}
}

// site is a controller over three RDSs in memory.
func site(t *testing.T, topology driver.Topology, names ...string) (*scene, map[string]*appliancetest.Fake) {
	fakes, appliances := map[string]*appliancetest.Fake{}, map[string]driver.Appliance{}
	for i, name := range append([]string{rds1, "rds2"}, names...) {
		fakes[name] = appliancetest.NewFake(settings(t, name), int64(i+1)*100*gib)
		appliances[name] = fakes[name]
	}
	ledger := attach.Standalone()
	c := driver.NewController(rds1, ledger, slog.New(slog.DiscardHandler))
	c.Use(driver.Fleet{ClusterID: cluster, Appliances: appliances})
	c.Topology = topology
	return &scene{Controller: c, rds: fakes[rds1], ledger: ledger, t: t}, fakes
}

func TestNodesAnnounceWhatTheyReach(t *testing.T) {
	for node, want := range map[string]*csi.Topology{
		"a-1": segments("true", "false"), "b-1": segments("false", "true"), "b-10": segments("false", "false"), "both": segments("true", "true"),
	} {
		n := driver.NewNode(driver.NodeConfig{NodeID: node, Topology: racks()})
		reply, err := n.NodeGetInfo(t.Context(), nil)
		if err != nil || !maps.Equal(reply.GetAccessibleTopology().GetSegments(), want.GetSegments()) {
			t.Errorf("%s: %v, %v; want %v", node, reply, err, want)
		}
		n = driver.NewNode(driver.NodeConfig{NodeID: node})
		if reply, err = n.NodeGetInfo(t.Context(), nil); err != nil || reply.GetAccessibleTopology() != nil {
			t.Errorf("%s announces %v, %v where all reach all", node, reply, err)
		}
	}
	for _, topology := range []driver.Topology{{}, racks()} {
		reply, err := (&driver.Identity{Topology: topology}).GetPluginCapabilities(t.Context(), nil)
		var says bool
		for _, c := range reply.GetCapabilities() {
			says = says || c.GetService().GetType() == csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS
		}
		if err != nil || says != (len(topology.Nodes) > 0) {
			t.Errorf("%v: %v, %v", topology, reply, err)
		}
	}
}

// Where a volume goes, from where it can be used, and how much room there is: the same answer from all three.
func TestAVolumeGoesWhereItIsReached(t *testing.T) {
	a, b, both, nowhere := segments("true", "false"), segments("false", "true"), segments("true", "true"), segments("false", "false")
	for name, c := range map[string]struct {
		preferred, requisite []*csi.Topology
		rds                  string // parameter
		want                 string
		code                 codes.Code
	}{
		"nothing is said":              {nil, nil, "", rds1, codes.OK},
		"rack a":                       {nil, []*csi.Topology{a}, "", rds1, codes.OK},
		"rack b":                       {nil, []*csi.Topology{b}, "", "rds2", codes.OK},
		"both, so the default":         {nil, []*csi.Topology{both}, "", rds1, codes.OK},
		"neither, so the one of all":   {nil, []*csi.Topology{nowhere}, "", "rds3", codes.OK},
		"any, but b is preferred":      {[]*csi.Topology{b, a}, []*csi.Topology{a, b}, "", "rds2", codes.OK},
		"of rds2, any":                 {[]*csi.Topology{a, b}, []*csi.Topology{a, b}, "rds2", "rds2", codes.OK},
		"of rds2, in rack a":           {nil, []*csi.Topology{a}, "rds2", "", codes.ResourceExhausted},
		"of the one of all, in rack a": {nil, []*csi.Topology{a}, "rds3", "rds3", codes.OK},
		"keys of nobody":               {nil, []*csi.Topology{{Segments: map[string]string{"zone": "x"}}}, rds1, "", codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			s, fakes := site(t, racks(), "rds3")
			req := createRequest("pvc-1", gib)
			req.AccessibilityRequirements = &csi.TopologyRequirement{Preferred: c.preferred, Requisite: c.requisite}
			parameters := map[string]string{}
			if c.rds != "" {
				parameters["rds"] = c.rds
			}
			req.Parameters = parameters
			reply, err := s.CreateVolume(t.Context(), req)
			wants(t, err, c.code)
			for name, rds := range fakes {
				if made := len(rds.Disks(t)) == 1; made != (name == c.want) {
					t.Errorf("%s has %v", name, rds.Disks(t))
				}
			}
			if err != nil {
				wants(t, err, c.code, "topology", "parameter rds")
			}
			checkAccessible(t, reply.GetVolume(), c.want)
			if len(c.requisite) == 1 {
				checkRoom(t, s, c.requisite[0], parameters, map[string]int64{rds1: 99, "rds2": 199, "rds3": 299}[c.want]*gib)
			}
		})
	}
}

func checkAccessible(t *testing.T, v *csi.Volume, rds string) {
	t.Helper()
	if rds == "" {
		return
	}
	got := v.GetAccessibleTopology()
	if rds == "rds3" && got != nil {
		t.Errorf("what all reach is bound to %v", got)
	}
	if rds != "rds3" && (len(got) != 1 || !maps.Equal(got[0].GetSegments(), map[string]string{"rds.csi.srvlab.io/reaches-" + rds: "true"})) {
		t.Errorf("accessible from %v", got)
	}
}

func checkRoom(t *testing.T, s *scene, from *csi.Topology, parameters map[string]string, want int64) {
	t.Helper()
	reply, err := s.GetCapacity(t.Context(), &csi.GetCapacityRequest{AccessibleTopology: from, Parameters: parameters})
	if err != nil || reply.GetAvailableCapacity() != want {
		t.Errorf("room from %v with %v: %v, %v; want %d", from, parameters, reply, err, want)
	}
}

// A node that does not reach the RDS is told so, and does not wait for a connection that never comes.
func TestAttachWhereTheRDSIsNotReached(t *testing.T) {
	s, _ := site(t, racks())
	id := s.create("pvc-1").GetVolumeId()
	_, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "b-1"))
	wants(t, err, codes.FailedPrecondition, "b-1", rds1, "topology")
	if nodes, err := s.ledger.InUse(id); err != nil || len(nodes) > 0 {
		t.Errorf("%v, %v", nodes, err)
	}
	_, err = s.ControllerPublishVolume(t.Context(), publishRequest(id, "both"))
	wants(t, err, codes.OK)
}

// What does not exist is NotFound before anything else, also where the RDS is not reached; a refusal leaves no admission, and
// nothing on the RDS is touched for it.
func TestWhatDoesNotExistIsNotFoundWithTopologyToo(t *testing.T) {
	s, fakes := site(t, racks())
	id := s.create("pvc-1").GetVolumeId()
	ledger := attach.NewLedger(attach.Options{})
	ledger.Replace([]attach.Attachment{{UID: "1", Name: "csi-1", Volume: id, Node: "b-1"}, {UID: "2", Name: "csi-2", Volume: "rds1/pvc-none", Node: "b-1"}})
	ledger.ReplaceNodes([]attach.Node{{Name: "b-1", UID: "b-1"}})
	kubernetes := driver.NewController(rds1, ledger, slog.New(slog.DiscardHandler))
	kubernetes.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: fakes[rds1]}})
	kubernetes.Topology = racks()
	for name, c := range map[string]struct {
		controller   *driver.Controller
		volume, node string
		want         codes.Code
	}{
		"no volume":                     {s.Controller, "rds1/pvc-none", "b-1", codes.NotFound},
		"no volume, in Kubernetes":      {kubernetes, "rds1/pvc-none", "b-1", codes.NotFound},
		"no node":                       {kubernetes, id, "no-such-node", codes.NotFound},
		"neither":                       {kubernetes, "rds1/pvc-gone", "no-such-node", codes.NotFound},
		"both, not reached":             {s.Controller, id, "b-1", codes.FailedPrecondition},
		"both, not reached, Kubernetes": {kubernetes, id, "b-1", codes.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.controller.ControllerPublishVolume(t.Context(), publishRequest(c.volume, c.node))
			wants(t, err, c.want)
			if n := fakes[rds1].Calls(appliancetest.Export); n != 0 {
				t.Errorf("%d exports", n)
			}
		})
	}
	if uses, err := s.ledger.InUse(id); err != nil || len(uses) > 0 {
		t.Errorf("a refusal left %v, %v", uses, err)
	}
	if nodes := ledger.Nodes(id); len(nodes) > 0 {
		t.Errorf("a refusal left %v", nodes)
	}
}

// With one RDS, or with several that all nodes reach, everything is as if there were no topology: a volume without a
// parameter is on the default RDS, whatever somebody requires.
func TestWithoutTopologyNothingChanges(t *testing.T) {
	s, fakes := site(t, driver.Topology{})
	req := createRequest("pvc-1", gib)
	req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{segments("false", "true")}}
	reply, err := s.CreateVolume(t.Context(), req)
	if err != nil || reply.GetVolume().GetAccessibleTopology() != nil || len(fakes["rds2"].Disks(t)) != 0 {
		t.Errorf("%v, %v", reply, err)
	}
	_, err = s.ControllerPublishVolume(t.Context(), publishRequest(reply.GetVolume().GetVolumeId(), "anywhere"))
	wants(t, err, codes.OK)
}
