package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// Initiator connects volumes to this node.
type Initiator interface {
	Connector
	Devices
}

// Connector makes and ends connections.
type Connector interface {
	// Connect answers the volume's proven block device, connecting first if need be.
	Connect(context.Context, nvme.Target, nvme.Options) (nvme.Namespace, error)
	// Disconnect has succeeded when the NQN has left the kernel; it refuses a device in use.
	Disconnect(ctx context.Context, nqn string) error
}

// Devices tells of the devices that are connected.
type Devices interface {
	// Find looks in the kernel; with ErrNotLive it still answers the device.
	Find(nqn string) (nvme.Namespace, error)
	// Present says whether the kernel still has this block device; a mount may outlive it.
	Present(major, minor uint32) (bool, error)
	// Grown answers the device once it has that many bytes; ErrOldSize when the RDS does not show them.
	Grown(ctx context.Context, nqn string, bytes int64) (nvme.Namespace, error)
	// Sessions lists this node's connections to volumes.
	Sessions() ([]nvme.Session, error)
}

// Filesystem mounts volumes on this node.
type Filesystem interface {
	Mounter
	Blocks
	Grower
	Gauges
}

// Grower makes file systems larger.
type Grower interface {
	// Grow makes the file system mounted at target as large as the device; it has succeeded when it is.
	Grow(ctx context.Context, dev filesystem.Device, target string) error
}

// Mounter mounts file systems.
type Mounter interface {
	// Stage mounts the device at target, and makes a file system only on what is proven blank.
	Stage(ctx context.Context, dev filesystem.Device, target, fsType string, options []string) error
	// Mounted answers the top-most mount at exactly this path.
	Mounted(path string) (filesystem.Mount, bool, error)
	// Bind makes what is staged visible at target; what is there as asked stays as it is.
	Bind(ctx context.Context, staging, target string, readonly bool, options []string) error
	// Unmount unmounts until nothing is left at target and removes it when empty.
	Unmount(ctx context.Context, target string) error
}

// Mounts lists every place where a device is mounted, as this process sees it.
type Mounts func(major, minor uint32) ([]string, error)

// NodeConfig is what a node plugin is made of.
type NodeConfig struct {
	NodeID     string // the Kubernetes name of the node: VolumeAttachments name it so
	Initiator  Initiator
	Filesystem Filesystem
	Mounts     Mounts
	Topology   Topology
	Options    nvme.Options // unless the volume's context says otherwise
	MaxVolumes int64        // that may be attached to the node at once; 0: not limited
	Logger     *slog.Logger
}

// Node is the CSI node service. It asks the kernel each time and needs no RDS, no API server and no memory.
type Node struct {
	csi.UnimplementedNodeServer

	cfg   NodeConfig
	locks locks
}

// NewNode makes a node service.
func NewNode(cfg NodeConfig) *Node { return &Node{cfg: cfg} }

// NodeGetInfo names the node, and says how many volumes it can hold: the scheduler counts on it, and a limit that is too
// low strands pods (kubernetes-sigs/aws-ebs-csi-driver#1163). See nvme.Initiator.MaxVolumes for what bounds it.
func (n *Node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId: n.cfg.NodeID, MaxVolumesPerNode: n.cfg.MaxVolumes, AccessibleTopology: n.cfg.Topology.announced(n.cfg.NodeID),
	}, nil
}

// NodeGetCapabilities lists exactly what is built.
func (n *Node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	built := []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH,
	}
	caps := make([]*csi.NodeServiceCapability, 0, len(built))
	for _, t := range built {
		caps = append(caps, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{
			Rpc: &csi.NodeServiceCapability_RPC{Type: t},
		}})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: caps}, nil
}

// volume is one volume as a node request names it.
type volume struct {
	handle string
	nqn    string
}

// anyRDS stands for the appliance of a bare handle: the node reaches a volume by its NQN, which the slot alone decides.
const anyRDS = "default"

// volumeOf reads a handle.
func volumeOf(handle string) (volume, error) {
	if handle == "" {
		return volume{}, invalid("volume id is required")
	}
	id, err := appliance.ParseID(handle, anyRDS)
	if err != nil {
		return volume{}, err
	}
	return volume{handle: handle, nqn: appliance.NQNFor(id.Slot)}, nil
}

// enter reads a handle and locks its volume.
func (n *Node) enter(handle, operation string) (volume, func(), error) {
	v, err := volumeOf(handle)
	if err != nil {
		return v, nil, err
	}
	// The NQN is the key: two ways to write the handle are one device.
	unlock, err := n.locks.lock(v.nqn, operation)
	return v, unlock, err
}

