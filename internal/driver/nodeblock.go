package driver

import (
	"context"
	"errors"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// Blocks shows raw block volumes as device files. A volume is named by its NQN: that is what marks its places in the
// mount table, under whatever number the device comes back after a reconnect.
type Blocks interface {
	// StageBlock makes the device file at target; it neither reads nor writes the device.
	StageBlock(ctx context.Context, volume string, dev filesystem.Device, target string) error
	// PublishBlock shows the staged file at target, and makes the device read-only or writable.
	PublishBlock(ctx context.Context, volume string, dev filesystem.Device, staging, target string, readonly bool) error
	// BlockPlaces lists every place where the volume is staged or published as a raw one.
	BlockPlaces(volume string) ([]string, error)
}

// checkNodeCapability accepts what a node can do with a volume. Which nodes may have it at the same time is the
// controller's decision: by the time a node is asked, it is made.
func checkNodeCapability(c *csi.VolumeCapability) error {
	if c.GetAccessMode().GetMode() != csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY {
		return checkCapability(c)
	}
	// Here one of many readers is no other than the only one.
	return checkCapability(&csi.VolumeCapability{
		AccessType: c.GetAccessType(),
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY},
	})
}

// readOnlyAtNode says whether nobody on a node may write to the volume.
func readOnlyAtNode(c *csi.VolumeCapability) bool {
	return readOnly(c) || c.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
}

func (p place) block() bool { return p.capability.GetBlock() != nil }

// checkStaged refuses to take what is staged for something else: a raw volume for a file system or the other way round,
// another volume's device file, a writable mount for one that must not be written to.
func (p place) checkStaged(v volume, mount filesystem.Mount) error {
	switch {
	case p.block() && mount.Volume == "":
		return refuse(codes.AlreadyExists, "%s is staged as a file system (%s), not as a raw block volume", p.path, mount.FSType)
	case !p.block() && mount.Volume != "":
		return refuse(codes.AlreadyExists, "%s is staged as a raw block volume, not as a file system: nothing is formatted", p.path)
	case p.block() && mount.Volume != v.nqn:
		return refuse(codes.FailedPrecondition, "%s is staged for %s, the volume is %s", p.path, mount.Volume, v.nqn)
	}
	return nil
}

// checkKind keeps one volume from being a file system and a raw device at the same time on this node. What pods wrote
// to a raw volume may look blank where a look for signatures looks.
func (n *Node) checkKind(v volume, ns nvme.Namespace, p place) error {
	find, kind := func() ([]string, error) { return n.cfg.Filesystem.BlockPlaces(v.nqn) }, "a raw block volume"
	if p.block() {
		find, kind = func() ([]string, error) { return n.cfg.Mounts(ns.Major, ns.Minor) }, "a file system"
	}
	places, err := find()
	if err != nil {
		return err
	}
	if places = slices.DeleteFunc(places, func(place string) bool { return place == resolve(p.path) }); len(places) > 0 {
		return refuse(codes.FailedPrecondition, "it is in use as %s at %s: a volume is one or the other", kind, places[0])
	}
	return nil
}

// publishBlock shows the device file to a pod.
func (n *Node) publishBlock(ctx context.Context, v volume, p place, target string, readonly bool) error {
	ns, err := n.device(v)
	if err != nil {
		return err
	}
	return n.cfg.Filesystem.PublishBlock(ctx, v.nqn, deviceOf(ns), p.path, target, readonly)
}

// device is the volume's, also while its target is away.
func (n *Node) device(v volume) (nvme.Namespace, error) {
	ns, err := n.cfg.Initiator.Find(v.nqn)
	if errors.Is(err, nvme.ErrNotLive) {
		err = nil
	}
	return ns, err
}

func deviceOf(ns nvme.Namespace) filesystem.Device {
	return filesystem.Device{Path: ns.DevicePath, Major: ns.Major, Minor: ns.Minor, SizeBytes: ns.SizeBytes}
}

// refuseBlocksOf fails while a raw volume is shown anywhere but at one path, by this driver or by kubelet, which binds
// what is published once more.
func (n *Node) refuseBlocksOf(v volume, except string) error {
	places, err := n.cfg.Filesystem.BlockPlaces(v.nqn)
	if err != nil {
		return err
	}
	for _, place := range places {
		if place != resolve(except) {
			return refuse(codes.FailedPrecondition, "its device file is still at %s: unpublish it there first", place)
		}
	}
	return nil
}
