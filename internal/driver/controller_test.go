package driver_test

import (
	"context"
	"fmt"
	"log/slog"
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

const (
	gib     = int64(1) << 30
	mib     = int64(1) << 20
	cluster = "homelab"
	rds1    = "rds1"
	adopted = "pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11"
)

// scene is a controller over an RDS in memory and a real ledger.
type scene struct {
	*driver.Controller
	rds    *appliancetest.Fake
	ledger *attach.Ledger
	t      *testing.T
}

func settings(t *testing.T, name string) appliance.Settings {
	pool, err := appliance.ParsePath("/storage-pool/k8s")
	if err != nil {
		t.Fatal(err)
	}
	return appliance.Settings{Name: name, ClusterID: cluster, Pool: pool, NVMeAddress: "10.42.68.1", NVMePort: 4420}
}

func newScene(t *testing.T, ledger *attach.Ledger) *scene {
	rds := appliancetest.NewFake(settings(t, rds1), 100*gib)
	c := driver.NewController(rds1, ledger, slog.New(slog.DiscardHandler))
	c.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: rds}})
	return &scene{Controller: c, rds: rds, ledger: ledger, t: t}
}

func capability(mode csi.VolumeCapability_AccessMode_Mode, fsType string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType}},
	}
}

func writer() *csi.VolumeCapability {
	return capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "")
}

func createRequest(name string, size int64) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: size},
		VolumeCapabilities: []*csi.VolumeCapability{writer()},
	}
}

func publishRequest(volume, node string) *csi.ControllerPublishVolumeRequest {
	return &csi.ControllerPublishVolumeRequest{VolumeId: volume, NodeId: node, VolumeCapability: writer()}
}

func (s *scene) create(name string) *csi.Volume {
	s.t.Helper()
	reply, err := s.CreateVolume(s.t.Context(), createRequest(name, gib))
	if err != nil {
		s.t.Fatal(err)
	}
	return reply.GetVolume()
}

// wants says what a call answers: its code, and words that its message has.
func wants(t *testing.T, err error, want codes.Code, words ...string) {
	t.Helper()
	if got := driver.Code(err); got != want {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v does not tell %q", err, w)
		}
	}
}

func TestCreateAnswersTheVolumeAsItIs(t *testing.T) {
	s := newScene(t, attach.Standalone())
	req := createRequest("pvc-1", gib+1)
	req.Parameters = map[string]string{
		"rds": rds1, "poolPath": "/storage-pool/fast", "nvmeAddress": "10.0.0.9", "nvmePort": "4421",
		"ctrlLossTimeout": "-1", "reconnectDelay": "3s", "csi.storage.k8s.io/fstype": "xfs",
		"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "db", "csi.storage.k8s.io/pv/name": "pvc-1",
	}
	reply, err := s.CreateVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	v, slot := reply.GetVolume(), appliance.SlotFor(cluster, "pvc-1")
	if v.GetVolumeId() != "rds1/"+slot || v.GetCapacityBytes() != gib+mib {
		t.Errorf("got volume %s of %d bytes", v.GetVolumeId(), v.GetCapacityBytes())
	}
	want := map[string]string{
		"nqn": appliance.NQNFor(slot), "nvmeAddress": "10.0.0.9", "nvmePort": "4421", "storageClassNVMeAddress": "10.0.0.9",
		"ctrlLossTimeout": "-1", "reconnectDelay": "3s", "fsType": "xfs",
	}
	if fmt.Sprint(v.GetVolumeContext()) != fmt.Sprint(want) {
		t.Errorf("got context %v, want %v", v.GetVolumeContext(), want)
	}
	disk := s.rds.Disks(t)[slot]
	if disk.Name != "pvc-1" || disk.Claim != "db/data" || disk.Path != "/storage-pool/fast/"+slot+"/volume.img" || disk.Port != 4421 {
		t.Errorf("on the rds: %+v", disk)
	}
	pub := publishRequest(v.GetVolumeId(), "node-a")
	pub.VolumeContext = v.GetVolumeContext()
	published, err := s.ControllerPublishVolume(t.Context(), pub)
	if err != nil || published.GetPublishContext()["nvmeAddress"] != "10.0.0.9" {
		t.Errorf("the address of the StorageClass is lost when published: %v, %v", published, err)
	}
}

