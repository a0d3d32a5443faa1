package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// Volumes is what an RDS does with one volume.
type Volumes interface {
	// Create makes the volume, or answers the one that an earlier call made.
	Create(context.Context, appliance.CreateRequest) (appliance.Volume, error)
	// Get answers ErrNotFound only when the RDS said that there is none.
	Get(ctx context.Context, slot string) (appliance.Volume, error)
	// Delete has succeeded when neither item nor file is left; a volume that is not there is deleted.
	Delete(ctx context.Context, slot string) error
	// Export makes sure that nodes can connect, and that nothing on the RDS uses the volume.
	Export(ctx context.Context, slot string) (appliance.Volume, error)
}

// Pools is what an RDS tells about all of its volumes, or why it tells nothing.
type Pools interface {
	// Down answers at once, without asking it, why the RDS cannot be asked; nil when it may be.
	Down() error
	// List answers every volume item, each with its owner.
	List(context.Context) ([]appliance.Volume, error)
	// Capacity answers for the pool that a path lies in; the zero path is the RDS's own.
	Capacity(context.Context, appliance.Path) (appliance.Pool, error)
}

// Appliance is one RDS.
type Appliance interface {
	Volumes
	Pools
	Expander
	Snapshots
}

// Admission decides which node may have a volume. Volumes are named by their canonical handle (appliance.ID.Key), since
// two PersistentVolumes that write the handle of one disk differently are still one disk.
type Admission interface {
	// Publish admits the node (and records the intent) or says why not; now decides whether a migration has time left. What it
	// grants is for the VolumeAttachment to keep, also when that is nothing.
	Publish(volume, node string, mode attach.Mode, now time.Time) (attach.Grant, error)
	// Abandon takes the intent of an admitted publish back.
	Abandon(volume, node string)
	// Unpublish forgets the node, or all nodes when it is empty.
	Unpublish(volume, node string)
	// Unused says for certain that no node has the volume, nor may get it before a publish to this one is answered.
	Unused(volume, node string) bool
}

// Attachments tells which nodes have a volume.
type Attachments interface {
	// InUse answers every node that has or may get the volume, and how that is known; ErrUnknown while it is not.
	InUse(volume string) ([]attach.Use, error)
	// Nodes answers the nodes that have the volume, sorted.
	Nodes(volume string) []string
	// NodeUID answers the UID of the Node object of that name; false when there is none, or no Kubernetes.
	NodeUID(name string) (uid string, ok bool)
}

// Ledger is the attachment ledger.
type Ledger interface {
	Admission
	Attachments
}

// Fleet is what the controller works with once it is known: every volume carries the cluster's identity, which may
// have to be asked from an API server that is down when the controller starts.
type Fleet struct {
	ClusterID  string
	Appliances map[string]Appliance // by the name in the configuration
}

// down says which of these RDSs are known to be away. A single RDS never is: calls for it keep nobody waiting, and may as well
// succeed once it is back.
func (f *Fleet) down(names ...string) error {
	var faults []error
	for _, name := range names {
		if rds, ok := f.Appliances[name]; ok && len(f.Appliances) > 1 {
			faults = append(faults, rds.Down())
		}
	}
	return errors.Join(faults...)
}

// Controller is the CSI controller service.
type Controller struct {
	csi.UnimplementedControllerServer

	// Lead answers an error (see Standby) while another controller decides. Nil: this one always does.
	Lead func() error
	// Refused is told of an attach that was refused until the user acts. It must not wait. May be nil.
	Refused func(volume, message string)
	// Repaired is told what an attach has put right on the RDS. It must not wait. May be nil.
	Repaired func(volume, message string)
	// Copying is told, now and then, how far the full copy for a snapshot of a volume has come. It must not wait. May be nil.
	Copying func(volume, message string)
	// Users answers who uses a volume on some node: virtual machines, and pods that are none's. Nil: no Kubernetes.
	Users func(ctx context.Context, volume string) ([]string, error)
	// Claimed answers the canonical handles of this cluster's PersistentVolumes, once they are known. Nil: no Kubernetes.
	Claimed func() (handles []string, known bool)
	// Promised answers how large a volume is by its PersistentVolume; 0: not known. Nil: no Kubernetes.
	Promised func(volume string) (bytes int64)
	// Topology says which nodes reach which RDS.
	Topology Topology

	defaultRDS string
	ledger     Ledger
	logger     *slog.Logger
	fleet      atomic.Pointer[Fleet]
	locks      locks
	copies     copies
}

// NewController makes a controller that answers Unavailable until Use gives it its fleet.
func NewController(defaultRDS string, ledger Ledger, logger *slog.Logger) *Controller {
	return &Controller{defaultRDS: defaultRDS, ledger: ledger, logger: logger}
}

// Use gives the controller its appliances.
func (c *Controller) Use(f Fleet) { c.fleet.Store(&f) }

// Ready says whether Use was called: part of what /readyz and Probe answer.
func (c *Controller) Ready() error {
	if c.fleet.Load() == nil {
		return fmt.Errorf("the cluster's identity is not known yet: %w", appliance.ErrUnavailable)
	}
	return nil
}

// ControllerGetCapabilities lists exactly what is built.
func (c *Controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	built := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_GET_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH,
	}
	caps := make([]*csi.ControllerServiceCapability, 0, len(built))
	for _, t := range built {
		caps = append(caps, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: t},
		}})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: caps}, nil
}

// DeleteVolume removes a volume that no node has. A handle that this driver cannot have issued names no volume.
func (c *Controller) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is required")
	}
	id, err := appliance.ParseID(req.GetVolumeId(), c.defaultRDS)
	if err != nil {
		c.logger.WarnContext(ctx, "nothing to delete: not a handle of this driver", "volume", req.GetVolumeId())
		return &csi.DeleteVolumeResponse{}, nil
	}
	rds, unlock, err := c.take(id, "DeleteVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	uses, err := c.ledger.InUse(id.Key())
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", id, err)
	}
	if len(uses) > 0 {
		return nil, refuse(codes.FailedPrecondition, "volume %s cannot be deleted: it is %s", id, attach.Explain(uses))
	}
	if err := rds.Delete(ctx, id.Slot); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// appliance answers the RDS of that name, the default one for "". Of several one that is known to be away is refused at once: a
// sidecar has a few workers for all of them, and those that wait for this one are missing for the others.
func (c *Controller) appliance(name string) (*Fleet, Appliance, string, error) {
	fleet := c.fleet.Load()
	if fleet == nil {
		return nil, nil, "", c.Ready()
	}
	if name == "" {
		name = c.defaultRDS
	}
	rds, ok := fleet.Appliances[name]
	if !ok {
		return nil, nil, "", refuse(codes.FailedPrecondition, "rds %q is not configured; configured are %s", name, knownParameters(fleet.Appliances))
	}
	if err := fleet.down(name); err != nil {
		return nil, nil, "", err
	}
	return fleet, rds, name, nil
}
