package driver_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
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

// pools are the two kinds of them: one that shares blocks, and one that copies.
func pools() map[string]sim.Options {
	return map[string]sim.Options{
		"btrfs": {},
		"xfs":   {Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: "xfs", SizeBytes: 1 << 40}}},
	}
}

func (r *rig) snapshot(ctx context.Context, name, volume string) (*csi.Snapshot, error) {
	reply, err := r.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	return reply.GetSnapshot(), err
}

// ready asks for a snapshot until it is ready, as external-snapshotter does.
func (r *rig) ready(name, volume string) *csi.Snapshot {
	r.t.Helper()
	var s *csi.Snapshot
	waitFor(r.t, func() bool {
		var err error
		if s, err = r.snapshot(r.t.Context(), name, volume); err != nil {
			r.t.Fatal(err)
		}
		return s.GetReadyToUse()
	})
	return s
}

func ofSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func ofVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func (r *rig) from(ctx context.Context, name string, size int64, source *csi.VolumeContentSource) (*csi.Volume, error) {
	req := createRequest(name, size)
	req.VolumeContentSource = source
	reply, err := r.CreateVolume(ctx, req)
	return reply.GetVolume(), err
}

// restored asks for a volume until it is there, as external-provisioner does.
func (r *rig) restored(name string, size int64, source *csi.VolumeContentSource) *csi.Volume {
	r.t.Helper()
	var v *csi.Volume
	r.settle("CreateVolume", func(ctx context.Context) (err error) {
		v, err = r.from(ctx, name, size, source)
		return err
	})
	return v
}

// Take, list, restore, clone and delete on either kind of pool, and what it costs: at most two commands for each call.
func TestSnapshotsAndClones(t *testing.T) {
	for pool, options := range pools() {
		t.Run(pool, func(t *testing.T) {
			r := start(t, options)
			id := r.create("pvc-1")
			r.waitForSpare()
			if n := r.cost(func() { _, _ = r.snapshot(t.Context(), "snapshot-1", id) }); n > 2 {
				t.Errorf("CreateSnapshot: %d commands", n)
			}
			s := r.ready("snapshot-1", id)
			if s.GetSourceVolumeId() != id || s.GetSizeBytes() != 64*mib || time.Since(s.GetCreationTime().AsTime()).Abs() > time.Hour ||
				s.GetSnapshotId() != "rds1/"+appliance.SnapshotIDFor(cluster, "snapshot-1") {
				t.Errorf("%v", s)
			}
			if again := r.ready("snapshot-1", id); again.String() != s.String() {
				t.Errorf("again %v, first %v", again, s)
			}
			sources := map[string]*csi.VolumeContentSource{"restored": ofSnapshot(s.GetSnapshotId()), "cloned": ofVolume(id)}
			for name, source := range sources {
				r.waitForSpare()
				if n := r.cost(func() { _, _ = r.from(t.Context(), name, 128*mib, source) }); n > 2 {
					t.Errorf("%s: %d commands", name, n)
				}
				v := r.restored(name, 128*mib, source)
				if from := v.GetVolumeContext()["source"]; !strings.HasSuffix(from, " "+map[string]string{"restored": s.GetSnapshotId(), "cloned": id}[name]) {
					t.Errorf("%s: made from %q, says the volume context", name, from)
				}
				if v.GetCapacityBytes() != 128*mib || v.GetContentSource().String() != source.String() {
					t.Errorf("%s: %v", name, v)
				}
				if err := r.publish(t.Context(), v.GetVolumeId(), "node-a"); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				same := r.restored(name+" as it is", 0, source)
				if same.GetCapacityBytes() != 64*mib {
					t.Errorf("%s as it is: %v", name, same)
				}
				_, err := r.from(t.Context(), name, 128*mib, nil)
				wants(t, err, codes.AlreadyExists)
			}
			other := r.create("pvc-2")
			_, err := r.snapshot(t.Context(), "snapshot-1", other)
			wants(t, err, codes.AlreadyExists)
			// The volume goes, its snapshot stays, and goes by itself.
			if err := r.delete(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			r.restored("late", 64*mib, ofSnapshot(s.GetSnapshotId()))
			for range 2 {
				if _, err := r.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId()}); err != nil {
					t.Error(err)
				}
			}
			_, err = r.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: s.GetSnapshotId()})
			wants(t, err, codes.NotFound)
			_, err = r.from(t.Context(), "too late", 64*mib, ofSnapshot(s.GetSnapshotId()))
			wants(t, err, codes.NotFound)
		})
	}
}

// cost counts the console commands of a call.
func (r *rig) cost(call func()) int {
	before := len(r.server.Device.Commands())
	call()
	return len(r.server.Device.Commands()) - before
}

