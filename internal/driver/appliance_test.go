package driver_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

// rig is the controller over a simulated RDS, by real SSH.
type rig struct {
	*driver.Controller
	server *simtest.Server
	client *routeros.Client
	ledger *attach.Ledger
	t      *testing.T
}

// start boots a device and connects to it.
func start(t *testing.T, o sim.Options) *rig {
	t.Helper()
	server := simtest.Start(t, o)
	pin, err := routeros.Fingerprint(server.HostKeyFingerprint)
	if err != nil {
		t.Fatal(err)
	}
	client, err := routeros.New(routeros.Config{
		Name: rds1, Address: server.Address, User: "csi", Signers: []ssh.Signer{server.Signer}, HostKey: pin,
		DialTimeout: 5 * time.Second, CommandTimeout: 20 * time.Second, KeepAlive: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	client.Start(t.Context())
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	s := settings(t, rds1)
	s.Default = true
	rds, err := appliance.NewRDS(s, client)
	if err != nil {
		t.Fatal(err)
	}
	ledger := attach.Standalone()
	c := driver.NewController(rds1, ledger, slog.New(slog.DiscardHandler))
	c.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: rds}})
	return &rig{Controller: c, server: server, client: client, ledger: ledger, t: t}
}

func (r *rig) create(name string) string {
	r.t.Helper()
	reply, err := r.CreateVolume(r.t.Context(), createRequest(name, 64*mib))
	if err != nil {
		r.t.Fatal(err)
	}
	return reply.GetVolume().GetVolumeId()
}

func (r *rig) delete(ctx context.Context, id string) error {
	_, err := r.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	return err
}

func (r *rig) publish(ctx context.Context, id, node string) error {
	_, err := r.ControllerPublishVolume(ctx, publishRequest(id, node))
	return err
}

func (r *rig) expand(ctx context.Context, id string, size int64) error {
	_, err := r.ControllerExpandVolume(ctx, expandRequest(id, size))
	return err
}

func (r *rig) unpublish(ctx context.Context, id, node string) error {
	_, err := r.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: node})
	return err
}

func (r *rig) inject(faults ...string) {
	r.t.Helper()
	for _, f := range faults {
		if err := r.server.Device.Inject(f); err != nil {
			r.t.Fatal(err)
		}
	}
}

// settle calls as a sidecar does: again while the code says so, and never after another failure.
func (r *rig) settle(rpc string, call func(context.Context) error) {
	r.t.Helper()
	for ctx := r.t.Context(); ; {
		err := call(ctx)
		if err == nil {
			return
		}
		if c := driver.Code(err); c != codes.Unavailable && c != codes.Aborted && c != codes.DeadlineExceeded || ctx.Err() != nil {
			r.t.Errorf("%s: %v: %v", rpc, c, err)
			return
		}
	}
}

// step is one RPC of the controller, on a volume that exists.
type step struct {
	rpc      string
	commands int
	call     func(ctx context.Context, r *rig, id string) error
}

