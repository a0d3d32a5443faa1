package driver_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim"
)

const rds2 = "rds2"

// mute is an RDS that takes commands and says nothing, of which nobody knows yet that it will not.
type mute struct {
	asked atomic.Int32
	event chan struct{} // one for each command
}

func (m *mute) Run(ctx context.Context, _ routeros.Script) (routeros.Reply, error) {
	m.asked.Add(1)
	select {
	case m.event <- struct{}{}:
		<-ctx.Done()
	case <-ctx.Done():
	}
	return routeros.Reply{}, fmt.Errorf("%w: %w", routeros.ErrOutcomeUnknown, context.Cause(ctx))
}

func (m *mute) Down() error { return nil }

// beside puts a second RDS beside the one of the rig.
func (r *rig) beside(runner appliance.Runner) {
	r.t.Helper()
	fleet := driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{}}
	for name, runner := range map[string]appliance.Runner{rds1: r.client, rds2: runner} {
		s := settings(r.t, name)
		s.Default = name == rds1
		rds, err := appliance.NewRDS(s, runner)
		if err != nil {
			r.t.Fatal(err)
		}
		fleet.Appliances[name] = rds
	}
	r.Use(fleet)
}

// rpc is one call of an RPC.
type rpc struct {
	name string
	call func(ctx context.Context, r *rig) error
}

// method is what the service calls it.
func (c rpc) method() string { return strings.Fields(c.name)[0] }

// rpcs calls every RPC of the service for volumes of one RDS: for one volume, in an order in which each succeeds, or each for a volume
// of its own, so that none waits for another one's lock.
func rpcs(rds string, one bool) []rpc {
	pick := func(name string) string {
		if one {
			return "pvc-1"
		}
		return name
	}
	volume := func(name string) string { return rds + "/" + appliance.SlotFor(cluster, pick(name)) }
	snapshot := func(name string) string { return rds + "/" + appliance.SnapshotIDFor(cluster, pick(name)) }
	create := func(name string, from *csi.VolumeContentSource) func(context.Context, *rig) error {
		return func(ctx context.Context, r *rig) error {
			req := createRequest(name, 64*mib)
			req.Parameters, req.VolumeContentSource = map[string]string{"rds": rds}, from
			_, err := r.CreateVolume(ctx, req)
			return err
		}
	}
	return []rpc{
		{"CreateVolume", create("pvc-1", nil)},
		{"CreateVolume from a volume", create("pvc-2", &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: volume("cloned")},
		}})},
		{"ValidateVolumeCapabilities", func(ctx context.Context, r *rig) error {
			_, err := r.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{VolumeId: volume("validated"), VolumeCapabilities: []*csi.VolumeCapability{writer()}})
			return err
		}},
		{"ControllerPublishVolume", func(ctx context.Context, r *rig) error { return r.publish(ctx, volume("published"), "node-a") }},
		{"ControllerExpandVolume", func(ctx context.Context, r *rig) error { return r.expand(ctx, volume("grown"), 128*mib) }},
		{"ControllerGetVolumeHealth", func(ctx context.Context, r *rig) error {
			_, err := r.ControllerGetVolumeHealth(ctx, &csi.ControllerGetVolumeHealthRequest{VolumeId: volume("ill")})
			return err
		}},
		{"CreateSnapshot", func(ctx context.Context, r *rig) error {
			_, err := r.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "pvc-1", SourceVolumeId: volume("taken")})
			return err
		}},
		{"GetSnapshot", func(ctx context.Context, r *rig) error {
			_, err := r.GetSnapshot(ctx, &csi.GetSnapshotRequest{SnapshotId: snapshot("read")})
			return err
		}},
		{"ListSnapshots of one", func(ctx context.Context, r *rig) error {
			_, err := r.ListSnapshots(ctx, &csi.ListSnapshotsRequest{SnapshotId: snapshot("listed")})
			return err
		}},
		{"ListSnapshots of a volume", func(ctx context.Context, r *rig) error {
			_, err := r.ListSnapshots(ctx, &csi.ListSnapshotsRequest{SourceVolumeId: volume("taken")})
			return err
		}},
		{"CreateVolume from a snapshot", create("pvc-3", &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot("restored")},
		}})},
		{"GetCapacity", func(ctx context.Context, r *rig) error {
			_, err := r.GetCapacity(ctx, &csi.GetCapacityRequest{Parameters: map[string]string{"rds": rds}})
			return err
		}},
		{"ControllerUnpublishVolume", func(ctx context.Context, r *rig) error { return r.unpublish(ctx, volume("detached"), "node-a") }},
		{"DeleteSnapshot", func(ctx context.Context, r *rig) error {
			_, err := r.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: snapshot("deleted")})
			return err
		}},
		{"DeleteVolume", func(ctx context.Context, r *rig) error { return r.delete(ctx, volume("deleted")) }},
	}
}

