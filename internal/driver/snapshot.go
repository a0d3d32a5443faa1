package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// Snapshots is what an RDS does with snapshots.
type Snapshots interface {
	// CreateSnapshot takes a snapshot, or tells how far the one of that name has come.
	CreateSnapshot(context.Context, appliance.SnapshotRequest) (appliance.Snapshot, error)
	// DeleteSnapshot has succeeded when nothing of it is left; one that is not there is deleted.
	DeleteSnapshot(ctx context.Context, id string) error
	// GetSnapshot answers ErrNotFound only when the RDS said that there is none.
	GetSnapshot(ctx context.Context, id string) (appliance.Snapshot, error)
	// ListSnapshots answers all snapshots of this cluster.
	ListSnapshots(context.Context) ([]appliance.Snapshot, error)
}

// What external-snapshotter tells with --extra-create-metadata; a snapshot has no other parameters.
const (
	paramSnapshot          = "csi.storage.k8s.io/volumesnapshot/name"
	paramSnapshotNamespace = "csi.storage.k8s.io/volumesnapshot/namespace"
	paramSnapshotContent   = "csi.storage.k8s.io/volumesnapshotcontent/name"
)

func checkSnapshotParameters(given map[string]string) error {
	known := map[string]bool{paramSnapshot: true, paramSnapshotNamespace: true, paramSnapshotContent: true}
	for key := range given {
		if !known[key] {
			return invalid("unknown VolumeSnapshotClass parameter %q: a snapshot has none", key)
		}
	}
	return nil
}

// CreateSnapshot takes a snapshot of a volume. On a pool that has to copy it takes its time: the answer is then not ready,
// and external-snapshotter asks again until it is.
func (c *Controller) CreateSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	source, err := c.checkSnapshot(req)
	if err != nil {
		return nil, err
	}
	fleet, rds, name, err := c.appliance(source.RDS)
	if err != nil {
		return nil, err
	}
	snapshot := name + "/" + appliance.SnapshotIDFor(fleet.ClusterID, req.GetName())
	unlock, err := c.lock(snapshot, "CreateSnapshot")
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Nobody attaches, grows or deletes the volume meanwhile.
	release, err := c.lock(source.Key(), "CreateSnapshot")
	if err != nil {
		return nil, err
	}
	defer release()
	writers, err := c.writers(source)
	if err != nil {
		return nil, err
	}
	s, err := rds.CreateSnapshot(ctx, appliance.SnapshotRequest{Name: req.GetName(), Source: source.Slot, Attached: len(writers) > 0})
	if err != nil {
		return nil, fmt.Errorf("snapshot of volume %s: %w", source, onNodes(err, writers))
	}
	c.progress(ctx, source, s)
	answer := snapshotOf(s)
	answer.SourceVolumeId = req.GetSourceVolumeId()
	return &csi.CreateSnapshotResponse{Snapshot: answer}, nil
}

// writers are the nodes that may write to the volume while it is copied: not those where a pod only waits for it, but also
// those of which only a kubelet's word tells.
func (c *Controller) writers(id appliance.ID) ([]attach.Use, error) {
	uses, err := c.ledger.InUse(id.Key())
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", id, err)
	}
	return slices.DeleteFunc(uses, func(u attach.Use) bool { return !u.MayWrite() }), nil
}

// onNodes names the nodes that a copy has to wait for.
func onNodes(err error, writers []attach.Use) error {
	if !errors.Is(err, appliance.ErrAttached) {
		return err
	}
	return fmt.Errorf("%w; it is %s", err, attach.Explain(writers))
}

func (c *Controller) checkSnapshot(req *csi.CreateSnapshotRequest) (source appliance.ID, err error) {
	if err := checkName(req.GetName()); err != nil {
		return source, fmt.Errorf("snapshot: %w", err)
	}
	if req.GetSourceVolumeId() == "" {
		return source, invalid("snapshot %s: source volume id is required", req.GetName())
	}
	if err := checkSnapshotParameters(req.GetParameters()); err != nil {
		return source, fmt.Errorf("snapshot %s: %w", req.GetName(), err)
	}
	return c.existing(req.GetSourceVolumeId())
}