// steps are all RPCs that speak of volumes, in an order in which each succeeds.
func steps() []step {
	return []step{
		{"CreateVolume", 1, func(ctx context.Context, r *rig, _ string) error {
			_, err := r.CreateVolume(ctx, createRequest("pvc-1", 64*mib))
			return err
		}},
		{"CreateVolume again", 1, func(ctx context.Context, r *rig, _ string) error {
			_, err := r.CreateVolume(ctx, createRequest("pvc-1", 64*mib))
			return err
		}},
		{"ValidateVolumeCapabilities", 1, func(ctx context.Context, r *rig, id string) error {
			_, err := r.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: []*csi.VolumeCapability{writer()}})
			return err
		}},
		{"ControllerPublishVolume", 1, func(ctx context.Context, r *rig, id string) error { return r.publish(ctx, id, "node-a") }},
		{"ControllerPublishVolume again", 1, func(ctx context.Context, r *rig, id string) error { return r.publish(ctx, id, "node-a") }},
		{"ControllerExpandVolume", 1, func(ctx context.Context, r *rig, id string) error { return r.expand(ctx, id, 128*mib) }},
		{"ControllerExpandVolume again", 1, func(ctx context.Context, r *rig, id string) error { return r.expand(ctx, id, 128*mib) }},
		{"ListVolumes", 1, func(ctx context.Context, r *rig, _ string) error {
			_, err := r.ListVolumes(ctx, &csi.ListVolumesRequest{})
			return err
		}},
		{"GetCapacity", 1, func(ctx context.Context, r *rig, _ string) error {
			_, err := r.GetCapacity(ctx, &csi.GetCapacityRequest{})
			return err
		}},
		{"CreateSnapshot", 1, func(ctx context.Context, r *rig, id string) error {
			_, err := r.snapshot(ctx, "snapshot-1", id)
			return err
		}},
		{"CreateSnapshot again", 1, func(ctx context.Context, r *rig, id string) error {
			_, err := r.snapshot(ctx, "snapshot-1", id)
			return err
		}},
		{"GetSnapshot", 1, func(ctx context.Context, r *rig, _ string) error {
			_, err := r.GetSnapshot(ctx, &csi.GetSnapshotRequest{SnapshotId: snapshotOne()})
			return ignoreNotFound(err)
		}},
		{"ListSnapshots", 1, func(ctx context.Context, r *rig, _ string) error {
			_, err := r.ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
			return err
		}},
		{"CreateVolume from a volume", 1, func(ctx context.Context, r *rig, id string) error {
			_, err := r.from(ctx, "cloned", 64*mib, ofVolume(id))
			return err
		}},
		{"CreateVolume from a snapshot", 1, func(ctx context.Context, r *rig, _ string) error {
			_, err := r.from(ctx, "restored", 64*mib, ofSnapshot(snapshotOne()))
			return ignoreNotFound(err)
		}},
		{"ControllerGetVolumeHealth", 2, func(ctx context.Context, r *rig, id string) error {
			_, err := r.ControllerGetVolumeHealth(ctx, &csi.ControllerGetVolumeHealthRequest{VolumeId: id})
			return err
		}},
		{"ControllerListVolumeHealth", 2, func(ctx context.Context, r *rig, _ string) error {
			_, err := r.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{})
			return err
		}},
		{"DeleteSnapshot", 2, func(ctx context.Context, r *rig, _ string) error {
			_, err := r.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: snapshotOne()})
			return err
		}},
		{"ControllerUnpublishVolume", 0, func(ctx context.Context, r *rig, id string) error { return r.unpublish(ctx, id, "node-a") }},
		{"DeleteVolume", 1, func(ctx context.Context, r *rig, id string) error { return r.delete(ctx, id) }},
		{"DeleteVolume again", 2, func(ctx context.Context, r *rig, id string) error { return r.delete(ctx, id) }},
	}
}

func snapshotOne() string { return "rds1/" + appliance.SnapshotIDFor(cluster, "snapshot-1") }

// ignoreNotFound: where a step runs alone, there is no snapshot; that is an answer too.
func ignoreNotFound(err error) error {
	if driver.Code(err) == codes.NotFound {
		return nil
	}
	return err
}

// The budget of architecture.md, asserted: console commands per RPC on a warm connection, for any number of volumes. Each of
// them finds a channel that was opened ahead, on which a command costs one round trip: routeros counts that in TestRoundTrips_B30.
func TestCommandsPerRPC(t *testing.T) {
	r := start(t, sim.Options{})
	for i := range 5 {
		r.create(fmt.Sprint("other-", i))
	}
	id := "rds1/" + appliance.SlotFor(cluster, "pvc-1")
	for _, s := range steps() {
		r.waitForSpare()
		before := len(r.server.Device.Commands())
		if err := s.call(t.Context(), r, id); err != nil {
			t.Fatalf("%s: %v", s.rpc, err)
		}
		sent := r.server.Device.Commands()[before:]
		if len(sent) != s.commands {
			t.Errorf("%s: %d commands, want %d: %v", s.rpc, len(sent), s.commands, sent)
		}
		for _, script := range sent {
			if len(script) > 8<<10 || strings.Contains(script, "\n") {
				t.Errorf("%s: a script of %d bytes, or of several lines", s.rpc, len(script))
			}
		}
	}
	if n := r.server.Device.Counters().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
}

