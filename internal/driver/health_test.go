package driver_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim"
)

// conditions are status and reason of each entry, sorted, and that each has a message.
func conditions(t *testing.T, h *csi.VolumeHealth) (all []string) {
	t.Helper()
	for _, e := range h.GetHealthStatuses() {
		if e.GetMessage() == "" {
			t.Errorf("%s has no message", e.GetReason())
		}
		all = append(all, fmt.Sprint(e.GetStatus(), " ", e.GetReason()))
	}
	slices.Sort(all)
	return all
}

func (s *scene) health(id string) (*csi.VolumeHealth, error) {
	reply, err := s.ControllerGetVolumeHealth(s.t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id})
	return reply.GetVolumeHealth(), err
}

func (s *scene) allHealth() map[string][]string {
	s.t.Helper()
	reply, err := s.ControllerListVolumeHealth(s.t.Context(), &csi.ControllerListVolumeHealthRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	all := map[string][]string{}
	for _, h := range reply.GetEntries() {
		all[h.GetVolumeId()] = conditions(s.t, h)
	}
	return all
}

// Every condition is told by its name, with the volume and what to do, by both calls alike.
func TestHealthOfADiskItem(t *testing.T) {
	for name, c := range map[string]struct {
		attached bool
		change   func(*appliancetest.Disk)
		want     []string
		words    []string
	}{
		"well":                 {false, func(*appliancetest.Disk) {}, nil, nil},
		"well, and attached":   {true, func(*appliancetest.Disk) {}, nil, nil},
		"export off":           {true, func(d *appliancetest.Disk) { d.Exported = false }, []string{"INACCESSIBLE NotExported"}, []string{"node-a", "nvme-tcp-export=yes"}},
		"export off, detached": {false, func(d *appliancetest.Disk) { d.Exported = false }, []string{"INACCESSIBLE NotExported"}, []string{"next attach"}},
		"another subsystem":    {true, func(d *appliancetest.Disk) { d.NQN = "nqn.x" }, []string{"INACCESSIBLE NotExported"}, []string{"nqn.2000-02"}},
		"may be mounted": {true, func(d *appliancetest.Disk) { d.MountFilesystem = true }, []string{"DEGRADED MountFilesystemOn"},
			[]string{"node-a", "mount-filesystem=no"}},
		"two writers": {true, func(d *appliancetest.Disk) { d.MountFilesystem, d.Mounted = true, true }, []string{"DATA_LOSS MountedByRDS"},
			[]string{"node-a", "Stop the pods"}},
		"mounted, detached": {false, func(d *appliancetest.Disk) { d.MountFilesystem, d.Mounted = true, true }, []string{"INACCESSIBLE MountedByRDS"},
			[]string{"mount-filesystem=no"}},
		"both": {true, func(d *appliancetest.Disk) { d.Exported, d.MountFilesystem = false, true },
			[]string{"DEGRADED MountFilesystemOn", "INACCESSIBLE NotExported"}, nil},
		"no image": {true, func(d *appliancetest.Disk) { d.SizeBytes = 0 }, []string{"INACCESSIBLE ImageGone"}, []string{".img"}},
		"somebody else's": {true, func(d *appliancetest.Disk) { d.Cluster = "another" }, []string{"INACCESSIBLE NotOwned"},
			[]string{"clusterID"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, attach.Standalone())
			id := s.create("pvc-1").GetVolumeId()
			s.create("well")
			s.Claimed = func() ([]string, bool) { return []string{id}, true }
			if c.attached {
				if _, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a")); err != nil {
					t.Fatal(err)
				}
			}
			slot := strings.TrimPrefix(id, "rds1/")
			disk := s.rds.Disks(t)[slot]
			c.change(&disk)
			s.rds.PutDisk(t, disk)
			h, err := s.health(id)
			if err != nil || h.GetVolumeId() != id || !slices.Equal(conditions(t, h), c.want) {
				t.Errorf("got %v, %v; want %v", h, err, c.want)
			}
			for _, w := range append(c.words, "rds1") {
				if len(c.want) > 0 && !strings.Contains(h.GetHealthStatuses()[0].GetMessage(), w) {
					t.Errorf("%q does not tell %q", h.GetHealthStatuses()[0].GetMessage(), w)
				}
			}
			if all := s.allHealth(); !slices.Equal(all[id], c.want) || len(all) != min(len(c.want), 1) {
				t.Errorf("the list has %v", all)
			}
		})
	}
}

// What Kubernetes knows and the RDS does not is gone; what nobody knows is a wrong handle. A failed look is neither (B15).
func TestHealthOfWhatIsGone_B15(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	for slot := range s.rds.Disks(t) {
		if err := s.rds.Delete(t.Context(), slot); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.health(id)
	wants(t, err, codes.NotFound, "pvc-")
	s.Claimed = func() ([]string, bool) { return []string{id, "rds9/pvc-x"}, true }
	want := []string{"INACCESSIBLE DiskItemGone"}
	h, err := s.health(id)
	if err != nil || !slices.Equal(conditions(t, h), want) {
		t.Errorf("%v, %v", h, err)
	}
	if all := s.allHealth(); len(all) != 1 || !slices.Equal(all[id], want) {
		t.Errorf("the list has %v", all)
	}
	s.rds.Fail(appliancetest.Get, appliance.ErrUnavailable)
	_, err = s.health(id)
	wants(t, err, codes.Unavailable)
	for _, bad := range []string{"Not A Handle", "rds1/pvc-none"} {
		_, err = s.health(bad)
		wants(t, err, codes.NotFound)
	}
	_, err = s.health("")
	wants(t, err, codes.InvalidArgument)
	_, err = s.health("rds9/pvc-x")
	wants(t, err, codes.FailedPrecondition)
}

func TestHealthWaitsForTheLedger(t *testing.T) {
	s := newScene(t, attach.NewLedger(attach.Options{}))
	_, err := s.health(s.create("pvc-1").GetVolumeId())
	wants(t, err, codes.Unavailable)
	_, err = s.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{})
	wants(t, err, codes.Unavailable)
}

