package driver

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/filesystem"
)

// NodePublishVolume makes a staged volume visible to a pod.
func (n *Node) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := checkNodePublish(req); err != nil {
		return nil, err
	}
	v, unlock, err := n.enter(req.GetVolumeId(), "NodePublishVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := n.publish(ctx, v, req); err != nil {
		return nil, n.wrap(v, err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func checkNodePublish(req *csi.NodePublishVolumeRequest) error {
	if req.GetVolumeId() == "" {
		return invalid("volume id is required")
	}
	if err := checkPath("target path", req.GetTargetPath()); err != nil {
		return err
	}
	if err := checkNodeCapability(req.GetVolumeCapability()); err != nil {
		return err
	}
	if req.GetStagingTargetPath() == "" {
		return refuse(codes.FailedPrecondition, "volume %s: staging target path is required: stage the volume first", req.GetVolumeId())
	}
	return checkPath("staging target path", req.GetStagingTargetPath())
}

func (n *Node) publish(ctx context.Context, v volume, req *csi.NodePublishVolumeRequest) error {
	p, target := placeOf(req), filepath.Clean(req.GetTargetPath())
	if err := p.checkGranted(); err != nil {
		return err
	}
	mount, err := n.provenStaging(ctx, v, p)
	if err != nil {
		return err
	}
	if err := n.checkSingleWriter(v, p, mount, target); err != nil {
		return err
	}
	readonly := req.GetReadonly() || readOnlyAtNode(p.capability)
	if p.block() {
		return n.publishBlock(ctx, v, p, target, readonly)
	}
	return n.cfg.Filesystem.Bind(ctx, p.path, target, readonly, nil)
}

// provenStaging proves the device again: between stage and publish the same node may have lost the volume and got it
// back under a live mount, and kubelet notices nothing of it (kubernetes#119273).
func (n *Node) provenStaging(ctx context.Context, v volume, p place) (filesystem.Mount, error) {
	mount, mounted, err := n.cfg.Filesystem.Mounted(p.path)
	if err != nil {
		return mount, err
	}
	if !mounted {
		err = n.stageMissing(ctx, v, p)
	} else if err = p.checkStaged(v, mount); err != nil {
		return mount, err
	} else if lost, cause := n.checkDevice(v, p.path, mount); cause != nil {
		err = n.restage(ctx, v, p, mount, lost, cause)
	} else {
		return mount, nil
	}
	if err != nil {
		return mount, err
	}
	mount, _, err = n.cfg.Filesystem.Mounted(p.path)
	return mount, err
}

// stageMissing goes on where a restage ended between its unmount and its mount: kubelet takes the volume for staged and
// will not stage it again. A request that does not say where the volume is was not staged by kubelet.
func (n *Node) stageMissing(ctx context.Context, v volume, p place) error {
	if len(p.publish) == 0 {
		return refuse(codes.FailedPrecondition, "nothing is mounted at %s: stage the volume first", p.path)
	}
	conn, err := parseConnection(v.nqn, p.publish, p.volume, n.cfg.Options)
	if err != nil {
		return err
	}
	n.cfg.Logger.WarnContext(ctx, "published, but nothing is staged: staging the volume", "volume", v.handle, "node", n.cfg.NodeID, "path", p.path)
	return n.stage(ctx, v, conn, p)
}

// checkSingleWriter keeps a ReadWriteOncePod volume to one pod. One that is published at its target already is the pod
// that has it, and whatever else is mounted is its own: kubelet mounts each subPath from the target once more.
func (n *Node) checkSingleWriter(v volume, p place, mount filesystem.Mount, target string) error {
	if p.capability.GetAccessMode().GetMode() != csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		return nil
	}
	places, err := n.places(v, p, mount)
	if err != nil {
		return err
	}
	if slices.Contains(places, resolve(target)) {
		return nil
	}
	staging := resolve(p.path)
	for _, place := range places {
		if place != staging {
			return refuse(codes.FailedPrecondition, "it is for a single writer (ReadWriteOncePod) and is published at %s already", place)
		}
	}
	return nil
}

// places are where the volume is: mounted, or shown as a device file.
func (n *Node) places(v volume, p place, mount filesystem.Mount) ([]string, error) {
	if p.block() {
		return n.cfg.Filesystem.BlockPlaces(v.nqn)
	}
	return n.cfg.Mounts(mount.Major, mount.Minor)
}

// NodeUnpublishVolume takes the volume from a pod. Whatever is mounted at the target goes, of whichever device: that is
// what is asked, and a mount of a dead device must not keep the pod from going.
func (n *Node) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is required")
	}
	if err := checkPath("target path", req.GetTargetPath()); err != nil {
		return nil, err
	}
	v, unlock, err := n.enter(req.GetVolumeId(), "NodeUnpublishVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := n.cfg.Filesystem.Unmount(ctx, filepath.Clean(req.GetTargetPath())); err != nil {
		return nil, n.wrap(v, err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
