package driver_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
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
	"github.com/rds-csi/rds-csi/internal/driver/drivertest"
	"github.com/rds-csi/rds-csi/internal/nvme"
	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim"
)

// adoptedPV is a PersistentVolume as the existing driver for this device and external-provisioner left it.
const adoptedPV = `{
	"apiVersion": "v1", "kind": "PersistentVolume",
	"metadata": {
		"name": "pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11",
		"annotations": {"pv.kubernetes.io/provisioned-by": "rds.csi.srvlab.io", "rds.csi.srvlab.io/attached-node": "node-z", "rds.csi.srvlab.io/attached-at": "2026-02-01T10:00:00Z"},
		"finalizers": ["external-provisioner.volume.kubernetes.io/finalizer", "kubernetes.io/pv-protection", "external-attacher/rds-csi-srvlab-io"]
	},
	"spec": {
		"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Filesystem",
		"csi": {
			"driver": "rds.csi.srvlab.io", "fsType": "ext4", "volumeHandle": "pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11",
			"volumeAttributes": {
				"rdsAddress": "10.42.241.3", "nvmeAddress": "10.42.68.9", "nvmePort": "4420",
				"nqn": "nqn.2000-02.com.mikrotik:pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11",
				"volumePath": "/storage-pool/metal-csi/pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11.img",
				"ctrlLossTmo": "600", "reconnectDelay": "5", "keepAliveTmo": "0", "migrationTimeoutSeconds": "300",
				"storage.kubernetes.io/csiProvisionerIdentity": "1769900000000-4711-rds.csi.srvlab.io"
			}
		}
	}
}`

// persistentVolume is what the sidecars and kubelet read from it.
type persistentVolume struct {
	Spec struct {
		CSI struct {
			Driver, FSType, VolumeHandle string
			VolumeAttributes             map[string]string
		}
	}
}

// adopt makes the disk item as the existing driver's console command does, on a device with a file of another volume beside it,
// and reads the PersistentVolume.
func adopt(t *testing.T) (*rig, persistentVolume) {
	t.Helper()
	return adoptOn(t, sim.Options{})
}

func adoptOn(t *testing.T, o sim.Options) (*rig, persistentVolume) {
	t.Helper()
	o.Quirks = map[string]string{"slot-over-32": "accept"} // such a device has these volumes
	r := start(t, o)
	var pv persistentVolume
	if err := json.Unmarshal([]byte(adoptedPV), &pv); err != nil {
		t.Fatal(err)
	}
	c := pv.Spec.CSI
	r.run(routeros.NewScript("the_existing_driver").
		Add(`/file add name="storage-pool/metal-csi" type=directory`).
		Add(`/disk add type=file file-path=? file-size=1G slot=? nvme-tcp-export=yes nvme-tcp-server-port=4420 nvme-tcp-server-nqn=?`,
			routeros.Text(c.VolumeAttributes["volumePath"]), routeros.Text(c.VolumeHandle), routeros.Text(c.VolumeAttributes["nqn"])))
	disk, ok := r.server.Device.Disk(c.VolumeHandle)
	if !ok || !disk.MountFilesystem || disk.Comment != "" || !disk.Export {
		t.Fatalf("this is not what the existing driver makes: %+v", disk)
	}
	return r, pv
}

// options remembers how volumes are connected.
type options struct {
	*drivertest.Kernel
	got nvme.Options
}

func (o *options) Connect(ctx context.Context, t nvme.Target, with nvme.Options) (nvme.Namespace, error) {
	o.got = with
	return o.Kernel.Connect(ctx, t, with)
}

// A volume of the existing driver attaches, mounts, grows and is deleted as it is. What was unsafe about it is put right once,
// and told.
func TestAdoption(t *testing.T) {
	r, pv := adopt(t)
	c := pv.Spec.CSI
	var told []string
	r.Repaired = func(volume, message string) { told = append(told, volume+": "+message) }

	var published map[string]string
	for range 2 {
		reply, err := r.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
			VolumeId: c.VolumeHandle, NodeId: "node-a", VolumeContext: c.VolumeAttributes, VolumeCapability: capability(oneWriter, c.FSType),
		})
		if err != nil {
			t.Fatal(err)
		}
		published = reply.GetPublishContext()
	}
	if len(told) != 1 || !strings.Contains(told[0], "rds1/"+c.VolumeHandle) || !strings.Contains(told[0], "belongs to this cluster") || !strings.Contains(told[0], "mount-filesystem") {
		t.Errorf("told: %q; want it once", told)
	}
	disk, _ := r.server.Device.Disk(c.VolumeHandle)
	if disk.MountFilesystem || !disk.Export || !strings.HasPrefix(disk.Comment, "rds-csi/1 cluster="+cluster+" ") {
		t.Errorf("on the rds: %+v", disk)
	}
	list, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil || len(list.GetEntries()) != 1 || list.GetEntries()[0].GetVolume().GetVolumeId() != c.VolumeHandle ||
		!slices.Equal(list.GetEntries()[0].GetStatus().GetPublishedNodeIds(), []string{"node-a"}) {
		t.Errorf("%v, %v; want it under the handle that Kubernetes knows", list, err)
	}
	onANode(t, r, pv, published)
	for _, call := range []func() error{
		func() error { return r.expand(t.Context(), c.VolumeHandle, 2*gib) },
		func() error { return r.unpublish(t.Context(), c.VolumeHandle, "node-a") },
		func() error { return r.delete(t.Context(), c.VolumeHandle) },
	} {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	if _, there := r.server.Device.File(strings.TrimPrefix(c.VolumeAttributes["volumePath"], "/")); there || len(r.server.Device.Disks()) != 0 {
		t.Error("something is left")
	}
}

