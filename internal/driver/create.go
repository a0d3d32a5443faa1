package driver

import (
	"cmp"
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// creation is a CreateVolume request, read.
type creation struct {
	parameters
	from content
	ask  appliance.CreateRequest
}

// maxName is the specification's limit for names, and room enough in a comment on the RDS.
const maxName = 128

func (c *Controller) parseCreation(req *csi.CreateVolumeRequest) (creation, error) {
	var want creation
	if err := checkName(req.GetName()); err != nil {
		return want, fmt.Errorf("volume: %w", err)
	}
	if len(req.GetMutableParameters()) > 0 {
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
	if want.ask.RequiredBytes, want.ask.LimitBytes, err = capacityFor(req.GetCapacityRange(), chosen); err != nil {
		return want, err
	}
	if want.from, err = c.contentOf(req.GetVolumeContentSource()); err != nil {
		return want, fmt.Errorf("volume %s: %w", req.GetName(), err)
	}
	if want.from.given == nil && attachMode(req.GetVolumeCapabilities()[0]) == attach.Readers {
		return want, invalid("volume %s: ReadOnlyMany without a data source: nobody could ever write to it; make it from a snapshot or as a clone of a volume that has data", req.GetName())
	}
	if want.ask.Source = want.from.source; want.from.given != nil && req.GetCapacityRange().GetRequiredBytes() == 0 {
		want.ask.RequiredBytes = 0 // as large as its source
	}
	want.rds, err = want.from.on(want.rds)
	return want, err
}

func checkName(name string) error {
	switch {
	case name == "":
		return invalid("a name is required")
	case len(name) > maxName:
		return invalid("the name has %d bytes, at most %d are allowed", len(name), maxName)
	case !utf8.ValidString(name):
		return invalid("the name %q is not valid UTF-8", name)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return invalid("the name %q has control characters", name)
		}
	}
	return nil
}

// CreateVolume makes a volume on an RDS.
func (c *Controller) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	want, err := c.parseCreation(req)
	if err != nil {
		return nil, err
	}
	fleet, rds, name, err := c.place(want.rds, req.GetAccessibilityRequirements())
	if err != nil {
		return nil, err
	}
	unlock, err := c.lock(name+"/"+appliance.SlotFor(fleet.ClusterID, want.ask.Name), "CreateVolume")
	if err != nil {
		return nil, err
	}
	defer unlock()
	release, writers, err := c.hold(want.from)
	if err != nil {
		return nil, err
	}
	defer release()
	want.ask.SourceAttached = len(writers) > 0
	v, err := rds.Create(ctx, want.ask)
	if err != nil {
		return nil, onNodes(err, writers)
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:           v.ID.String(),
		CapacityBytes:      v.SizeBytes,
		VolumeContext:      volumeContext(v, want.parameters, want.from),
		ContentSource:      req.GetVolumeContentSource(),
		AccessibleTopology: c.Topology.accessible(name),
	}}, nil
}

// hold keeps a source as it is while a volume is made of it: nobody attaches, grows or deletes it meanwhile. It answers the
// nodes that may write to it already.
func (c *Controller) hold(from content) (release func(), writers []attach.Use, err error) {
	if from.given == nil {
		return func() {}, nil, nil
	}
	if release, err = c.lock(from.id.Key(), "CreateVolume"); err != nil {
		return nil, nil, err
	}
	if from.source.Volume != "" {
		if writers, err = c.writers(from.id); err != nil {
			release()
			return nil, nil, err
		}
	}
	return release, writers, nil
}
