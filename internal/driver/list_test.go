package driver_test

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

func ids(reply *csi.ListVolumesResponse) (handles []string) {
	for _, e := range reply.GetEntries() {
		handles = append(handles, e.GetVolume().GetVolumeId())
	}
	return handles
}

func TestListShowsWhatIsOursAndWhoHasIt(t *testing.T) {
	s := newScene(t, attach.Standalone())
	one, two := s.create("pvc-1").GetVolumeId(), s.create("pvc-2").GetVolumeId()
	s.rds.PutDisk(t, appliancetest.Disk{Slot: "pvc-theirs", Cluster: "another", Path: "/storage-pool/k8s/pvc-theirs.img", SizeBytes: gib})
	s.rds.PutDisk(t, appliancetest.Disk{Slot: adopted, Path: "/storage-pool/metal-csi/" + adopted + ".img", SizeBytes: gib, NQN: appliance.NQNFor(adopted)})
	if _, err := s.ControllerPublishVolume(t.Context(), publishRequest(two, "node-b")); err != nil {
		t.Fatal(err)
	}
	list := func() *csi.ListVolumesResponse {
		reply, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	want := []string{one, two}
	slices.Sort(want)
	if got := ids(list()); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, e := range list().GetEntries() {
		attached := e.GetVolume().GetVolumeId() == two
		if slices.Contains(e.GetStatus().GetPublishedNodeIds(), "node-b") != attached || e.GetVolume().GetCapacityBytes() != gib {
			t.Errorf("%v", e)
		}
	}
	// A volume of the existing driver is nobody's until a node of this cluster has it.
	if _, err := s.ControllerPublishVolume(t.Context(), publishRequest(adopted, "node-a")); err != nil {
		t.Fatal(err)
	}
	if got := ids(list()); len(got) != 3 {
		t.Errorf("the adopted volume is missing: %v", got)
	}
}

// democratic-csi#496: after a reboot that lost the exports Kubernetes still has the volumes attached. A volume that no node can
// reach is said to be on none, so that the attacher's reconciliation publishes it again, which puts the export right.
func TestListShowsNoNodeForAnExportThatIsLost(t *testing.T) {
	s := newScene(t, attach.Standalone())
	handle := s.create("pvc-1").GetVolumeId()
	publish := func() {
		t.Helper()
		if _, err := s.ControllerPublishVolume(t.Context(), publishRequest(handle, "node-a")); err != nil {
			t.Fatal(err)
		}
	}
	nodes := func() []string {
		t.Helper()
		reply, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		if err != nil || len(reply.GetEntries()) != 1 {
			t.Fatalf("%v, %v", reply, err)
		}
		return reply.GetEntries()[0].GetStatus().GetPublishedNodeIds()
	}
	publish()
	for slot, d := range s.rds.Disks(t) {
		d.Slot, d.Exported = slot, false
		s.rds.PutDisk(t, d)
	}
	if got := nodes(); len(got) != 0 {
		t.Errorf("on %v, although nobody can reach it", got)
	}
	publish()
	if got := nodes(); !slices.Equal(got, []string{"node-a"}) {
		t.Errorf("on %v after it was published again", got)
	}
}

// Unknown must not read as "on no node".
func TestListWaitsForTheLedger(t *testing.T) {
	s := newScene(t, attach.NewLedger(attach.Options{}))
	_, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	wants(t, err, codes.Unavailable)
}

func TestPagesNeitherRepeatNorHide(t *testing.T) {
	s := newScene(t, attach.Standalone())
	var all []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		all = append(all, s.create(name).GetVolumeId())
	}
	slices.Sort(all)
	var got []string
	token := ""
	for page := 0; ; page++ {
		reply, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 2, StartingToken: token})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ids(reply)...)
		if token = reply.GetNextToken(); token == "" {
			break
		}
		if page == 0 { // the last one shown goes away between two pages
			if _, err := s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: got[1]}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.Equal(got, all) {
		t.Errorf("got %v, want %v", got, all)
	}
	for _, token := range []string{"invalid-token", "after.", "after.%%", "0"} {
		_, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: token})
		wants(t, err, codes.Aborted)
	}
	_, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: -1})
	wants(t, err, codes.InvalidArgument)
}

// Half a list would look like detached volumes to the attacher.
func TestListFailsWhenOneRDSDoes(t *testing.T) {
	one, two := appliancetest.NewFake(settings(t, rds1), gib), appliancetest.NewFake(settings(t, "rds2"), gib)
	c := driver.NewController(rds1, attach.Standalone(), slog.New(slog.DiscardHandler))
	c.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: one, "rds2": two}})
	two.Fail(appliancetest.List, appliance.ErrUnavailable)
	_, err := c.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	wants(t, err, codes.Unavailable)
	_, err = c.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	wants(t, err, codes.OK)
}