// pooled is an RDS in memory whose pool says something else.
type pooled struct {
	*appliancetest.Fake
	pool appliance.Pool
	err  error
}

func (p *pooled) Capacity(context.Context, appliance.Path) (appliance.Pool, error) {
	return p.pool, p.err
}

func TestHealthOfThePool(t *testing.T) {
	rds := &pooled{Fake: appliancetest.NewFake(settings(t, rds1), 100*gib)}
	c := driver.NewController(rds1, attach.Standalone(), slog.New(slog.DiscardHandler))
	c.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: rds}})
	s := &scene{Controller: c, rds: rds.Fake, t: t}
	one, two := s.create("pvc-1").GetVolumeId(), s.create("pvc-2").GetVolumeId()
	for name, c := range map[string]struct {
		free  int64
		state string
		err   error
		want  []string
	}{
		"well":        {50, "clean", nil, nil},
		"one drive":   {50, "", nil, nil},
		"nearly full": {4, "clean", nil, []string{"DEGRADED PoolNearlyFull"}},
		"full":        {0, "active", nil, []string{"DEGRADED PoolFull"}},
		"syncing":     {50, "clean, sync:repair, resync = 3%", nil, []string{"DEGRADED PoolDegraded"}},
		"broken":      {0, "clean, degraded", nil, []string{"DEGRADED PoolDegraded", "DEGRADED PoolFull"}},
		"gone":        {0, "", fmt.Errorf("rds1: pool: %w", appliance.ErrPoolNotFound), []string{"INACCESSIBLE PoolGone"}},
	} {
		t.Run(name, func(t *testing.T) {
			rds.pool, rds.err = appliance.Pool{SizeBytes: 100, FreeBytes: c.free, State: c.state}, c.err
			h, err := s.health(one)
			if err != nil || !slices.Equal(conditions(t, h), c.want) {
				t.Errorf("got %v, %v; want %v", h, err, c.want)
			}
			if all := s.allHealth(); !slices.Equal(all[one], c.want) || !slices.Equal(all[two], c.want) {
				t.Errorf("the list has %v", all)
			}
		})
	}
	rds.err = appliance.ErrUnavailable
	_, err := s.health(one)
	wants(t, err, codes.Unavailable)
}

// One RDS that fails is told of for its volumes, and hides nothing of the others'.
func TestHealthWhileOneRDSIsSilent(t *testing.T) {
	one, two := appliancetest.NewFake(settings(t, rds1), 100*gib), appliancetest.NewFake(settings(t, "rds2"), 100*gib)
	c := driver.NewController(rds1, attach.Standalone(), slog.New(slog.DiscardHandler))
	c.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: one, "rds2": two}})
	s := &scene{Controller: c, rds: one, t: t}
	id := s.create("pvc-1").GetVolumeId()
	disk := one.Disks(t)[strings.TrimPrefix(id, "rds1/")]
	disk.Exported = false
	one.PutDisk(t, disk)
	two.Fail(appliancetest.List, appliance.ErrUnavailable)
	_, err := c.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{})
	wants(t, err, codes.Unavailable) // without Kubernetes nobody knows which volumes to speak of
	c.Claimed = func() ([]string, bool) { return []string{id, "rds2/pvc-x"}, true }
	two.Fail(appliancetest.List, appliance.ErrUnavailable)
	want := map[string][]string{id: {"INACCESSIBLE NotExported"}, "rds2/pvc-x": {"DEGRADED RDSNotAnswering"}}
	if all := s.allHealth(); fmt.Sprint(all) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", all, want)
	}
	first, err := c.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{MaxEntries: 1})
	if err != nil || len(first.GetEntries()) != 1 || first.GetNextToken() == "" {
		t.Errorf("%v, %v", first, err)
	}
	_, err = c.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{StartingToken: "x"})
	wants(t, err, codes.Aborted)
}

// Against the device itself: somebody takes an export off by hand; two commands for one volume, and two for all.
func TestHealthOnTheRDS(t *testing.T) {
	r := start(t, sim.Options{})
	id := r.create("pvc-1")
	r.create("pvc-2")
	one := func() *csi.VolumeHealth {
		t.Helper()
		reply, err := r.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id})
		if err != nil {
			t.Fatal(err)
		}
		return reply.GetVolumeHealth()
	}
	all := func() []*csi.VolumeHealth {
		t.Helper()
		reply, err := r.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return reply.GetEntries()
	}
	if len(all()) != 0 || len(conditions(t, one())) != 0 {
		t.Errorf("%v, %v", all(), one())
	}
	r.run(routeros.NewScript("by_hand").Add(`/disk set [find slot=?] nvme-tcp-export=no`, routeros.Text(strings.TrimPrefix(id, "rds1/"))))
	want := []string{"INACCESSIBLE NotExported"}
	before := len(r.server.Device.Commands())
	if got := conditions(t, one()); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := all(); len(got) != 1 || !slices.Equal(conditions(t, got[0]), want) {
		t.Errorf("%v", got)
	}
	if n := len(r.server.Device.Commands()) - before; n != 4 {
		t.Errorf("%d commands", n)
	}
}

// run is somebody at the device's console.
func (r *rig) run(command *routeros.Builder) {
	r.t.Helper()
	script, err := command.Build()
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.client.Run(r.t.Context(), script); err != nil {
		r.t.Fatal(err)
	}
}