// On a pool that copies, a volume that a node has is refused, with the node named, and one that is being copied is not
// attached before the copy is done; a controller that is started anew in the middle neither loses nor doubles the copy.
func TestCopiesAndAttachments(t *testing.T) {
	r := start(t, pools()["xfs"])
	id := r.create("pvc-1")
	if err := r.publish(t.Context(), id, "node-a"); err != nil {
		t.Fatal(err)
	}
	_, err := r.snapshot(t.Context(), "snapshot-1", id)
	wants(t, err, codes.FailedPrecondition, "node-a", "detach")
	_, err = r.from(t.Context(), "cloned", 64*mib, ofVolume(id))
	wants(t, err, codes.FailedPrecondition, "node-a", "detach")
	if err := r.unpublish(t.Context(), id, "node-a"); err != nil {
		t.Fatal(err)
	}
	release := r.server.Device.HoldCopies()
	s, err := r.snapshot(t.Context(), "snapshot-1", id)
	if err != nil || s.GetReadyToUse() {
		t.Fatalf("%v, %v", s, err)
	}
	_, err = r.from(t.Context(), "cloned", 64*mib, ofVolume(id))
	wants(t, err, codes.Aborted)
	_, err = r.from(t.Context(), "restored", 64*mib, ofSnapshot(s.GetSnapshotId()))
	wants(t, err, codes.Aborted)
	wants(t, r.publish(t.Context(), id, "node-a"), codes.Aborted)
	if nodes := r.ledger.Nodes(id); len(nodes) != 0 {
		t.Errorf("the refused attach left its admission on %v", nodes)
	}
	r.restart()
	if s, err = r.snapshot(t.Context(), "snapshot-1", id); err != nil || s.GetReadyToUse() {
		t.Errorf("after a restart: %v, %v", s, err)
	}
	release()
	r.ready("snapshot-1", id)
	r.restored("cloned", 64*mib, ofVolume(id))
	waitFor(t, func() bool { return r.publish(t.Context(), id, "node-a") == nil })
	// What is done stays done while the volume is used.
	r.ready("snapshot-1", id)
	r.restored("restored", 64*mib, ofSnapshot(s.GetSnapshotId()))
}

// restart makes a controller that knows nothing of what this one did.
func (r *rig) restart() {
	fresh := driver.NewController(rds1, r.ledger, slog.New(slog.DiscardHandler))
	s := settings(r.t, rds1)
	s.Default = true
	rds, err := appliance.NewRDS(s, r.client)
	if err != nil {
		r.t.Fatal(err)
	}
	fresh.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: rds}})
	r.Controller = fresh
}