// onANode stages, publishes and takes it away again, with what the PersistentVolume says of the connection.
func onANode(t *testing.T, r *rig, pv persistentVolume, published map[string]string) {
	t.Helper()
	c := pv.Spec.CSI
	kernel := drivertest.NewKernel(func(nqn string) (int64, bool) {
		d, ok := r.server.Device.Disk(c.VolumeHandle)
		return d.FileSize, ok && d.Export && d.NQN == nqn
	})
	initiator := &options{Kernel: kernel}
	defaults := nvme.Options{CtrlLossTimeout: -1, ReconnectDelay: 2 * time.Second, KeepAlive: 7 * time.Second}
	node := driver.NewNode(driver.NodeConfig{NodeID: "node-a", Initiator: initiator, Filesystem: kernel, Mounts: kernel.Mounts, Options: defaults, Logger: slog.New(slog.DiscardHandler)})
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	staging, target, can := filepath.Join(dir, "globalmount"), filepath.Join(dir, "mount"), capability(oneWriter, c.FSType)
	if _, err := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: c.VolumeHandle, StagingTargetPath: staging, VolumeCapability: can, VolumeContext: c.VolumeAttributes, PublishContext: published,
	}); err != nil {
		t.Fatal(err)
	}
	// What it said in seconds, but for a keep-alive that is off: that would hide a dead target.
	if want := (nvme.Options{CtrlLossTimeout: 600 * time.Second, ReconnectDelay: 5 * time.Second, KeepAlive: 7 * time.Second}); initiator.got != want {
		t.Errorf("connected with %+v, want %+v", initiator.got, want)
	}
	if _, err := node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: c.VolumeHandle, StagingTargetPath: staging, TargetPath: target, VolumeCapability: can, VolumeContext: c.VolumeAttributes, PublishContext: published,
	}); err != nil {
		t.Fatal(err)
	}
	if n := kernel.MountsAt(target); n != 1 {
		t.Errorf("%d mounts", n)
	}
	if _, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: c.VolumeHandle, TargetPath: target}); err != nil {
		t.Fatal(err)
	}
	if _, err := node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: c.VolumeHandle, StagingTargetPath: staging}); err != nil {
		t.Fatal(err)
	}
	if left := kernel.Connected(); len(left) != 0 {
		t.Errorf("still connected: %v", left)
	}
}

// Attached by the existing driver before the change: its publish context is in the VolumeAttachment, and the node knows no other.
func TestStageWithThePublishContextOfTheExistingDriver(t *testing.T) {
	r, pv := adopt(t)
	c := pv.Spec.CSI
	onANode(t, r, pv, map[string]string{"nvme_address": "10.42.68.9", "nvme_port": "4420", "nvme_nqn": c.VolumeAttributes["nqn"], "fs_type": "ext4"})
	if d := driver.MigrationTimeout(c.VolumeAttributes); d != 5*time.Minute {
		t.Errorf("a migration has %s", d)
	}
}

// What the RDS has mounted is not handed out, adopted or not: somebody has to look at it first.
func TestAdoptionOfWhatTheRDSHasMounted(t *testing.T) {
	s := newScene(t, attach.Standalone())
	s.rds.PutDisk(t, appliancetest.Disk{
		Slot: adopted, Path: "/storage-pool/metal-csi/" + adopted + ".img", SizeBytes: gib, NQN: appliance.NQNFor(adopted), Exported: true,
		MountFilesystem: true, Mounted: true,
	})
	_, err := s.ControllerPublishVolume(t.Context(), publishRequest(adopted, "node-a"))
	wants(t, err, codes.FailedPrecondition, adopted, "mount")
	if d := s.rds.Disks(t)[adopted]; d.Cluster != "" || !d.MountFilesystem {
		t.Errorf("it was changed: %+v", d)
	}
}

// Snapshots and clones of a plain file, on a pool that could share blocks: a copy all the same, so only while it is detached.
func TestSnapshotOfAnAdoptedVolume(t *testing.T) {
	r, pv := adopt(t)
	_, err := r.snapshot(t.Context(), "snapshot-1", pv.Spec.CSI.VolumeHandle) // it gets its owner when it is attached
	wants(t, err, codes.FailedPrecondition, "attach it once")
	if err := errors.Join(r.publish(t.Context(), pv.Spec.CSI.VolumeHandle, "node-a"), r.unpublish(t.Context(), pv.Spec.CSI.VolumeHandle, "node-a")); err != nil {
		t.Fatal(err)
	}
	s := r.ready("snapshot-1", pv.Spec.CSI.VolumeHandle)
	if s.GetSourceVolumeId() != pv.Spec.CSI.VolumeHandle || s.GetSnapshotId() != "rds1/"+appliance.SnapshotIDFor(cluster, "snapshot-1") {
		t.Errorf("%v", s)
	}
	list, err := r.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SourceVolumeId: pv.Spec.CSI.VolumeHandle})
	if err != nil || len(list.GetEntries()) != 1 || list.GetEntries()[0].GetSnapshot().GetSourceVolumeId() != pv.Spec.CSI.VolumeHandle {
		t.Errorf("%v, %v", list, err)
	}
	v := r.restored("pvc-restored", 2*gib, ofSnapshot(s.GetSnapshotId()))
	if v.GetCapacityBytes() != 2*gib {
		t.Errorf("%v", v)
	}
}
