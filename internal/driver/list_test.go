package driver_test

import (
	"fmt"
	"slices"
	"strings"
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

// A page asks the RDSs that it needs and no others: not those that earlier pages have ended with, nor those that later ones begin with.
func TestPagesAskOnlyWhatTheyNeed(t *testing.T) {
	s, fakes := site(t, driver.Topology{}, "rds3", "rds-0")
	var want []string
	for _, rds := range []string{"rds-0", rds1, rds2, "rds3"} {
		var handles []string
		for _, name := range []string{"a", "b"} {
			req := createRequest(name, gib)
			req.Parameters = map[string]string{"rds": rds}
			reply, err := s.CreateVolume(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			handles = append(handles, reply.GetVolume().GetVolumeId())
		}
		slices.Sort(handles)
		want = append(want, handles...)
	}
	asked := func() (calls []int) {
		for _, rds := range []string{"rds-0", rds1, rds2, "rds3"} {
			calls = append(calls, fakes[rds].Calls(appliancetest.List))
		}
		return calls
	}
	var got []string
	token := ""
	for _, calls := range [][]int{{1, 1, 0, 0}, {1, 2, 1, 0}, {1, 2, 2, 1}} {
		reply, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 3, StartingToken: token})
		if err != nil || !slices.Equal(asked(), calls) {
			t.Fatalf("asked %v, want %v; %v", asked(), calls, err)
		}
		got, token = append(got, ids(reply)...), reply.GetNextToken()
		if len(got) == 3 { // a page that needs one that is away cannot be given, nor begun
			fakes[rds2].SetDown(fmt.Errorf("rds %s: %w", rds2, appliance.ErrUnavailable))
			_, err = s.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 3, StartingToken: token})
			wants(t, err, codes.Unavailable, rds2)
			fakes[rds2].SetDown(nil)
			fakes["rds-0"].SetDown(appliance.ErrUnavailable) // nothing more is wanted of this one
		}
	}
	if token != "" || !slices.Equal(got, want) {
		t.Errorf("got %v, want %v, then %q", got, want, token)
	}
}

// Half a list would look like detached volumes to the attacher. Who fails is named, and the others are heard to the end.
func TestListFailsWhenOneRDSDoes(t *testing.T) {
	s, fakes := site(t, driver.Topology{}, "rds3")
	list := func() error {
		_, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		return err
	}
	for _, bad := range []string{rds2, "rds3"} {
		fakes[bad].Fail(appliancetest.List, fmt.Errorf("rds %s: %w", bad, appliance.ErrUnavailable))
	}
	wants(t, list(), codes.Unavailable, rds2, "rds3")
	release := fakes[rds1].Hold(appliancetest.List)
	fakes[rds2].Fail(appliancetest.List, fmt.Errorf("rds %s: %w", rds2, appliance.ErrUnavailable))
	answered := make(chan error)
	go func() { answered <- list() }()
	waitFor(t, func() bool {
		return fakes[rds1].Calls(appliancetest.List) == 2 && fakes[rds2].Calls(appliancetest.List) == 2
	})
	release()
	err := <-answered
	wants(t, err, codes.Unavailable, rds2)
	if strings.Contains(err.Error(), rds1) {
		t.Errorf("%s was cut off: %v", rds1, err)
	}
	wants(t, list(), codes.OK)
}
