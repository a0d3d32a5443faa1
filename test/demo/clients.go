//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// What the kubelet and the sidecars would choose.
const (
	nodeName         = "node-1"
	volumeName       = "pvc-6f1c2b1e-7d1a-4c64-9a55-0d5c3f2a7b10"
	restoredName     = "pvc-9b0e4a52-31c8-4f5e-8d37-c2a1f06b7e94"
	snapshotName     = "snapshot-41d7c2a8-6b3f-4e0d-9a15-7f8e2b604c31"
	gib              = 1 << 30
	controllerSocket = "/run/rds-csi/controller.sock"
	nodeSocket       = "/run/rds-csi/node.sock"
)

// volume is what Kubernetes keeps of one, and where a node has it.
type volume struct {
	name      string            // the PersistentVolume's
	handle    string            // its CSI id
	slot      string            // its name on the RDS
	context   map[string]string // from CreateVolume, as the PersistentVolume would keep it
	published map[string]string // from ControllerPublishVolume, as the VolumeAttachment would
	staging   string
	target    string // the pod's
}

func newVolume(name, pod string) *volume {
	const kubelet = "/var/lib/kubelet"
	return &volume{
		name:    name,
		staging: kubelet + "/plugins/kubernetes.io/csi/rds.csi.srvlab.io/" + pod + "/globalmount",
		target:  kubelet + "/pods/" + pod + "/volumes/kubernetes.io~csi/" + name + "/mount",
	}
}

// makeFolders makes what the kubelet makes before the first call: the staging folder and the parent of the target.
func (v *volume) makeFolders() error {
	return errors.Join(os.MkdirAll(v.staging, 0o750), os.MkdirAll(filepath.Dir(v.target), 0o750))
}

// clients speak CSI to the two sockets: the controller's as external-provisioner and external-attacher do, the
// node's as the kubelet does.
type clients struct {
	identity   csi.IdentityClient
	controller csi.ControllerClient
	node       csi.NodeClient
}

func (c *clients) connect() error {
	toController, err := dialSocket(controllerSocket)
	if err != nil {
		return err
	}
	toNode, err := dialSocket(nodeSocket)
	if err != nil {
		return err
	}
	c.identity = csi.NewIdentityClient(toController)
	c.controller, c.node = csi.NewControllerClient(toController), csi.NewNodeClient(toNode)
	return nil
}

// dialSocket connects when first used, and again after the other side was restarted.
func dialSocket(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
}

// ext4 is the claim's capability: one node writes, a file system, and a mount option of the claim.
func ext4() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4", MountFlags: []string{"noatime"}}},
	}
}

// callCreate is what external-provisioner does for a claim, empty or from a snapshot.
func (d *demo) callCreate(ctx context.Context, v *volume, claim string, size int64, source *csi.VolumeContentSource) (int64, error) {
	answer, err := d.csi.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: v.name, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapabilities: []*csi.VolumeCapability{ext4()},
		Parameters:          map[string]string{"csi.storage.k8s.io/pvc/name": claim, "csi.storage.k8s.io/pvc/namespace": "demo"},
		VolumeContentSource: source,
	})
	if err != nil {
		return 0, wrap("CreateVolume", err)
	}
	made := answer.GetVolume()
	v.handle, v.context = made.GetVolumeId(), made.GetVolumeContext()
	v.slot = strings.TrimPrefix(v.handle, rdsName+"/")
	return made.GetCapacityBytes(), nil
}

// callPublish is what external-attacher does.
func (d *demo) callPublish(ctx context.Context, v *volume, node string) error {
	answer, err := d.csi.controller.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: v.handle, NodeId: node, VolumeCapability: ext4(), VolumeContext: v.context,
	})
	v.published = answer.GetPublishContext()
	return wrap("ControllerPublishVolume", err)
}

func (d *demo) callStage(ctx context.Context, v *volume) error {
	_, err := d.csi.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: v.handle, PublishContext: v.published, StagingTargetPath: v.staging,
		VolumeCapability: ext4(), VolumeContext: v.context,
	})
	return wrap("NodeStageVolume", err)
}

func (d *demo) callNodePublish(ctx context.Context, v *volume) error {
	_, err := d.csi.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: v.handle, PublishContext: v.published, StagingTargetPath: v.staging, TargetPath: v.target,
		VolumeCapability: ext4(), VolumeContext: v.context,
	})
	return wrap("NodePublishVolume", err)
}

// callLeave undoes both.
func (d *demo) callLeave(ctx context.Context, v *volume) error {
	if _, err := d.csi.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.handle, TargetPath: v.target}); err != nil {
		return wrap("NodeUnpublishVolume", err)
	}
	_, err := d.csi.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.handle, StagingTargetPath: v.staging})
	return wrap("NodeUnstageVolume", err)
}

// callDelete undoes publish and create.
func (d *demo) callDelete(ctx context.Context, v *volume) error {
	if _, err := d.csi.controller.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: v.handle, NodeId: nodeName}); err != nil {
		return wrap("ControllerUnpublishVolume", err)
	}
	_, err := d.csi.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.handle})
	return wrap("DeleteVolume", err)
}

func wrap(call string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", call, err)
	}
	return nil
}
