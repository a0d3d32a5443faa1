package driver

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// place is where a volume is staged and how: stage and publish requests both carry all of it.
type place struct {
	path            string
	capability      *csi.VolumeCapability
	publish, volume map[string]string // the contexts
	dead            bool              // a mount of a device that is gone is there, and goes once the volume is connected
}

// stageable is what both requests say.
type stageable interface {
	GetStagingTargetPath() string
	GetVolumeCapability() *csi.VolumeCapability
	GetPublishContext() map[string]string
	GetVolumeContext() map[string]string
}

func placeOf(req stageable) place {
	return place{
		path: filepath.Clean(req.GetStagingTargetPath()), capability: req.GetVolumeCapability(),
		publish: req.GetPublishContext(), volume: req.GetVolumeContext(),
	}
}

// restage mounts the volume anew where a mount of its lost device is in the way, and answers the cause where it must not.
//
// The kernel gives a controller up whatever ctrl_loss_tmo says when the target answers that the subsystem does not exist
// [R]: an RDS that listens before its exports are back. Every read and write of the old mount fails from then on. A pod
// that is made again on the same node gets neither an unstage nor a stage from kubelet, only a publish, so without this
// the volume would stay lost until somebody unmounts it by hand.
//
// Three things must hold: the kernel has the old device no more, nothing but the staging path is mounted from it (a pod
// that has it keeps it until it is stopped), and the volume is connected. Only then is the dead mount taken away.
func (n *Node) restage(ctx context.Context, v volume, p place, mount filesystem.Mount, lost bool, cause error) error {
	if !lost {
		return cause
	}
	if err := n.unused(v, p, mount); err != nil {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	conn, err := parseConnection(v.nqn, p.publish, p.volume, n.cfg.Options)
	if err != nil {
		return fmt.Errorf("%w (it cannot be staged anew: %w)", cause, err)
	}
	n.cfg.Logger.WarnContext(ctx, "the staged device is gone and no pod has it: staging the volume anew; writes that were not synced are lost",
		"volume", v.handle, "node", n.cfg.NodeID, "nqn", v.nqn, "path", p.path, "device", fmt.Sprintf("%d:%d", mount.Major, mount.Minor), "reason", cause)
	p.dead = true
	return n.stage(ctx, v, conn, p)
}

// unused proves that what is staged is of a device that is gone, and that nobody has it. The file of a raw volume holds
// no device, so the old number may be another device's by now, and only who has the file counts.
func (n *Node) unused(v volume, p place, mount filesystem.Mount) error {
	if mount.Volume != "" {
		return n.refuseBlocksOf(v, p.path)
	}
	present, err := n.cfg.Initiator.Present(mount.Major, mount.Minor)
	if err != nil {
		return fmt.Errorf("whether device %d:%d is gone cannot be told: %w", mount.Major, mount.Minor, err)
	}
	if present {
		return fmt.Errorf("%w: device %d:%d is still there", nvme.ErrInUse, mount.Major, mount.Minor)
	}
	return n.refuseMountsOf(mount.Major, mount.Minor, p.path)
}