// wholes speak of all RDSs.
func wholes() []rpc {
	return []rpc{
		{"ListVolumes", func(ctx context.Context, r *rig) error {
			_, err := r.ListVolumes(ctx, &csi.ListVolumesRequest{})
			return err
		}},
		{"ListSnapshots", func(ctx context.Context, r *rig) error {
			_, err := r.ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
			return err
		}},
		{"ControllerListVolumeHealth", func(ctx context.Context, r *rig) error {
			_, err := r.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{})
			return err
		}},
	}
}

// One RDS that says nothing keeps no call for another one waiting: not one command goes to it, whichever RPC it is, and whatever
// waits for the silent one at the same time. No RPC of the service is left out.
func TestASilentRDSSlowsNoOther(t *testing.T) {
	r := start(t, sim.Options{Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: "btrfs", SizeBytes: 100 * gib}}})
	silent := &mute{event: make(chan struct{})}
	r.beside(silent)
	asksNobody := []string{"ControllerUnpublishVolume", "ControllerGetCapabilities", "ControllerGetVolume", "ControllerModifyVolume"}
	covered := slices.Clone(asksNobody)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	waiting := 0
	for _, c := range slices.Concat(rpcs(rds2, false), wholes()) {
		if slices.Contains(asksNobody, c.method()) {
			wants(t, c.call(ctx, r), codes.OK)
			continue
		}
		go func() { ended <- c.call(ctx, r) }()
		<-silent.event
		waiting++
	}

	prompt, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	before := silent.asked.Load()
	for _, c := range rpcs(rds1, true) {
		if err := c.call(prompt, r); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if now := silent.asked.Load(); now != before {
			t.Fatalf("%s of %s sent %d commands to %s", c.name, rds1, now-before, rds2)
		}
		covered = append(covered, c.method())
	}
	cancel()
	for range waiting {
		if err := <-ended; err == nil || !strings.Contains(err.Error(), rds2) {
			t.Errorf("a call for the silent one came to %v", err)
		}
	}
	for _, c := range wholes() {
		covered = append(covered, c.method())
	}
	for _, m := range csi.Controller_ServiceDesc.Methods {
		if !slices.Contains(covered, m.MethodName) {
			t.Errorf("%s is not tried", m.MethodName)
		}
	}
}

