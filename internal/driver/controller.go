package driver

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

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

// Pools is what an RDS tells about all of its volumes.
type Pools interface {
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
}

// Admission decides which node may have a volume. Volumes are named by their canonical handle (appliance.ID.Key), since
// two PersistentVolumes that write the handle of one disk differently are still one disk.
type Admission interface {
	// Publish admits the node (and records the intent) or says why not; now decides whether a migration has time left.
	Publish(volume, node string, mode attach.Mode, now time.Time) error
	// Abandon takes the intent of an admitted publish back.
	Abandon(volume, node string)
	// Unpublish forgets the node, or all nodes when it is empty.
	Unpublish(volume, node string)
}

// Attachments tells which nodes have a volume.
type Attachments interface {
	// InUse answers every node that has or may get the volume; ErrUnknown while that is not known.
	InUse(volume string) ([]string, error)
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

// Controller is the CSI controller service.
type Controller struct {
	csi.UnimplementedControllerServer

	// Lead answers an error (see Standby) while another controller decides. Nil: this one always does.
	Lead func() error
	// Refused is told of an attach that was refused until the user acts. It must not wait. May be nil.
	Refused func(volume, message string)

	defaultRDS string
	ledger     Ledger
	logger     *slog.Logger
	fleet      atomic.Pointer[Fleet]
	locks      locks
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
	}
	caps := make([]*csi.ControllerServiceCapability, 0, len(built))
	for _, t := range built {
		caps = append(caps, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: t},
		}})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: caps}, nil
}

// creation is a CreateVolume request, read.
type creation struct {
	parameters
	ask appliance.CreateRequest
}

// maxName is the specification's limit for names, and room enough in a comment on the RDS.
const maxName = 128

func parseCreation(req *csi.CreateVolumeRequest) (creation, error) {
	var want creation
	if err := checkName(req.GetName()); err != nil {
		return want, err
	}
	switch {
	case req.GetVolumeContentSource() != nil:
		return want, invalid("volume %s: snapshots and clones are not supported yet: volume_content_source must be empty", req.GetName())
	case len(req.GetMutableParameters()) > 0:
		return want, invalid("volume %s: mutable parameters are not supported (MODIFY_VOLUME is not advertised)", req.GetName())
	}
	fsType, err := checkCapabilities(req.GetVolumeCapabilities())
	if err != nil {
		return want, err
	}
	if want.parameters, err = parseParameters(req.GetParameters()); err != nil {
		return want, err
	}
	if fsType != "" && want.fsType != "" && fsType != want.fsType {
		return want, invalid("the capability asks for %s, the parameter %s for %s", fsType, paramFSType, want.fsType)
	}
	chosen := cmp.Or(fsType, want.fsType, ext4)
	want.ask = appliance.CreateRequest{
		Name: req.GetName(), Claim: want.owner(), Pool: want.pool,
		NVMeAddress: want.nvmeAddress, NVMePort: want.nvmePort,
	}
	want.ask.RequiredBytes, want.ask.LimitBytes, err = capacityFor(req.GetCapacityRange(), chosen)
	return want, err
}

func checkName(name string) error {
	switch {
	case name == "":
		return invalid("volume name is required")
	case len(name) > maxName:
		return invalid("volume name has %d bytes, at most %d are allowed", len(name), maxName)
	case !utf8.ValidString(name):
		return invalid("volume name %q is not valid UTF-8", name)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return invalid("volume name %q has control characters", name)
		}
	}
	return nil
}

// CreateVolume makes a volume on an RDS.
func (c *Controller) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	want, err := parseCreation(req)
	if err != nil {
		return nil, err
	}
	fleet, rds, name, err := c.appliance(want.rds)
	if err != nil {
		return nil, err
	}
	unlock, err := c.lock(name+"/"+appliance.SlotFor(fleet.ClusterID, want.ask.Name), "CreateVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := rds.Create(ctx, want.ask)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:      v.ID.String(),
		CapacityBytes: v.SizeBytes,
		VolumeContext: volumeContext(v, want.parameters),
	}}, nil
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
	unlock, err := c.lock(id.Key(), "DeleteVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	_, rds, _, err := c.appliance(id.RDS)
	if err != nil {
		return nil, err
	}
	nodes, err := c.ledger.InUse(id.Key())
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", id, err)
	}
	if len(nodes) > 0 {
		return nil, refuse(codes.FailedPrecondition, "volume %s is attached to %s: detach it there first", id, strings.Join(nodes, ", "))
	}
	if err := rds.Delete(ctx, id.Slot); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// appliance answers the RDS of that name, the default one for "".
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
	return fleet, rds, name, nil
}
