package driver_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
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
		"made smaller": {true, func(d *appliancetest.Disk) { d.SizeBytes = gib / 2 }, []string{"DATA_LOSS DiskItemTooSmall"},
			[]string{"536870912", "1073741824", "node-a", "file-size=1073741824"}},
		"made smaller, and export off": {false, func(d *appliancetest.Disk) { d.SizeBytes, d.Exported = gib-1, false },
			[]string{"DATA_LOSS DiskItemTooSmall", "INACCESSIBLE NotExported"}, nil},
		"larger than promised": {true, func(d *appliancetest.Disk) { d.SizeBytes = 2 * gib }, nil, nil},
		"somebody else's": {true, func(d *appliancetest.Disk) { d.Cluster = "another" }, []string{"INACCESSIBLE NotOwned"},
			[]string{"clusterID"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, attach.Standalone())
			id := s.create("pvc-1").GetVolumeId()
			s.create("well")
			s.Claimed = func() ([]string, bool) { return []string{id}, true }
			s.Promised = promise(id, gib)
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

// promise is a PersistentVolume that says its size, among others that say more.
func promise(id string, bytes int64) func(string) int64 {
	return func(volume string) int64 {
		if volume == id {
			return bytes
		}
		return 0
	}
}

// A volume that grows while its health is asked for is larger on the RDS first: what is promised is read before.
func TestHealthOfAVolumeThatGrows(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	s.Claimed = func() ([]string, bool) { return []string{id}, true }
	s.Promised = func(string) int64 {
		return gib + int64(s.rds.Calls(appliancetest.Get)+s.rds.Calls(appliancetest.List))
	}
	if all := s.allHealth(); len(all) > 0 {
		t.Errorf("the list has %v", all)
	}
	s.Promised = func(string) int64 { return gib + int64(s.rds.Calls(appliancetest.Get)) }
	if h, err := s.health(id); err != nil || len(conditions(t, h)) > 0 {
		t.Errorf("%v, %v", h, err)
	}
}

// The existing driver said 1.5T of what it made as 1T (B12): nothing of such a volume need be lost, taken over or not.
func TestHealthOfAnAdoptedVolumeThatIsSmallerThanSaid_B12(t *testing.T) {
	s := newScene(t, attach.Standalone())
	const key = rds1 + "/" + adopted
	s.rds.PutDisk(t, appliancetest.Disk{
		Slot: adopted, Path: "/storage-pool/metal-csi/" + adopted + ".img", SizeBytes: gib, NQN: appliance.NQNFor(adopted), Port: 4420, Exported: true,
	})
	s.Claimed = func() ([]string, bool) { return []string{key}, true }
	s.Promised = promise(key, 3*gib/2)
	want := []string{"DEGRADED DiskItemTooSmall"}
	for _, attached := range []bool{false, true} {
		if attached {
			if _, err := s.ControllerPublishVolume(t.Context(), publishRequest(key, "node-a")); err != nil {
				t.Fatal(err)
			}
		}
		if h, err := s.health(key); err != nil || !slices.Equal(conditions(t, h), want) {
			t.Errorf("attached %t: %v, %v", attached, h, err)
		}
		if all := s.allHealth(); len(all) != 1 || !slices.Equal(all[key], want) {
			t.Errorf("attached %t: the list has %v", attached, all)
		}
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
		pool appliance.Pool
		err  error
		want []string
	}{
		"well":              {appliance.Pool{FreeBytes: 50, State: "clean"}, nil, nil},
		"one drive":         {appliance.Pool{FreeBytes: 50}, nil, nil},
		"nearly full":       {appliance.Pool{FreeBytes: 4, State: "clean"}, nil, []string{"DEGRADED PoolNearlyFull"}},
		"full":              {appliance.Pool{State: "active"}, nil, []string{"DEGRADED PoolFull"}},
		"full, Btrfs":       {appliance.Pool{Filesystem: "btrfs"}, nil, []string{"DEGRADED PoolFull"}},
		"full, XFS":         {appliance.Pool{Filesystem: "xfs"}, nil, nil},
		"nearly full, XFS":  {appliance.Pool{FreeBytes: 4, Filesystem: "xfs"}, nil, nil},
		"syncing":           {appliance.Pool{FreeBytes: 50, State: "clean, sync:repair, resync = 3%"}, nil, []string{"DEGRADED PoolDegraded"}},
		"broken":            {appliance.Pool{State: "clean, degraded"}, nil, []string{"DEGRADED PoolDegraded", "DEGRADED PoolFull"}},
		"broken, full, XFS": {appliance.Pool{State: "broken", Filesystem: "xfs"}, nil, []string{"DEGRADED PoolDegraded"}},
		"a drive failed":    {appliance.Pool{FreeBytes: 50, State: "clean", Failed: "nvme3"}, nil, []string{"DEGRADED PoolDegraded"}},
		"gone":              {appliance.Pool{}, fmt.Errorf("rds1: pool: %w", appliance.ErrPoolNotFound), []string{"INACCESSIBLE PoolGone"}},
	} {
		t.Run(name, func(t *testing.T) {
			rds.pool, rds.err = c.pool, c.err
			rds.pool.SizeBytes = 100
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
func TestHealthWhileOneRDSFails(t *testing.T) {
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

// Kubernetes takes no longer messages, and gRPC none that are not UTF-8; what to do is at their end.
func TestHealthMessagesAreShort(t *testing.T) {
	s := newScene(t, attach.Standalone())
	s.Claimed = func() ([]string, bool) { return []string{rds1 + "/pvc-x"}, true }
	for _, text := range []string{"short", strings.Repeat("long ", 1000), strings.Repeat("ä", 2000), "a" + strings.Repeat("ä", 2000), "\xff\xfe"} {
		s.rds.Fail(appliancetest.List, fmt.Errorf("%s: %w", text, appliance.ErrUnavailable))
		reply, err := s.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{})
		if err != nil || len(reply.GetEntries()) != 1 {
			t.Fatalf("%v, %v", reply, err)
		}
		m := reply.GetEntries()[0].GetHealthStatuses()[0].GetMessage()
		if len(m) > 1024 || !utf8.ValidString(m) || !strings.HasPrefix(m, "the controller cannot ask rds rds1") || !strings.HasSuffix(m, "reaches its management address") {
			t.Errorf("%d bytes: %q", len(m), m)
		}
		if text == "short" && !strings.Contains(m, "short: ") {
			t.Errorf("%q is not what was said", m)
		}
	}
}

// One RDS that says nothing, and of which nobody knows yet that it will not, is waited for as long as it may take and no longer.
func TestHealthWhileOneRDSIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := appliancetest.NewFake(settings(t, rds1), 100*gib), appliancetest.NewFake(settings(t, "rds2"), 100*gib)
		c := driver.NewController(rds1, attach.Standalone(), slog.New(slog.DiscardHandler))
		c.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: one, "rds2": two}})
		id := (&scene{Controller: c, rds: one, t: t}).create("pvc-1").GetVolumeId()
		disk := one.Disks(t)[strings.TrimPrefix(id, "rds1/")]
		disk.Exported = false
		one.PutDisk(t, disk)
		c.Claimed = func() ([]string, bool) { return []string{id, "rds2/pvc-x"}, true }
		for _, op := range []appliancetest.Op{appliancetest.List, appliancetest.Capacity} { // the second answers half
			if op == appliancetest.Capacity {
				two.PutDisk(t, appliancetest.Disk{Slot: "pvc-x", Cluster: cluster, Name: "x", Path: "/storage-pool/k8s/pvc-x.img", SizeBytes: gib, Exported: true})
			}
			release := two.Hold(op)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			began := time.Now()
			reply, err := c.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{})
			cancel()
			release()
			if took := time.Since(began); err != nil || took > 15*time.Second {
				t.Fatalf("%s: after %s: %v", op, took, err)
			}
			all := map[string][]string{}
			for _, h := range reply.GetEntries() {
				all[h.GetVolumeId()] = conditions(t, h)
			}
			want := map[string][]string{id: {"INACCESSIBLE NotExported"}, "rds2/pvc-x": {"DEGRADED RDSNotAnswering"}}
			if fmt.Sprint(all) != fmt.Sprint(want) {
				t.Errorf("%s: got %v, want %v", op, all, want)
			}
		}
	})
}
