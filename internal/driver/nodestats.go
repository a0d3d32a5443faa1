package driver

import (
	"context"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/filesystem"
)

// Gauges looks at what is mounted, each question bounded and at most one per device in the kernel.
type Gauges interface {
	// Usage answers how full the file system mounted at target is.
	Usage(ctx context.Context, dev filesystem.Device, target string) (filesystem.Usage, error)
	// Examine answers what is wrong with the file system mounted at target.
	Examine(ctx context.Context, dev filesystem.Device, target string) ([]filesystem.Symptom, error)
}

// NodeGetVolumeStats answers how full a volume is. It takes no lock: kubelet asks once a minute, whatever else goes on
// with the volume, and a file system that does not answer must not keep it from being unpublished.
func (n *Node) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	v, err := volumeOf(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := checkVolumePath(req.GetVolumePath()); err != nil {
		return nil, err
	}
	usage, err := n.stats(ctx, v, filepath.Clean(req.GetVolumePath()))
	if err != nil {
		return nil, n.wrap(v, err)
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: usage}, nil
}

func (n *Node) stats(ctx context.Context, v volume, path string) ([]*csi.VolumeUsage, error) {
	path, mount, err := n.locate(v, path)
	if err != nil {
		return nil, err
	}
	if lost, err := n.checkDevice(v, path, mount); lost {
		return nil, refuse(codes.NotFound, "%v", err)
	} else if err != nil {
		return nil, err
	}
	ns, err := n.device(v)
	if err != nil {
		return nil, err
	}
	if mount.Volume != "" { // what of a raw volume is used, only its user knows
		return []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: ns.SizeBytes}}, nil
	}
	usage, err := n.cfg.Filesystem.Usage(ctx, deviceOf(ns), path)
	if err != nil {
		return nil, err
	}
	return []*csi.VolumeUsage{
		usageOf(csi.VolumeUsage_BYTES, usage.Bytes),
		usageOf(csi.VolumeUsage_INODES, usage.Inodes),
	}, nil
}

// usageOf never answers less than nothing: a file system's counters are not read at one instant.
func usageOf(unit csi.VolumeUsage_Unit, a filesystem.Amount) *csi.VolumeUsage {
	return &csi.VolumeUsage{Unit: unit, Total: max(a.Total, 0), Used: max(a.Used, 0), Available: max(a.Available, 0)}
}