// snapshotOf: a time of which the RDS says nothing that can be read is the beginning of all time, for it must not be absent.
func snapshotOf(s appliance.Snapshot) *csi.Snapshot {
	if s.Created.IsZero() {
		s.Created = time.Unix(0, 0)
	}
	return &csi.Snapshot{
		SnapshotId: s.ID.String(), SourceVolumeId: s.SourceVolume.String(), SizeBytes: s.SizeBytes,
		CreationTime: timestamppb.New(s.Created), ReadyToUse: s.Ready,
	}
}

// parseSnapshotID reads <rds>/<snapshot>; ok is false for what this driver cannot have issued.
func (c *Controller) parseSnapshotID(id string) (parsed appliance.ID, ok bool) {
	parsed, err := c.parseID(id)
	return parsed, err == nil && appliance.ValidSnapshotID(parsed.Slot)
}

// DeleteSnapshot removes a snapshot, or what there is of one. An id that this driver cannot have issued names none.
func (c *Controller) DeleteSnapshot(ctx context.Context, req *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, invalid("snapshot id is required")
	}
	id, ok := c.parseSnapshotID(req.GetSnapshotId())
	if !ok {
		c.logger.WarnContext(ctx, "nothing to delete: not a snapshot of this driver", "snapshot", req.GetSnapshotId())
		return &csi.DeleteSnapshotResponse{}, nil
	}
	rds, unlock, err := c.take(id, "DeleteSnapshot")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := rds.DeleteSnapshot(ctx, id.Slot); err != nil {
		return nil, err
	}
	c.copies.forget(id)
	return &csi.DeleteSnapshotResponse{}, nil
}

// GetSnapshot answers one snapshot.
func (c *Controller) GetSnapshot(ctx context.Context, req *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, invalid("snapshot id is required")
	}
	s, err := c.snapshot(ctx, req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: snapshotOf(s)}, nil
}

func (c *Controller) snapshot(ctx context.Context, handle string) (appliance.Snapshot, error) {
	id, ok := c.parseSnapshotID(handle)
	if !ok {
		return appliance.Snapshot{}, refuse(codes.NotFound, "snapshot %s: this driver has issued no such id", handle)
	}
	_, rds, _, err := c.appliance(id.RDS)
	if err != nil {
		return appliance.Snapshot{}, err
	}
	return rds.GetSnapshot(ctx, id.Slot)
}

// ListSnapshots answers this cluster's snapshots, ordered by id: all, those of one volume, or one. What names none that
// could be is an empty list, says the specification. While an appliance that has part in it does not answer there is no list.
func (c *Controller) ListSnapshots(ctx context.Context, req *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	want, err := parsePage(req)
	if err != nil {
		return nil, err
	}
	if err := c.Ready(); err != nil {
		return nil, err
	}
	appliances, ask, err := c.findSnapshots(req, want)
	if err != nil {
		return nil, err
	}
	entries, next, err := list(ctx, appliances, want, ask)
	if err != nil {
		return nil, err
	}
	return &csi.ListSnapshotsResponse{Entries: entries, NextToken: next}, nil
}

type snapshotEntry = listed[*csi.ListSnapshotsResponse_Entry]

func entryOf(s appliance.Snapshot) snapshotEntry {
	return snapshotEntry{s.ID, &csi.ListSnapshotsResponse_Entry{Snapshot: snapshotOf(s)}}
}

