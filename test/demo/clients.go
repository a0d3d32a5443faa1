//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// What the kubelet and the sidecars would choose.
const (
	nodeName         = "node-1"
	volumeName       = "pvc-6f1c2b1e-7d1a-4c64-9a55-0d5c3f2a7b10"
	gib              = 1 << 30
	controllerSocket = "/run/rds-csi/controller.sock"
	nodeSocket       = "/run/rds-csi/node.sock"
	stagingPath      = "/var/lib/kubelet/plugins/kubernetes.io/csi/rds.csi.srvlab.io/demo/globalmount"
	targetPath       = "/var/lib/kubelet/pods/0d7c1f0e/volumes/kubernetes.io~csi/" + volumeName + "/mount"
)

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

// makeFolders makes what exists on a node before the first call: the kubelet makes the staging folder and the parent
// of the target.
func makeFolders() error {
	var err error
	for _, dir := range []string{filepath.Dir(controllerSocket), rdsFolder, stagingPath, filepath.Dir(targetPath)} {
		err = errors.Join(err, os.MkdirAll(dir, 0o750))
	}
	return err
}

// ext4 is the claim's capability: one node writes, a file system, and a mount option of the claim.
func ext4() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4", MountFlags: []string{"noatime"}}},
	}
}

func (d *demo) callStage(ctx context.Context) error {
	_, err := d.csi.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: d.handle, PublishContext: d.published, StagingTargetPath: stagingPath,
		VolumeCapability: ext4(), VolumeContext: d.context,
	})
	return wrap("NodeStageVolume", err)
}

func (d *demo) callNodePublish(ctx context.Context) error {
	_, err := d.csi.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: d.handle, PublishContext: d.published, StagingTargetPath: stagingPath, TargetPath: targetPath,
		VolumeCapability: ext4(), VolumeContext: d.context,
	})
	return wrap("NodePublishVolume", err)
}

func wrap(call string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", call, err)
	}
	return nil
}
