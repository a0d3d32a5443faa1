package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Identity answers who the plugin is and whether it can serve.
type Identity struct {
	csi.UnimplementedIdentityServer

	Name, Version string
	// Ready is the same function that /readyz asks, so that the two cannot differ. It reads memory only.
	Ready func(context.Context) error
	// Lead answers an error on a standby; nil: there is none. It reads memory only.
	Lead func() error
	// Topology: not every node reaches every RDS.
	Topology Topology
}

// GetPluginInfo names the driver.
func (i *Identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: i.Name, VendorVersion: i.Version}, nil
}

// GetPluginCapabilities says what the driver is as a whole, which is why the node plugin says the same: the CO may ask
// either. A volume grows while nodes use it. Where it can be used from is said only if not all nodes reach all RDSs.
func (i *Identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	capabilities := []*csi.PluginCapability{
		pluginService(csi.PluginCapability_Service_CONTROLLER_SERVICE),
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
	}
	if i.Topology.constrained() {
		capabilities = append(capabilities, pluginService(csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS))
	}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: capabilities}, nil
}

func pluginService(t csi.PluginCapability_Service_Type) *csi.PluginCapability {
	return &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: t}}}
}

// Probe tells whether the plugin can serve. Not ready is an answer and not an error: a liveness probe must not be
// wired to it, since restarting a controller does not bring an RDS back. A standby is not ready here, though it is for
// /readyz: the sidecars beside it ask until it leads, and only then stand for election themselves.
func (i *Identity) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	leads := i.Lead == nil || i.Lead() == nil
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(leads && i.Ready(ctx) == nil)}, nil
}
