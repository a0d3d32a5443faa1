package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Expander grows volumes on an RDS.
type Expander interface {
	// Expand makes the volume as large as required and never smaller; what it answers has the size that the RDS says.
	Expand(ctx context.Context, slot string, requiredBytes, limitBytes int64) (appliance.Volume, error)
	// ExportUnused is Export of a volume that certainly nobody has: what has grown is exported anew.
	ExportUnused(ctx context.Context, slot string) (appliance.Volume, error)
}

// ControllerExpandVolume makes a volume larger on the RDS, attached or not. What is on it grows at the node: a file system
// by NodeExpandVolume, and a raw block volume is looked at there, since whether a kernel sees the new size at once
// depends on the RDS. So the node is always asked. Where an RDS shows the new size to nobody before it has exported the volume
// anew, that is done by the first ControllerPublishVolume that finds it unused.
func (c *Controller) ControllerExpandVolume(ctx context.Context, req *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	id, err := c.checkGrowth(req)
	if err != nil {
		return nil, err
	}
	rds, unlock, err := c.take(id, "ControllerExpandVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := rds.Expand(ctx, id.Slot, req.GetCapacityRange().GetRequiredBytes(), req.GetCapacityRange().GetLimitBytes())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: v.SizeBytes, NodeExpansionRequired: true}, nil
}

func (c *Controller) checkGrowth(req *csi.ControllerExpandVolumeRequest) (appliance.ID, error) {
	var none appliance.ID
	handle, r := req.GetVolumeId(), req.GetCapacityRange()
	switch {
	case handle == "":
		return none, invalid("volume id is required")
	case r.GetRequiredBytes() < 0 || r.GetLimitBytes() < 0:
		return none, invalid("volume %s: capacity range has a negative size", handle)
	case r.GetRequiredBytes() == 0 && r.GetLimitBytes() == 0:
		return none, invalid("volume %s: capacity range is required", handle)
	case r.GetLimitBytes() > 0 && r.GetLimitBytes() < r.GetRequiredBytes():
		return none, refuse(codes.OutOfRange, "volume %s: a limit of %d bytes is below the %d required", handle, r.GetLimitBytes(), r.GetRequiredBytes())
	}
	if capability := req.GetVolumeCapability(); capability != nil {
		if err := checkNodeCapability(capability); err != nil {
			return none, err
		}
	}
	return c.existing(handle)
}

// existing reads the handle of a volume that is to be there: one that this driver cannot have issued names none.
func (c *Controller) existing(handle string) (appliance.ID, error) {
	id, err := c.parseID(handle)
	if err != nil {
		return id, refuse(codes.NotFound, "volume %s: %v", handle, err)
	}
	return id, nil
}