// findSnapshots says which appliances to ask, and what. Who names a volume or a snapshot has named its appliance.
func (c *Controller) findSnapshots(req *csi.ListSnapshotsRequest, want page) (map[string]Appliance, question[*csi.ListSnapshotsResponse_Entry], error) {
	source := req.GetSourceVolumeId()
	of := func(s appliance.Snapshot) bool { return source == "" || c.same(s.SourceVolume, source) }
	ask := func(ctx context.Context, _ string, rds Appliance) (found []snapshotEntry, err error) {
		all, err := rds.ListSnapshots(ctx)
		for _, s := range all {
			if of(s) {
				found = append(found, entryOf(s))
			}
		}
		return found, err
	}
	switch id := req.GetSnapshotId(); {
	case id != "":
		named, ok := c.parseSnapshotID(id)
		return c.alone(named, ok, func(ctx context.Context, _ string, rds Appliance) ([]snapshotEntry, error) {
			s, err := rds.GetSnapshot(ctx, named.Slot)
			switch {
			case code(err) == codes.NotFound, err == nil && !of(s):
				return nil, nil
			case err != nil:
				return nil, err
			}
			return []snapshotEntry{entryOf(s)}, nil
		})
	case source != "":
		named, err := c.parseID(source)
		return c.alone(named, err == nil, ask)
	}
	fleet := c.fleet.Load()
	if err := fleet.down(want.pending(fleet.Appliances)...); err != nil {
		return nil, nil, fmt.Errorf("list of snapshots: %w", err)
	}
	return fleet.Appliances, ask, nil
}

// alone asks the one appliance that an id names, and nobody for an id that this driver cannot have issued.
func (c *Controller) alone(id appliance.ID, ok bool, ask question[*csi.ListSnapshotsResponse_Entry]) (map[string]Appliance, question[*csi.ListSnapshotsResponse_Entry], error) {
	if !ok {
		return nil, ask, nil
	}
	_, rds, name, err := c.appliance(id.RDS)
	if err != nil {
		return nil, nil, err
	}
	return map[string]Appliance{name: rds}, ask, nil
}

// same says whether a handle names the volume, in whichever way it is written.
func (c *Controller) same(volume appliance.ID, handle string) bool {
	id, err := c.parseID(handle)
	return err == nil && id.Key() == volume.Key()
}

// content is what a new volume begins with.
type content struct {
	source appliance.Source
	id     appliance.ID // of the volume or the snapshot
	given  *csi.VolumeContentSource
}

// String names where the contents come from; it is empty for a volume that begins empty.
func (f content) String() string {
	if f.given == nil {
		return ""
	}
	kind := "volume"
	if f.given.GetSnapshot() != nil {
		kind = "snapshot"
	}
	return kind + " " + f.id.String()
}

// contentOf reads a volume_content_source.
func (c *Controller) contentOf(given *csi.VolumeContentSource) (content, error) {
	from := content{given: given}
	var ok bool
	switch {
	case given == nil:
		return from, nil
	case given.GetSnapshot() != nil:
		if from.id, ok = c.parseSnapshotID(given.GetSnapshot().GetSnapshotId()); !ok {
			return from, refuse(codes.NotFound, "snapshot %q: this driver has issued no such id", given.GetSnapshot().GetSnapshotId())
		}
		from.source.Snapshot = from.id.Slot
	case given.GetVolume() != nil:
		var err error
		if from.id, err = c.existing(given.GetVolume().GetVolumeId()); err != nil {
			return from, err
		}
		from.source.Volume = from.id.Slot
	default:
		return from, invalid("volume_content_source is neither a snapshot nor a volume")
	}
	return from, nil
}

// on answers the RDS that the volume has to be on: the data of one RDS cannot be had on another.
func (f content) on(asked string) (rds string, err error) {
	if f.given != nil && asked != "" && asked != f.id.RDS {
		return "", invalid("the source %s is on rds %s, the StorageClass asks for rds %s: use one for that RDS, or leave the parameter out", f.id, f.id.RDS, asked)
	}
	return cmp.Or(f.id.RDS, asked), nil
}