// On Btrfs a volume that a node uses has snapshots and clones all the same.
func TestSnapshotOfWhatIsAttached(t *testing.T) {
	r := start(t, pools()["btrfs"])
	id := r.create("pvc-1")
	if err := r.publish(t.Context(), id, "node-a"); err != nil {
		t.Fatal(err)
	}
	s, err := r.snapshot(t.Context(), "snapshot-1", id)
	if err != nil || !s.GetReadyToUse() {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := r.from(t.Context(), "cloned", 64*mib, ofVolume(id)); err != nil {
		t.Error(err)
	}
}

func TestSnapshotsRefuse(t *testing.T) {
	r := start(t, sim.Options{})
	id := r.create("pvc-1")
	ctx := t.Context()
	gone := "rds1/" + appliance.SnapshotIDFor(cluster, "gone")
	create := func(req *csi.CreateSnapshotRequest) error {
		_, err := r.CreateSnapshot(ctx, req)
		return err
	}
	clone := func(source *csi.VolumeContentSource, parameters map[string]string, limit int64) error {
		req := createRequest("new", 0)
		req.CapacityRange, req.VolumeContentSource, req.Parameters = &csi.CapacityRange{LimitBytes: limit}, source, parameters
		_, err := r.CreateVolume(ctx, req)
		return err
	}
	get := func(id string) error {
		_, err := r.GetSnapshot(ctx, &csi.GetSnapshotRequest{SnapshotId: id})
		return err
	}
	remove := func(id string) error {
		_, err := r.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: id})
		return err
	}
	for name, c := range map[string]struct {
		err  error
		code codes.Code
		word string
	}{
		"no name":           {create(&csi.CreateSnapshotRequest{SourceVolumeId: id}), codes.InvalidArgument, "name"},
		"a nasty name_B26":  {create(&csi.CreateSnapshotRequest{Name: "a\nb", SourceVolumeId: id}), codes.InvalidArgument, "control characters"},
		"no source":         {create(&csi.CreateSnapshotRequest{Name: "s"}), codes.InvalidArgument, "source"},
		"no such source":    {create(&csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: "rds1/pvc-none"}), codes.NotFound, "pvc-none"},
		"no handle":         {create(&csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: "No Handle"}), codes.NotFound, "handle"},
		"a parameter_B26":   {create(&csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: id, Parameters: map[string]string{"keep": "7"}}), codes.InvalidArgument, "keep"},
		"from nothing":      {clone(&csi.VolumeContentSource{}, nil, 0), codes.InvalidArgument, "neither"},
		"from no snapshot":  {clone(ofSnapshot("rds1/pvc-x"), nil, 0), codes.NotFound, "pvc-x"},
		"from one gone":     {clone(ofSnapshot(gone), nil, 0), codes.NotFound, "snap-"},
		"from a gone one":   {clone(ofVolume("rds1/pvc-none"), nil, 0), codes.NotFound, "pvc-none"},
		"from a bad handle": {clone(ofVolume("No Handle"), nil, 0), codes.NotFound, "handle"},
		"from another rds":  {clone(ofVolume(id), map[string]string{"rds": "rds2"}, 0), codes.InvalidArgument, "rds2"},
		"too small a limit": {clone(ofVolume(id), nil, 32*mib), codes.OutOfRange, "limit"},
		"get nothing":       {get(""), codes.InvalidArgument, "id"},
		"get what is gone":  {get(gone), codes.NotFound, "snap-"},
		"get a volume":      {get(id), codes.NotFound, "pvc-"},
		"get elsewhere":     {get("rds9/" + appliance.SnapshotIDFor(cluster, "x")), codes.FailedPrecondition, "rds9"},
		"delete nothing":    {remove(""), codes.InvalidArgument, "id"},
		"delete a volume":   {remove(id), codes.OK, ""},
		"delete another's":  {remove("No Handle"), codes.OK, ""},
		"delete again":      {remove(gone), codes.OK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.word == "" {
				wants(t, c.err, c.code)
				return
			}
			wants(t, c.err, c.code, c.word)
		})
	}
	if n := len(r.server.Device.Disks()); n != 1 {
		t.Errorf("%d disks", n)
	}
	// The parameters of external-snapshotter's own.
	wants(t, create(&csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: id, Parameters: map[string]string{
		"csi.storage.k8s.io/volumesnapshot/name": "s", "csi.storage.k8s.io/volumesnapshot/namespace": "n", "csi.storage.k8s.io/volumesnapshotcontent/name": "c",
	}}), codes.OK)
}

func TestSnapshotLists(t *testing.T) {
	r := start(t, sim.Options{})
	one, two := r.create("pvc-1"), r.create("pvc-2")
	of := map[string][]string{}
	var all []string
	for i := range 5 {
		source := []string{one, two}[i%2]
		id := r.ready(fmt.Sprint("snapshot-", i), source).GetSnapshotId()
		of[source], all = append(of[source], id), append(all, id)
	}
	slices.Sort(all)
	slices.Sort(of[one])
	list := func(req *csi.ListSnapshotsRequest) []string {
		t.Helper()
		var got []string
		for {
			reply, err := r.ListSnapshots(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range reply.GetEntries() {
				got = append(got, e.GetSnapshot().GetSnapshotId())
			}
			if req.StartingToken = reply.GetNextToken(); req.GetStartingToken() == "" {
				return got
			}
		}
	}
	none := "rds1/" + appliance.SnapshotIDFor(cluster, "none")
	for name, c := range map[string]struct {
		req  *csi.ListSnapshotsRequest
		want []string
	}{
		"all":               {&csi.ListSnapshotsRequest{}, all},
		"in pages":          {&csi.ListSnapshotsRequest{MaxEntries: 2}, all},
		"one":               {&csi.ListSnapshotsRequest{SnapshotId: all[2]}, all[2:3]},
		"none":              {&csi.ListSnapshotsRequest{SnapshotId: none}, nil},
		"a volume":          {&csi.ListSnapshotsRequest{SnapshotId: one}, nil},
		"of a volume":       {&csi.ListSnapshotsRequest{SourceVolumeId: one}, of[one]},
		"of the same, bare": {&csi.ListSnapshotsRequest{SourceVolumeId: strings.TrimPrefix(one, "rds1/")}, of[one]},
		"of none":           {&csi.ListSnapshotsRequest{SourceVolumeId: "rds1/pvc-none"}, nil},
		"of no handle":      {&csi.ListSnapshotsRequest{SourceVolumeId: "No Handle"}, nil},
		"one of a volume":   {&csi.ListSnapshotsRequest{SourceVolumeId: one, SnapshotId: of[one][0]}, of[one][:1]},
		"one of another":    {&csi.ListSnapshotsRequest{SourceVolumeId: one, SnapshotId: of[two][0]}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := list(c.req); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	r.waitForSpare()
	if n := r.cost(func() { list(&csi.ListSnapshotsRequest{}) }); n != 1 {
		t.Errorf("a list costs %d commands", n)
	}
	_, err := r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{StartingToken: "x"})
	wants(t, err, codes.Aborted)
	_, err = r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: -1})
	wants(t, err, codes.InvalidArgument)
}