func checkPath(what, path string) error {
	if path == "" {
		return invalid("%s is required", what)
	}
	if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
		return invalid("%s %q is not an absolute path", what, path)
	}
	return nil
}

// undoTime bounds taking back what a failed call did, after its own deadline may have passed.
const undoTime = 20 * time.Second

// NodeStageVolume connects the volume, makes its file system if it has none, and mounts it at the staging path.
func (n *Node) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is required")
	}
	if err := checkPath("staging target path", req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	if err := checkNodeCapability(req.GetVolumeCapability()); err != nil {
		return nil, err
	}
	v, unlock, err := n.enter(req.GetVolumeId(), "NodeStageVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	p := placeOf(req)
	if err := p.checkGranted(); err != nil {
		return nil, n.wrap(v, err)
	}
	conn, err := parseConnection(v.nqn, p.publish, p.volume, n.cfg.Options)
	if err != nil {
		return nil, n.wrap(v, err)
	}
	if err := n.stageOnce(ctx, v, conn, p); err != nil {
		return nil, n.wrap(v, err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// stageOnce looks first (B1): kubelet stages again after every restart of its own, under the feet of running pods. What
// is there as asked is success, what is there otherwise is refused, and neither changes anything.
func (n *Node) stageOnce(ctx context.Context, v volume, conn connection, p place) error {
	mount, mounted, err := n.cfg.Filesystem.Mounted(p.path)
	if err != nil {
		return err
	}
	if !mounted {
		return n.stage(ctx, v, conn, p)
	}
	if err := p.checkStaged(v, mount); err != nil {
		return err
	}
	if lost, err := n.checkDevice(v, p.path, mount); err != nil {
		return n.restage(ctx, v, p, mount, lost, err)
	}
	if !p.block() && readOnlyAtNode(p.capability) && !mount.ReadOnly {
		return refuse(codes.AlreadyExists, "%s is staged writable, not read-only", p.path)
	}
	if asked := p.capability.GetMount().GetFsType(); asked != "" && asked != mount.FSType {
		return refuse(codes.AlreadyExists, "%s is staged with %s, not with %s", p.path, mount.FSType, asked)
	}
	return nil
}

// checkDevice proves that a mount is of the device that is this volume now. A device that the kernel is reconnecting is
// still this volume's; one that came back under another number is not (openebs/mayastor#1777, kubernetes#119273). Lost
// says that the kernel knows the volume and that the mount is not of it; any other error says only that nothing is known.
func (n *Node) checkDevice(v volume, path string, mount filesystem.Mount) (lost bool, err error) {
	ns, err := n.cfg.Initiator.Find(v.nqn)
	if err != nil && !errors.Is(err, nvme.ErrNotLive) {
		lost = errors.Is(err, nvme.ErrNotConnected) || errors.Is(err, nvme.ErrNoPath) || errors.Is(err, nvme.ErrNoNamespace)
		return lost, fmt.Errorf("%s is mounted, but its volume: %w; stop the pods that use it, so that it is unstaged", path, err)
	}
	if ns.Major != mount.Major || ns.Minor != mount.Minor {
		return true, refuse(codes.FailedPrecondition, "%s is mounted from device %d:%d, but the volume is device %d:%d now; stop the pods that use it, so that it is unstaged",
			path, mount.Major, mount.Minor, ns.Major, ns.Minor)
	}
	return false, nil
}

// stage leaves no connection behind when it fails, whoever made it: a plugin that was killed between its connect and its
// mount made it too, and after a final error kubelet sends no unstage.
func (n *Node) stage(ctx context.Context, v volume, conn connection, p place) error {
	err := n.connectAndMount(ctx, v, conn, p)
	switch {
	case err == nil:
	case errors.Is(err, nvme.ErrIdentity), errors.Is(err, nvme.ErrRefused): // another's, or none
	default:
		n.undo(ctx, v)
	}
	return err
}

func (n *Node) connectAndMount(ctx context.Context, v volume, conn connection, p place) error {
	ns, err := n.cfg.Initiator.Connect(ctx, conn.target, conn.options)
	if err != nil {
		return err
	}
	// It may be a connection of before the volume grew: the kernel is told to look again.
	if ns.SizeBytes < conn.sizeBytes {
		if ns, err = n.cfg.Initiator.Grown(ctx, v.nqn, conn.sizeBytes); err != nil && !errors.Is(err, nvme.ErrOldSize) {
			return err
		}
	}
	if ns.SizeBytes < conn.sizeBytes {
		// A target may fix the size of a namespace when it is enabled, as Linux does before 5.8: then a new connection shows the old one too. The
		// controller sees to that when it attaches a volume that nobody has.
		return refuse(codes.FailedPrecondition, "device %d:%d has %d bytes, the volume has %d: it is not staged. If it was grown, the RDS gives new connections "+
			"the old size too until it exports the volume anew, which happens at the next attach after it was detached from all nodes: stop its pods until its "+
			"VolumeAttachments are gone. If that was done, do it there by hand, while no node uses the volume (/disk set %s nvme-tcp-export=no, and then =yes)",
			ns.Major, ns.Minor, ns.SizeBytes, conn.sizeBytes, path.Base(v.handle))
	}
	if err := n.checkKind(v, ns, p); err != nil {
		return err
	}
	if p.dead {
		if err := n.cfg.Filesystem.Unmount(ctx, p.path); err != nil {
			return err
		}
	}
	if p.block() {
		return n.cfg.Filesystem.StageBlock(ctx, v.nqn, deviceOf(ns), p.path)
	}
	return n.mount(ctx, ns, conn, p)
}

func (n *Node) mount(ctx context.Context, ns nvme.Namespace, conn connection, p place) (err error) {
	mount := p.capability.GetMount()
	fsType := mount.GetFsType()
	if fsType == "" {
		if fsType, err = checkFSType(conn.fsType); err != nil {
			return err
		}
	}
	dev := deviceOf(ns)
	dev.ReadOnly, dev.Source = readOnlyAtNode(p.capability), conn.source
	return n.cfg.Filesystem.Stage(ctx, dev, p.path, fsType, mount.GetMountFlags())
}

// undo takes back the connection of a failed stage. It touches nothing that is mounted or held: the initiator
// refuses that, and a mkfs that still runs holds the device too.
func (n *Node) undo(ctx context.Context, v volume) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	err := n.refuseMounted(v, "")
	if err == nil {
		err = n.cfg.Initiator.Disconnect(ctx, v.nqn)
	}
	if err != nil {
		n.cfg.Logger.WarnContext(ctx, "a failed stage left its connection", "volume", v.handle, "node", n.cfg.NodeID, "nqn", v.nqn, "err", err)
	}
}

// refuseMounted fails while the volume is mounted anywhere but at one path.
func (n *Node) refuseMounted(v volume, except string) error {
	if err := n.refuseBlocksOf(v, except); err != nil {
		return err
	}
	ns, err := n.cfg.Initiator.Find(v.nqn)
	switch {
	case err == nil, errors.Is(err, nvme.ErrNotLive):
	case errors.Is(err, nvme.ErrNotConnected), errors.Is(err, nvme.ErrNoPath), errors.Is(err, nvme.ErrNoNamespace):
		return nil // no device, so no mount that a disconnect could cut; whatever else there is, Disconnect looks at it
	default:
		return err // not knowing is not "no" (B7)
	}
	return n.refuseMountsOf(ns.Major, ns.Minor, except)
}

func (n *Node) refuseMountsOf(major, minor uint32, except string) error {
	places, err := n.cfg.Mounts(major, minor)
	if err != nil {
		return err
	}
	for _, place := range places {
		if place != resolve(except) {
			return refuse(codes.FailedPrecondition, "device %d:%d is still mounted at %s: unpublish it there first", major, minor, place)
		}
	}
	return nil
}

// NodeUnstageVolume unmounts the staging path and disconnects exactly this volume; it fails until the NQN has left the
// kernel. The request brings no context: the NQN follows from the handle, and stage refused every other one. What is
// mounted at the staging path is unmounted whatever its device, since that is what is asked.
func (n *Node) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is required")
	}
	if err := checkPath("staging target path", req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	v, unlock, err := n.enter(req.GetVolumeId(), "NodeUnstageVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := n.unstage(ctx, v, filepath.Clean(req.GetStagingTargetPath())); err != nil {
		return nil, n.wrap(v, err)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (n *Node) unstage(ctx context.Context, v volume, path string) error {
	if err := n.refuseMounted(v, path); err != nil {
		return err
	}
	if err := n.cfg.Filesystem.Unmount(ctx, path); err != nil {
		return err
	}
	return n.cfg.Initiator.Disconnect(ctx, v.nqn)
}

// wrap adds what every message must name.
func (n *Node) wrap(v volume, err error) error {
	return fmt.Errorf("volume %s on node %s: %w", v.handle, n.cfg.NodeID, err)
}