func TestCreateTwiceIsOneVolume(t *testing.T) {
	s := newScene(t, attach.Standalone())
	first, second := s.create("pvc-1"), s.create("pvc-1")
	if first.GetVolumeId() != second.GetVolumeId() || len(s.rds.Disks(t)) != 1 {
		t.Errorf("%s and %s, %d disks", first.GetVolumeId(), second.GetVolumeId(), len(s.rds.Disks(t)))
	}
	_, err := s.CreateVolume(t.Context(), createRequest("pvc-1", 2*gib))
	wants(t, err, codes.AlreadyExists)
}

// After a lost reply the same request finds what the first one made.
func TestCreateAfterALostReply(t *testing.T) {
	s := newScene(t, attach.Standalone())
	s.rds.LoseReply(appliancetest.Create, appliance.ErrOutcomeUnknown)
	_, err := s.CreateVolume(t.Context(), createRequest("pvc-1", gib))
	wants(t, err, codes.Unavailable)
	s.create("pvc-1")
	if n := len(s.rds.Disks(t)); n != 1 {
		t.Errorf("%d disks", n)
	}
}

func TestCreateRefuses(t *testing.T) {
	const W = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	change := map[string]struct {
		req  func(*csi.CreateVolumeRequest)
		code codes.Code
		word string
	}{
		"no name":            {func(r *csi.CreateVolumeRequest) { r.Name = "" }, codes.InvalidArgument, "name is required"},
		"a long name_B26":    {func(r *csi.CreateVolumeRequest) { r.Name = strings.Repeat("x", 129) }, codes.InvalidArgument, "129 bytes"},
		"a newline_B26":      {func(r *csi.CreateVolumeRequest) { r.Name = "a\nb" }, codes.InvalidArgument, "control characters"},
		"not UTF-8_B26":      {func(r *csi.CreateVolumeRequest) { r.Name = "a\xff" }, codes.InvalidArgument, "UTF-8"},
		"no capability":      {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = nil }, codes.InvalidArgument, "capabilities are required"},
		"nil capability":     {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = []*csi.VolumeCapability{nil} }, codes.InvalidArgument, "capability is required"},
		"no access type":     {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessType = nil }, codes.InvalidArgument, "access type"},
		"no access mode":     {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessMode = nil }, codes.InvalidArgument, "access mode UNKNOWN"},
		"readers of nothing": {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0] = raw(manyRead) }, codes.InvalidArgument, "without a data source"},
		"readers beside a writer": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = append(r.VolumeCapabilities, capability(manyRead, ""))
		}, codes.InvalidArgument, "ReadOnlyMany"},
		"one writer on many nodes": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities[0] = raw(csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER)
		}, codes.InvalidArgument, "MULTI_NODE_SINGLE_WRITER"},
		"many nodes_B3": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities[0] = capability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, "")
		}, codes.InvalidArgument, "MULTI_NODE_MULTI_WRITER"},
		"a mount group": {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].GetMount().VolumeMountGroup = "100" }, codes.InvalidArgument, "VOLUME_MOUNT_GROUP"},
		"btrfs":         {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0] = capability(W, "btrfs") }, codes.InvalidArgument, "ext4 or xfs"},
		"two file systems": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = []*csi.VolumeCapability{capability(W, "ext4"), capability(W, "xfs")}
		}, codes.InvalidArgument, "both ext4 and xfs"},
		"fs against class": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities[0] = capability(W, "xfs")
			r.Parameters = map[string]string{"csi.storage.k8s.io/fstype": "ext4"}
		}, codes.InvalidArgument, "fstype"},
		"a content source":   {func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = &csi.VolumeContentSource{} }, codes.InvalidArgument, "content_source"},
		"mutable parameters": {func(r *csi.CreateVolumeRequest) { r.MutableParameters = map[string]string{"a": "b"} }, codes.InvalidArgument, "MODIFY_VOLUME"},
		"limit below need":   {func(r *csi.CreateVolumeRequest) { r.CapacityRange.LimitBytes = 1 }, codes.InvalidArgument, "limit"},
		"a negative size":    {func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = -1 }, codes.InvalidArgument, "negative"},
		"too small a limit":  {func(r *csi.CreateVolumeRequest) { r.CapacityRange = &csi.CapacityRange{LimitBytes: mib} }, codes.OutOfRange, "least size"},
		"another rds":        {func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"rds": "rds9"} }, codes.FailedPrecondition, `"rds9" is not configured; configured are rds1`},
		"larger than pool":   {func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 200 * gib }, codes.ResourceExhausted, "no space"},
	}
	for name, c := range change {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, attach.Standalone())
			req := createRequest("pvc-1", gib)
			c.req(req)
			_, err := s.CreateVolume(t.Context(), req)
			wants(t, err, c.code, c.word)
			if n := len(s.rds.Disks(t)); n != 0 {
				t.Errorf("%d disks were made", n)
			}
		})
	}
}

