package driver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// ControllerPublishVolume lets a node have a volume: the ledger admits it first, then the RDS is made to export it.
func (c *Controller) ControllerPublishVolume(ctx context.Context, req *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	id, err := c.checkPublish(req)
	if err != nil {
		return nil, err
	}
	rds, unlock, err := c.take(id, "ControllerPublishVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := c.checkUsers(ctx, id.Key(), req); err != nil {
		return nil, err
	}
	export := rds.Export
	admitted, err := c.admit(id.Key(), req.GetNodeId(), attachMode(req.GetVolumeCapability()))
	if err != nil {
		return nil, c.refused(id.Key(), err)
	}
	err = c.checkReach(ctx, rds, id, req.GetNodeId())
	if err == nil && admitted.unused { // while this one waited another may have begun to lead, and given the volume to a node
		export, err = rds.ExportUnused, c.leads(id.Key())
	}
	if err != nil {
		admitted.abandon()
		return nil, err
	}
	v, err := export(ctx, id.Slot)
	if err != nil {
		admitted.abandon()
		return nil, err
	}
	c.repaired(ctx, v)
	published := publishContext(v, req.GetVolumeContext())
	if uid, ok := c.ledger.NodeUID(req.GetNodeId()); ok {
		published[keyNodeUID] = uid
	}
	if text := admitted.granted.String(); text != "" {
		published[keyGranted] = text
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: published}, nil
}

func (c *Controller) checkPublish(req *csi.ControllerPublishVolumeRequest) (appliance.ID, error) {
	var none appliance.ID
	switch {
	case req.GetVolumeId() == "":
		return none, invalid("volume id is required")
	case req.GetNodeId() == "":
		return none, invalid("volume %s: node id is required", req.GetVolumeId())
	case req.GetReadonly():
		return none, invalid("volume %s: readonly attachments are not supported (PUBLISH_READONLY is not advertised): publish it read-only to the pod", req.GetVolumeId())
	}
	if err := checkCapability(req.GetVolumeCapability()); err != nil {
		return none, fmt.Errorf("volume %s: %w", req.GetVolumeId(), err)
	}
	return c.parseID(req.GetVolumeId())
}

// parseID refuses a handle that this driver cannot have issued.
func (c *Controller) parseID(handle string) (appliance.ID, error) {
	return appliance.ParseID(handle, c.defaultRDS)
}

// admission is what the ledger says of a publish that it admits.
type admission struct {
	granted attach.Grant // for the VolumeAttachment to keep
	unused  bool         // nobody has the volume
	abandon func()       // takes it back
}

// admit asks the ledger, first whether anybody has the volume already. abandon takes the admission back, but only one that this
// call brought about: after a lost reply the node may hold the volume by the earlier one. In Kubernetes the VolumeAttachment precedes
// the call, so there the admission of a volume that may be in use stays until it goes or ControllerUnpublish comes; both do.
func (c *Controller) admit(volume, node string, mode attach.Mode) (a admission, err error) {
	before, err := c.ledger.InUse(volume)
	if err != nil {
		return a, fmt.Errorf("volume %s for node %s: %w", volume, node, err)
	}
	a.unused = c.ledger.Unused(volume, node)
	if a.granted, err = c.ledger.Publish(volume, node, mode, time.Now()); err != nil {
		return a, fmt.Errorf("volume %s for node %s: %w", volume, node, err)
	}
	a.abandon = func() { c.ledger.Abandon(volume, node) }
	if !a.unused && slices.ContainsFunc(before, func(u attach.Use) bool { return u.Node == node }) {
		a.abandon = func() {}
	}
	return a, nil
}

// ControllerUnpublishVolume takes a volume from a node, or from all nodes when none is named. It needs no RDS, and a
// volume or a node that is gone is no reason to fail: a stuck detach keeps a pod from starting elsewhere.
func (c *Controller) ControllerUnpublishVolume(_ context.Context, req *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is required")
	}
	key := req.GetVolumeId()
	if id, err := c.parseID(key); err == nil {
		key = id.Key()
	}
	unlock, err := c.lock(key, "ControllerUnpublishVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	c.ledger.Unpublish(key, req.GetNodeId())
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

// ValidateVolumeCapabilities says whether a volume that exists could be used as asked.
func (c *Controller) ValidateVolumeCapabilities(ctx context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("volume id is required")
	case len(req.GetVolumeCapabilities()) == 0:
		return nil, invalid("volume %s: volume capabilities are required", req.GetVolumeId())
	}
	id, err := c.existing(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	_, rds, _, err := c.appliance(id.RDS)
	if err != nil {
		return nil, err
	}
	v, err := rds.Get(ctx, id.Slot)
	if err != nil {
		return nil, err
	}
	if reason := disagreement(v, req); reason != "" {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: reason}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:      req.GetVolumeContext(),
		VolumeCapabilities: req.GetVolumeCapabilities(),
		Parameters:         req.GetParameters(),
	}}, nil
}

// disagreement is the first reason why the volume is not what the request takes it for.
func disagreement(v appliance.Volume, req *csi.ValidateVolumeCapabilitiesRequest) string {
	if _, err := checkCapabilities(req.GetVolumeCapabilities()); err != nil {
		return err.Error()
	}
	if nqn, ok := req.GetVolumeContext()[keyNQN]; ok && nqn != v.NQN {
		return fmt.Sprintf("the volume is exported as %s, not as %s", v.NQN, nqn)
	}
	if _, err := parseParameters(req.GetParameters()); err != nil {
		return err.Error()
	}
	return ""
}