// An RDS that is known to be away is not waited for at all, by any call: the answer comes from memory, and names it.
func TestAnRDSThatIsAwayIsNotWaitedFor(t *testing.T) {
	r := start(t, sim.Options{})
	r.create("pvc-1")
	away := connectNowhere(t)
	r.beside(away)
	r.Claimed = func() ([]string, bool) { return []string{rds2 + "/pvc-x"}, true }
	waitFor(t, func() bool { return away.Down() != nil })
	r.waitForSpare()
	before := len(r.server.Device.Commands())
	for _, c := range slices.Concat(rpcs(rds2, false), wholes()) {
		switch c.method() {
		case "ControllerUnpublishVolume":
			wants(t, c.call(t.Context(), r), codes.OK)
		case "ControllerListVolumeHealth": // hides nothing of the others, so these are asked
		default:
			wants(t, c.call(t.Context(), r), codes.Unavailable, "rds rds2")
		}
	}
	if sent := r.server.Device.Commands()[before:]; len(sent) > 0 {
		t.Errorf("%s was asked for a list that could not be given: %v", rds1, sent)
	}
	health, err := r.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{})
	if err != nil || len(health.GetEntries()) != 1 || health.GetEntries()[0].GetVolumeId() != rds2+"/pvc-x" {
		t.Errorf("%v, %v", health, err)
	}
	if n := away.sent.Load(); n > 0 {
		t.Errorf("%d calls waited for a connection", n)
	}
}

// counted is a client that counts who relies on it.
type counted struct {
	*routeros.Client
	sent atomic.Int32
}

func (c *counted) Run(ctx context.Context, s routeros.Script) (routeros.Reply, error) {
	c.sent.Add(1)
	return c.Client.Run(ctx, s)
}

// connectNowhere is a client of an address that takes connections and never says a word.
func connectNowhere(t *testing.T) *counted {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // the kernel accepts for us
	if err != nil {
		t.Fatal(err)
	}
	key := newSigner(t)
	pin, err := routeros.Fingerprint(ssh.FingerprintSHA256(key.PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	client, err := routeros.New(routeros.Config{
		Name: rds2, Address: listener.Addr().String(), User: "csi", Signers: []ssh.Signer{key}, HostKey: pin, DialTimeout: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	client.Start(t.Context())
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		_ = listener.Close()
	})
	return &counted{Client: client}
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Which RDS a new volume goes to follows from the request and the configuration, and not from which one answers: the volume of that
// name may have been made already on the one that does not, and a second one elsewhere would be a double that nobody finds.
func TestAVolumeDoesNotGoElsewhereWhenItsRDSIsAway(t *testing.T) {
	for name, topology := range map[string]driver.Topology{"with topology": racks(), "without": {}} {
		t.Run(name, func(t *testing.T) {
			s, fakes := site(t, topology, "rds3")
			req := createRequest("pvc-1", gib)
			req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{segments("true", "true")}}
			fakes[rds1].LoseReply(appliancetest.Create, appliance.ErrOutcomeUnknown)
			_, err := s.CreateVolume(t.Context(), req) // it is there, and nobody knows
			wants(t, err, codes.Unavailable)
			fakes[rds1].SetDown(fmt.Errorf("rds %s: %w", rds1, appliance.ErrUnavailable))
			_, err = s.CreateVolume(t.Context(), req)
			wants(t, err, codes.Unavailable, rds1)
			_, err = s.GetCapacity(t.Context(), &csi.GetCapacityRequest{AccessibleTopology: req.GetAccessibilityRequirements().GetRequisite()[0]})
			wants(t, err, codes.Unavailable, rds1) // not another one's room, and not none
			for _, other := range []string{rds2, "rds3"} {
				if len(fakes[other].Disks(t)) > 0 || fakes[other].Calls(appliancetest.Capacity) > 0 {
					t.Errorf("%s was asked", other)
				}
			}
			fakes[rds1].SetDown(nil)
			reply, err := s.CreateVolume(t.Context(), req)
			if err != nil || !strings.HasPrefix(reply.GetVolume().GetVolumeId(), rds1+"/") || len(fakes[rds1].Disks(t)) != 1 {
				t.Errorf("%v, %v", reply, err)
			}
		})
	}
}

// With one RDS there is nobody to make room for: a call waits, and may succeed.
func TestTheOnlyRDSIsWaitedFor(t *testing.T) {
	s := newScene(t, attach.Standalone())
	s.rds.SetDown(appliance.ErrUnavailable)
	s.create("pvc-1")
	if _, err := s.ListVolumes(t.Context(), &csi.ListVolumesRequest{}); err != nil {
		t.Error(err)
	}
}
