package driver

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// ListVolumes answers this cluster's volumes on all appliances, ordered by handle, with the nodes that have them.
func (c *Controller) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	after, err := parsePage(req)
	if err != nil {
		return nil, err
	}
	fleet := c.fleet.Load()
	if fleet == nil {
		return nil, c.Ready()
	}
	// Unknown must not read as "no node has it".
	if _, err := c.ledger.InUse(""); err != nil {
		return nil, fmt.Errorf("list of volumes: %w", err)
	}
	volumes, err := c.listAll(ctx, fleet)
	if err != nil {
		return nil, err
	}
	entries, next := page(volumes, handleOf, after, int(req.GetMaxEntries()))
	return &csi.ListVolumesResponse{Entries: entries, NextToken: next}, nil
}

func handleOf(e *csi.ListVolumesResponse_Entry) string { return e.GetVolume().GetVolumeId() }

// everywhere asks all of these appliances at once. One that does not answer fails the call: what is missing from a list reads
// as gone.
func everywhere[T any](ctx context.Context, appliances map[string]Appliance, ask func(context.Context, Appliance) ([]T, error)) ([]T, error) {
	lists := make([][]T, len(appliances))
	group, ctx := errgroup.WithContext(ctx)
	i := 0
	for _, rds := range appliances {
		list := &lists[i]
		group.Go(func() (err error) {
			*list, err = ask(ctx, rds)
			return err
		})
		i++
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(lists...), nil
}

// listAll: volumes missing from the list look detached to the attacher.
func (c *Controller) listAll(ctx context.Context, fleet *Fleet) ([]*csi.ListVolumesResponse_Entry, error) {
	all, err := everywhere(ctx, fleet.Appliances, func(ctx context.Context, rds Appliance) ([]appliance.Volume, error) { return rds.List(ctx) })
	if err != nil {
		return nil, err
	}
	var entries []*csi.ListVolumesResponse_Entry
	for _, v := range all {
		if e := c.entry(v); e != nil {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b *csi.ListVolumesResponse_Entry) int { return strings.Compare(handleOf(a), handleOf(b)) })
	return entries, nil
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

// page cuts the entries, which are sorted by their handles, after one of these. The token is the last handle shown, not an
// index: what comes and goes between two pages neither repeats nor hides others.
func page[T any](entries []T, handle func(T) string, after string, most int) (shown []T, next string) {
	from := 0
	for after != "" && from < len(entries) && handle(entries[from]) <= after {
		from++
	}
	entries = entries[from:]
	if most == 0 || len(entries) <= most {
		return entries, ""
	}
	return entries[:most], tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(handle(entries[most-1])))
}

const tokenPrefix = "after."

// paged is a request for a list.
type paged interface {
	GetMaxEntries() int32
	GetStartingToken() string
}

func parsePage(req paged) (after string, err error) {
	if req.GetMaxEntries() < 0 {
		return "", invalid("max_entries is negative")
	}
	return parseToken(req.GetStartingToken())
}

func parseToken(token string) (after string, err error) {
	if token == "" {
		return "", nil
	}
	coded, ok := strings.CutPrefix(token, tokenPrefix)
	handle, err := base64.RawURLEncoding.DecodeString(coded)
	if !ok || err != nil || len(handle) == 0 {
		return "", refuse(codes.Aborted, "starting token %q is not one of this driver: start again without it", token)
	}
	return string(handle), nil
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