func TestParametersAreStrict_B26(t *testing.T) {
	for key, values := range map[string][]string{
		"volumePath":                {"x"},
		"Rds":                       {"rds1"},
		"poolPath":                  {"/storage-pool/../etc", "storage-pool/a b", `/p";/user/add name=x`, "/p;x", "//", "/p/$x", "/p/[find]"},
		"nvmeAddress":               {"rds.example", "10.0.0.1:4420", "10.0.0.1 x"},
		"nvmePort":                  {"0", "65536", "4420x"},
		"ctrlLossTimeout":           {"never", "1500ms", "0"},
		"reconnectDelay":            {"-1", "0", "1h"},
		"rwxBlockPolicy":            {"", "same-VM", "all"},
		"csi.storage.k8s.io/fstype": {"ntfs", "ext4 -o x"},
	} {
		for _, value := range values {
			t.Run(key+"="+value, func(t *testing.T) {
				s := newScene(t, attach.Standalone())
				req := createRequest("pvc-1", gib)
				req.Parameters = map[string]string{key: value}
				_, err := s.CreateVolume(t.Context(), req)
				wants(t, err, codes.InvalidArgument, key)
				if s.rds.Calls(appliancetest.Create) != 0 {
					t.Error("the rds was asked")
				}
			})
		}
	}
	_, err := newScene(t, attach.Standalone()).CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name: "x", VolumeCapabilities: []*csi.VolumeCapability{writer()}, Parameters: map[string]string{"pool": "x"},
	})
	wants(t, err, codes.InvalidArgument, "poolPath", "nvmeAddress", "ctrlLossTimeout")
}

func TestSizes(t *testing.T) {
	for name, c := range map[string]struct {
		required, limit int64
		fsType          string
		want            int64
	}{
		"unasked":               {0, 0, "", gib},
		"only a limit":          {0, 512 * mib, "", 512 * mib},
		"odd bytes round up":    {gib + 1, 0, "", gib + mib},
		"one byte, ext4":        {1, 0, "", 16 * mib},
		"one byte, xfs":         {1, 0, "xfs", 300 * mib},
		"exact":                 {gib, gib, "", gib},
		"not below what fits":   {16*mib - 1, 0, "ext4", 16 * mib},
		"1.465 GiB_B12":         {1573031936, 0, "", 1573912576},
		"limit above the least": {1, 400 * mib, "xfs", 300 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, attach.Standalone())
			req := createRequest("pvc-1", 0)
			req.CapacityRange = &csi.CapacityRange{RequiredBytes: c.required, LimitBytes: c.limit}
			req.VolumeCapabilities[0].GetMount().FsType = c.fsType
			reply, err := s.CreateVolume(t.Context(), req)
			if err != nil || reply.GetVolume().GetCapacityBytes() != c.want {
				t.Errorf("got %v, %v; want %d", reply, err, c.want)
			}
		})
	}
}

