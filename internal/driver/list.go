package driver

import (
	"cmp"
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// ListVolumes answers this cluster's volumes on all appliances, with the nodes that have them. While one appliance does not answer
// there is no list: volumes missing from it look detached to the attacher. An appliance that is known to be away is not waited for.
func (c *Controller) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	fleet, want, err := c.listing(req)
	if err != nil {
		return nil, err
	}
	if err := fleet.down(want.pending(fleet.Appliances)...); err != nil {
		return nil, fmt.Errorf("list of volumes: %w", err)
	}
	entries, next, err := list(ctx, fleet.Appliances, want, c.entries)
	if err != nil {
		return nil, err
	}
	return &csi.ListVolumesResponse{Entries: entries, NextToken: next}, nil
}

// listing is what a list of volumes begins with, whatever it tells of them. Unknown must not read as "no node has it".
func (c *Controller) listing(req paged) (*Fleet, page, error) {
	want, err := parsePage(req)
	if err != nil {
		return nil, want, err
	}
	fleet := c.fleet.Load()
	if fleet == nil {
		return nil, want, c.Ready()
	}
	if _, err := c.ledger.InUse(""); err != nil {
		return nil, want, fmt.Errorf("list of volumes: %w", err)
	}
	return fleet, want, nil
}

// entries are the volumes of one appliance as the list shows them.
func (c *Controller) entries(ctx context.Context, _ string, rds Appliance) ([]listed[*csi.ListVolumesResponse_Entry], error) {
	volumes, err := rds.List(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]listed[*csi.ListVolumesResponse_Entry], 0, len(volumes))
	for _, v := range volumes {
		if e := c.entry(v); e != nil {
			all = append(all, listed[*csi.ListVolumesResponse_Entry]{v.ID, e})
		}
	}
	return all, nil
}

// ours says whether a volume is this cluster's. One of the existing driver has no owner on the RDS: it is when a node of
// this cluster has it, which proves whose it is.
func ours(v appliance.Volume, nodes []string) bool {
	return v.Owner == appliance.OwnerOurs || v.Owner == appliance.OwnerNone && len(nodes) > 0
}

// entry is the volume as the list shows it; nil for what is not this cluster's.
func (c *Controller) entry(v appliance.Volume) *csi.ListVolumesResponse_Entry {
	nodes := c.ledger.Nodes(v.ID.Key())
	if !ours(v, nodes) {
		return nil
	}
	if !v.Presentable() {
		// A reboot of the RDS may lose exports (democratic-csi#496), and nobody publishes again what is attached. Said to be on
		// no node, the volume is published anew by the attacher's reconciliation, which puts the export right.
		nodes = nil
	}
	return &csi.ListVolumesResponse_Entry{
		Volume: &csi.Volume{VolumeId: v.ID.String(), CapacityBytes: v.SizeBytes, VolumeContext: connectionContext(v)},
		Status: &csi.ListVolumesResponse_VolumeStatus{PublishedNodeIds: nodes},
	}
}

// GetCapacity answers the free space of the pool that a StorageClass leads to.
func (c *Controller) GetCapacity(ctx context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	p, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	fsType := p.fsType
	if caps := req.GetVolumeCapabilities(); len(caps) > 0 {
		asked, err := checkCapabilities(caps)
		if err != nil {
			return &csi.GetCapacityResponse{}, nil //nolint:nilerr // what is not supported has no capacity: that is the answer, says the specification
		}
		fsType = cmp.Or(asked, fsType)
	}
	// Where CreateVolume would put it. From where no RDS is reached there is no capacity: a number, not an error.
	var want *csi.TopologyRequirement
	if from := req.GetAccessibleTopology(); from != nil {
		want = &csi.TopologyRequirement{Requisite: []*csi.Topology{from}}
	}
	_, rds, _, err := c.place(p.rds, want)
	if code(err) == codes.ResourceExhausted {
		return &csi.GetCapacityResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	pool, err := rds.Capacity(ctx, p.pool)
	if err != nil {
		return nil, err
	}
	return &csi.GetCapacityResponse{
		AvailableCapacity: pool.FreeBytes,
		MinimumVolumeSize: wrapperspb.Int64(leastSize(fsType)),
	}, nil
}