// A source is left alone while it is read.
func TestASourceIsLeftAlone(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	release := s.rds.Hold(appliancetest.CreateSnapshot)
	snapshot := func(name string) error {
		_, err := s.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: strings.TrimPrefix(id, "rds1/")})
		return err
	}
	done := make(chan error, 1)
	go func() { done <- snapshot("snapshot-1") }()
	waitFor(t, func() bool { return s.rds.Calls(appliancetest.CreateSnapshot) == 1 })
	clone := createRequest("clone", gib)
	clone.VolumeContentSource = ofVolume(id)
	restore := createRequest("restore", gib)
	restore.VolumeContentSource = ofSnapshot("rds1/" + appliance.SnapshotIDFor(cluster, "snapshot-1"))
	for name, call := range map[string]func() error{
		"attach": func() error {
			_, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a"))
			return err
		},
		"grow": func() error { _, err := s.ControllerExpandVolume(t.Context(), expandRequest(id, 2*gib)); return err },
		"delete": func() error {
			_, err := s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
			return err
		},
		"again":   func() error { return snapshot("snapshot-1") },
		"other":   func() error { return snapshot("snapshot-2") },
		"clone":   func() error { _, err := s.CreateVolume(t.Context(), clone); return err },
		"restore": func() error { _, err := s.CreateVolume(t.Context(), restore); return err },
		"delete it": func() error {
			_, err := s.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: restore.GetVolumeContentSource().GetSnapshot().GetSnapshotId()})
			return err
		},
	} {
		if err := call(); driver.Code(err) != codes.Aborted {
			t.Errorf("%s: %v", name, err)
		}
	}
	release()
	if err := <-done; driver.Code(err) == codes.Aborted {
		t.Error(err)
	}
	wants(t, s.delete(id), codes.OK)
}

func (s *scene) delete(id string) error {
	_, err := s.DeleteVolume(s.t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	return err
}

// Only the leader takes, deletes and restores; what only reads is served.
func TestSnapshotsAreLed(t *testing.T) {
	r := start(t, sim.Options{})
	id := r.create("pvc-1")
	s := r.ready("snapshot-1", id)
	r.Lead = func() error { return driver.Standby("other") }
	_, err := r.snapshot(t.Context(), "snapshot-2", id)
	wants(t, err, codes.Unavailable, "other")
	_, err = r.from(t.Context(), "new", 64*mib, ofVolume(id))
	wants(t, err, codes.Unavailable, "other")
	_, err = r.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId()})
	wants(t, err, codes.Unavailable, "other")
	_, err = r.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: s.GetSnapshotId()})
	wants(t, err, codes.OK)
	_, err = r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{})
	wants(t, err, codes.OK)
}

// Before the ledger knows who has a volume, nothing is copied from it on a guess; a snapshot needs no such word.
func TestCopiesWaitForTheLedger(t *testing.T) {
	r := start(t, sim.Options{})
	id := r.create("pvc-1")
	s := r.ready("snapshot-1", id)
	r.ledger = attach.NewLedger(attach.Options{})
	r.restart()
	_, err := r.snapshot(t.Context(), "snapshot-2", id)
	wants(t, err, codes.Unavailable)
	_, err = r.from(t.Context(), "cloned", 64*mib, ofVolume(id))
	wants(t, err, codes.Unavailable)
	_, err = r.from(t.Context(), "restored", 64*mib, ofSnapshot(s.GetSnapshotId()))
	wants(t, err, codes.OK)
}

// An RDS that makes no disk item of an image which is there already can have no restores and no clones: it is refused for
// good, and nothing of it is left.
func TestNoRestoreWhereAnImageCannotBeAdopted(t *testing.T) {
	for pool, options := range pools() {
		t.Run(pool, func(t *testing.T) {
			options.Quirks = map[string]string{"existing-file": "error"}
			r := start(t, options)
			id := r.create("pvc-1")
			s := r.ready("snapshot-1", id)
			for name, source := range map[string]*csi.VolumeContentSource{"restored": ofSnapshot(s.GetSnapshotId()), "cloned": ofVolume(id)} {
				var err error
				waitFor(t, func() bool {
					_, err = r.from(t.Context(), name, 64*mib, source)
					return driver.Code(err) != codes.Aborted
				})
				wants(t, err, codes.FailedPrecondition, "restored or cloned")
			}
			if n := len(r.server.Device.Disks()); n != 1 {
				t.Errorf("%d disks", n)
			}
		})
	}
}