// B16: one name, many calls at once: one works, the others are told to come again, and one volume comes out.
func TestCallsForOneVolumeDoNotMeet_B16(t *testing.T) {
	s := newScene(t, attach.Standalone())
	release := s.rds.Hold(appliancetest.Create)
	first := make(chan error, 1)
	go func() {
		_, err := s.CreateVolume(t.Context(), createRequest("pvc-1", gib))
		first <- err
	}()
	waitFor(t, func() bool { return s.rds.Calls(appliancetest.Create) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // without the lock these would wait for the first
	defer cancel()
	_, err := s.CreateVolume(ctx, createRequest("pvc-1", gib))
	wants(t, err, codes.Aborted, "another operation")
	_, err = s.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: "rds1/" + appliance.SlotFor(cluster, "pvc-1")})
	wants(t, err, codes.Aborted, "DeleteVolume waits for CreateVolume")
	_, err = s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "rds1/other"})
	wants(t, err, codes.OK)
	release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	s.create("pvc-1")
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("it did not happen within 30 s")
		}
	}
}

func TestNothingIsKnownBeforeTheClusterIs(t *testing.T) {
	c := driver.NewController(rds1, attach.Standalone(), slog.New(slog.DiscardHandler))
	wants(t, c.Ready(), codes.Unavailable, "identity")
	_, err := c.CreateVolume(t.Context(), createRequest("pvc-1", gib))
	wants(t, err, codes.Unavailable)
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "rds1/pvc-x"})
	wants(t, err, codes.Unavailable)
	_, err = c.ControllerPublishVolume(t.Context(), publishRequest("rds1/pvc-x", "a"))
	wants(t, err, codes.Unavailable)
	_, err = c.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	wants(t, err, codes.Unavailable)
	_, err = c.GetCapacity(t.Context(), &csi.GetCapacityRequest{})
	wants(t, err, codes.Unavailable)
	_, err = c.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{VolumeId: "rds1/pvc-x"})
	wants(t, err, codes.OK) // a detach needs nothing
}

func TestDelete(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	del := func(id string) error {
		_, err := s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
		return err
	}
	wants(t, del(""), codes.InvalidArgument)
	wants(t, del("No Handle Of Ours"), codes.OK)
	wants(t, del("rds9/"+appliance.SlotFor(cluster, "pvc-1")), codes.FailedPrecondition, "rds9")
	s.rds.Fail(appliancetest.Delete, appliance.ErrUnavailable)
	wants(t, del(id), codes.Unavailable)
	wants(t, del(id), codes.OK)
	wants(t, del(id), codes.OK)
	if n := len(s.rds.Disks(t)) + len(s.rds.Files(t)); n != 0 {
		t.Errorf("%d disks and files are left", n)
	}
	s.rds.PutDisk(t, appliancetest.Disk{Slot: "pvc-foreign", Cluster: "another", Path: "/storage-pool/k8s/pvc-foreign.img", SizeBytes: gib})
	wants(t, del("rds1/pvc-foreign"), codes.FailedPrecondition)
}

// B10: the existing driver deletes a volume that a node uses.
func TestDeleteIsRefusedWhileAttached_B10(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	if _, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a")); err != nil {
		t.Fatal(err)
	}
	_, err := s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	wants(t, err, codes.FailedPrecondition, id, "node-a")
	// The same disk under the other way to write its handle.
	_, err = s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: strings.TrimPrefix(id, "rds1/")})
	wants(t, err, codes.FailedPrecondition, "node-a")
	if s.rds.Calls(appliancetest.Delete) != 0 {
		t.Error("the rds was asked")
	}
}

func TestDeleteIsRefusedWhileTheLedgerIsUnknown_B10(t *testing.T) {
	s := newScene(t, attach.NewLedger(attach.Options{}))
	id := s.create("pvc-1").GetVolumeId()
	_, err := s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	wants(t, err, codes.Unavailable)
	s.ledger.Replace(nil)
	_, err = s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	wants(t, err, codes.Unavailable)
	s.ledger.ReplaceNodes(nil)
	_, err = s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	wants(t, err, codes.OK)
}