// waitForSpare waits until the client has channels open that no command has used.
func (r *rig) waitForSpare() {
	r.t.Helper()
	waitFor(r.t, func() bool {
		c := r.server.Device.Counters()
		return c.Channels-c.Commands >= 2
	})
}

// B16: eight creates of one name at once: one volume, and who is told to come again finds it.
func TestParallelCreatesOfOneName_B16(t *testing.T) {
	r := start(t, sim.Options{})
	r.create("warm")
	before := len(r.server.Device.Commands())
	results := make(chan error, 8)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := r.CreateVolume(t.Context(), createRequest("pvc-1", 64*mib))
			results <- err
		})
	}
	wg.Wait()
	close(results)
	ok := 0
	for err := range results {
		switch driver.Code(err) {
		case codes.OK:
			ok++
		case codes.Aborted:
		default:
			t.Error(err)
		}
	}
	if n := len(r.server.Device.Commands()) - before; ok == 0 || n != ok {
		t.Errorf("%d succeeded with %d commands", ok, n)
	}
	r.create("pvc-1")
	if n := len(r.server.Device.Disks()); n != 2 {
		t.Errorf("%d disks", n)
	}
}

// Many names at once are many volumes, and all of them go again.
func TestParallelCreatesOfManyNames(t *testing.T) {
	r := start(t, sim.Options{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			reply, err := r.CreateVolume(t.Context(), createRequest(fmt.Sprint("pvc-", i), 64*mib))
			if err != nil {
				t.Error(err)
				return
			}
			r.settle("DeleteVolume", func(ctx context.Context) error { return r.delete(ctx, reply.GetVolume().GetVolumeId()) })
		})
	}
	wg.Wait()
	if n := len(r.server.Device.Disks()); n != 0 {
		t.Errorf("%d disks are left", n)
	}
}

