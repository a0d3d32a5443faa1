package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// NodeExpandVolume makes a staged volume as large on this node as it is on the RDS: first the device, which the kernel
// has to learn about, then the file system on it. It arrives when it is not required, again, and before the device has
// grown (kubernetes#115294, #131419, dell/csm#1534): nothing is answered that was not seen.
func (n *Node) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if err := checkExpand(req); err != nil {
		return nil, err
	}
	v, unlock, err := n.enter(req.GetVolumeId(), "NodeExpandVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	size, err := n.expand(ctx, v, req)
	if err != nil {
		return nil, n.wrap(v, err)
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

func checkExpand(req *csi.NodeExpandVolumeRequest) error {
	if req.GetVolumeId() == "" {
		return invalid("volume id is required")
	}
	if err := checkVolumePath(req.GetVolumePath()); err != nil {
		return err
	}
	if req.GetStagingTargetPath() != "" {
		if err := checkPath("staging target path", req.GetStagingTargetPath()); err != nil {
			return err
		}
	}
	if c := req.GetVolumeCapability(); c != nil {
		if err := checkNodeCapability(c); err != nil {
			return err
		}
	}
	r := req.GetCapacityRange()
	if r.GetRequiredBytes() < 0 || r.GetLimitBytes() < 0 || r.GetLimitBytes() > 0 && r.GetLimitBytes() < r.GetRequiredBytes() {
		return refuse(codes.OutOfRange, "volume %s: capacity range of %d to %d bytes", req.GetVolumeId(), r.GetRequiredBytes(), r.GetLimitBytes())
	}
	return nil
}

// checkVolumePath: at a path that this driver never mounts at, no volume is found.
func checkVolumePath(path string) error {
	if path == "" {
		return invalid("volume path is required")
	}
	if err := checkPath("volume path", path); err != nil {
		return refuse(codes.NotFound, "%v: no volume is there", err)
	}
	return nil
}

func (n *Node) expand(ctx context.Context, v volume, req *csi.NodeExpandVolumeRequest) (size int64, err error) {
	path, mount, err := n.locate(v, req.GetStagingTargetPath(), req.GetVolumePath())
	if err != nil {
		return 0, err
	}
	if raw := req.GetVolumeCapability().GetBlock() != nil; req.GetVolumeCapability() != nil && raw != (mount.Volume != "") {
		return 0, invalid("%s is %s, the capability says otherwise", path, mount.FSType)
	}
	if _, err := n.checkDevice(v, path, mount); err != nil {
		return 0, err
	}
	ns, err := n.cfg.Initiator.Grown(ctx, v.nqn, req.GetCapacityRange().GetRequiredBytes())
	if errors.Is(err, nvme.ErrOldSize) {
		return 0, fmt.Errorf("%w; the RDS shows the new size to new connections only: stop the pods that use the volume on this node, "+
			"so that it is disconnected; the next one gets it with its new size", err)
	}
	if err != nil || mount.Volume != "" {
		return ns.SizeBytes, err
	}
	return ns.SizeBytes, n.cfg.Filesystem.Grow(ctx, deviceOf(ns), path)
}

// locate answers where the volume is on this node, the first of the paths at which it is mounted. The staging path goes
// first: what is published of it may be read-only.
func (n *Node) locate(v volume, paths ...string) (string, filesystem.Mount, error) {
	for _, path := range paths {
		if path == "" {
			continue
		}
		path = filepath.Clean(path)
		mount, mounted, err := n.cfg.Filesystem.Mounted(path)
		if err != nil {
			return "", mount, err
		}
		if mounted && (mount.Volume == "" || mount.Volume == v.nqn) {
			return path, mount, nil
		}
	}
	return "", filesystem.Mount{}, refuse(codes.NotFound, "it is neither staged nor published at %s", paths[len(paths)-1])
}