// B12: sizes arrive whole, are never cut, and the real size is what is reported; a repeated create finds its volume.
func TestSizesAreNotCut_B12(t *testing.T) {
	r := start(t, sim.Options{Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: "xfs", SizeBytes: 16 << 40}}})
	for _, size := range []int64{1573031936 /* 1.465 GiB */, 1536 * gib, 2047 * gib, gib + 1, 3*gib + 4097, 5 << 40 / 3} {
		name := fmt.Sprint("pvc-", size)
		var id string
		for range 2 {
			reply, err := r.CreateVolume(t.Context(), createRequest(name, size))
			if err != nil {
				t.Fatal(err)
			}
			v := reply.GetVolume()
			disk, _ := r.server.Device.Disk(strings.TrimPrefix(v.GetVolumeId(), "rds1/"))
			if v.GetCapacityBytes() != disk.FileSize || disk.FileSize < size || disk.FileSize >= size+mib {
				t.Errorf("asked for %d, told %d, the disk has %d", size, v.GetCapacityBytes(), disk.FileSize)
			}
			id = v.GetVolumeId()
		}
		if err := r.delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

// B26: whatever a name holds, it is refused or it is a volume of that name, and never another command.
func TestNastyNames_B26(t *testing.T) {
	r := start(t, sim.Options{})
	for _, name := range []string{
		`quote"d`, `a\b`, `$x`, `[/user add name=x]`, `{x}`, `a;b`, `'`, "`", `"; /disk remove [find]; "`, `a b`, `ä-ß-€`, "\u2028",
		`%`, `%00`, `=`, `*1`, `..`, `/`, `pvc-1 claim=x/y`, `rds-csi/1 cluster=other`, strings.Repeat("€", 42), strings.Repeat("x", 128),
		"a\nb", "a\x00b", "\x1b[2J", strings.Repeat("x", 256), "\xff", "a\r", "\x7f",
	} {
		reply, err := r.CreateVolume(t.Context(), createRequest(name, 64*mib))
		if err != nil {
			wants(t, err, codes.InvalidArgument)
			if n := len(r.server.Device.Disks()); n != 0 {
				t.Errorf("%q was refused and left %d disks", name, n)
			}
			continue
		}
		id := reply.GetVolume().GetVolumeId()
		disks := r.server.Device.Disks()
		if len(disks) != 1 || disks[0].NQN != appliance.NQNFor(disks[0].Slot) || disks[0].Slot != appliance.SlotFor(cluster, name) {
			t.Errorf("%q made %+v", name, disks)
		}
		if _, err := r.CreateVolume(t.Context(), createRequest(name, 64*mib)); err != nil {
			t.Errorf("%q is not found again: %v", name, err)
		}
		if err := r.delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := r.server.Device.Disk("x"); ok {
		t.Error("a name became a command")
	}
}

// B10: a volume in use is not deleted, and a deleted one leaves neither item nor file.
func TestDeleteWhileAttached_B10(t *testing.T) {
	r := start(t, sim.Options{})
	id := r.create("pvc-1")
	if err := r.publish(t.Context(), id, "node-a"); err != nil {
		t.Fatal(err)
	}
	wants(t, r.delete(t.Context(), id), codes.FailedPrecondition, "node-a")
	disks := r.server.Device.Disks()
	if len(disks) != 1 {
		t.Fatalf("%d disks", len(disks))
	}
	if err := r.unpublish(t.Context(), id, "node-a"); err != nil {
		t.Fatal(err)
	}
	if err := r.delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, there := r.server.Device.File(disks[0].FilePath); there || len(r.server.Device.Disks()) != 0 {
		t.Error("something is left")
	}
}

func TestFullPool_B14(t *testing.T) {
	r := start(t, sim.Options{})
	r.inject("full@/disk/add:1")
	_, err := r.CreateVolume(t.Context(), createRequest("pvc-1", 64*mib))
	wants(t, err, codes.ResourceExhausted)
	r.create("pvc-1")
}

// B13: an RDS that accepts and says nothing: every call ends by its deadline, and the next one after recovery succeeds.
func TestSilentRDS_B13(t *testing.T) {
	r := start(t, sim.Options{})
	id := r.create("pvc-1")
	r.inject("silence")
	for _, s := range steps() {
		if s.commands == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		started := time.Now()
		err := s.call(ctx, r, id)
		cancel()
		if took := time.Since(started); took > 3*time.Second {
			t.Errorf("%s took %s over a deadline of 300 ms", s.rpc, took)
		}
		if c := driver.Code(err); c != codes.Unavailable && c != codes.DeadlineExceeded {
			t.Errorf("%s: %v", s.rpc, err)
		}
	}
	if err := r.unpublish(t.Context(), id, "node-a"); err != nil {
		t.Errorf("a detach needs the rds: %v", err)
	}
	r.server.Device.ClearFaults()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if _, err := r.ListVolumes(ctx, &csi.ListVolumesRequest{}); err != nil {
		t.Errorf("after recovery: %v", err)
	}
}

// B14: a connection that dies, before or after the effect of each command: the call succeeds or says so with a code that
// is tried again, and trying again succeeds.
func TestDrops_B14(t *testing.T) {
	for _, fault := range []string{"drop-before:1", "drop-after:1", "garbage:1", "garbage=cut:1"} {
		for _, s := range steps() {
			t.Run(fault+" "+s.rpc, func(t *testing.T) {
				r := start(t, sim.Options{})
				id := r.create("pvc-1")
				for attached := false; !attached && strings.HasPrefix(s.rpc, "ControllerUnpublish"); attached = true {
					if err := r.publish(t.Context(), id, "node-a"); err != nil {
						t.Fatal(err)
					}
				}
				r.inject(fault)
				r.settle(s.rpc, func(ctx context.Context) error { return s.call(ctx, r, id) })
				r.server.Device.ClearFaults()
				r.settle(s.rpc+" again", func(ctx context.Context) error { return s.call(ctx, r, id) })
			})
		}
	}
}

// A reboot of the RDS is an interruption, and no volume less.
func TestReboot(t *testing.T) {
	r := start(t, sim.Options{Quirks: map[string]string{"reboot-time": "50ms"}})
	id := r.create("pvc-1")
	if err := r.server.Device.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return r.publish(t.Context(), id, "node-a") == nil })
	if disk, ok := r.server.Device.Disk(strings.TrimPrefix(id, "rds1/")); !ok || !disk.Up {
		t.Errorf("%+v", disk)
	}
}
