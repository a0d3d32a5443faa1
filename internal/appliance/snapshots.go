package appliance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// CreateSnapshot takes a snapshot, or tells how far the one of this name has come; the caller repeats it until it is Ready. On a
// Btrfs pool that is one command, and it is Ready at once. Elsewhere a second command begins the copy.
//
// The caller lets nobody else have the source volume while this runs, and says whether it is attached.
func (r *RDS) CreateSnapshot(ctx context.Context, req SnapshotRequest) (Snapshot, error) {
	if req.Name == "" || len(req.Name) > maxCSIName || !utf8.ValidString(req.Name) {
		return Snapshot{}, r.about(snapshotOf(req.Name), fmt.Errorf("%w: a name must be 1 to %d bytes of UTF-8", ErrInvalid, maxCSIName))
	}
	if !ValidSlot(req.Source) {
		return Snapshot{}, r.errorf(req.Source, ErrInvalid, "this is not a slot")
	}
	id := SnapshotIDFor(r.settings.ClusterID, req.Name)
	reply, err := r.take(ctx, id, req.Source)
	if err != nil {
		return Snapshot{}, err
	}
	s, found, err := r.sighted(reply, 1, id)
	if s.unmarked() {
		s, found, err = r.lookAgain(ctx, id)
	}
	switch {
	case err != nil:
		return Snapshot{}, err
	case found && s.spoilt:
		return Snapshot{}, r.spoilt(id, s)
	case found && s.source != req.Source:
		return Snapshot{}, r.about(snapshotOf(id), fmt.Errorf("%w: it is of volume %s, asked for is %s", ErrIncompatible, s.source, req.Source))
	case found && s.phase() == proven:
		return r.snapshot(s, req.Name), nil
	case req.Attached:
		return Snapshot{}, r.giveUp(ctx, id, s, found)
	case found && s.phase() == moving:
		return r.snapshot(s, req.Name), nil
	case found && s.phase() == broken:
		return Snapshot{}, r.failed(ctx, id, s, req.Source)
	}
	return r.copySnapshot(ctx, id, req, reply, s)
}

// take runs the script that takes the snapshot where that is possible, and looks. A snapshot that somebody else was faster with,
// and a reply that was lost, are looked at again.
func (r *RDS) take(ctx context.Context, id, slot string) (routeros.Reply, error) {
	reply, err := r.run(ctx, snapshotOf(id), snapshotScript(r.settings.ClusterID, id, slot))
	if errors.Is(err, ErrExists) || errors.Is(err, ErrOutcomeUnknown) && ctx.Err() == nil {
		return r.run(ctx, snapshotOf(id), snapshotScript(r.settings.ClusterID, id, slot))
	}
	return reply, err
}

// snapshotScript takes a snapshot of a volume that is a subvolume, unless there is anything of that snapshot already. For all
// others it only looks. The name of the subvolume carries the snapshot and its source, since it has no comment to do so. What was
// taken must be seen, or it is an error: a copy in its place would be another thing.
func snapshotScript(cluster, id, slot string) *routeros.Builder {
	b := routeros.NewScript("snapshot_add").
		Add(`:local s ?; :local t ?; :local d [/disk find where slot=$s]`, routeros.Text(slot), routeros.Text(id)).
		Add(`:if ([:len [/file find where name~("/" . $t . "[.]")]]=0) do={:if ([:len $d]=0) do={:error ?}; ?;
			:local p ("" . [/disk get $d file-path]);
			:if ([:pick $p 0 1]="/") do={:set p [:pick $p 1 [:len $p]]};
			:local n [:find $p "/"]; :local m [:pick $p 0 $n]; :local g [/disk find where mount-point=$m];
			:if ([:len $g]!=1) do={:error (? . " /" . $m)};
			:if ($p~("/" . $s . "/volume[.]img\$")) do={:if ([/disk get $g fs]="btrfs") do={
				:local l [/disk get $g fs-label]; :local w 0; :local u ""; :local x "";
				:foreach i in=[/disk/btrfs/subvolume print detail as-value where name=$s] do={
					:if ((($i->"fs")=$l) && (($i->"dead")!=true)) do={
						:set w ($w+1); :set u ($m . "/" . ($i->"fullname")); :set x ($x . " /" . $u)}};
				:if ($w>1) do={:error (? . $x)};
				:if ($w=1) do={
					:if ($p!=($u . "/volume.img")) do={:error (? . $x)};
					:local f ([:pick $p ($n+1) ([:len $p]-?)] . $t . "." . $s);
					/disk/btrfs/subvolume add fs=$l parent=$s read-only=yes name=$f;
					:set w 0;
					:foreach i in=[/disk/btrfs/subvolume print detail as-value where name=($t . "." . $s)] do={
						:if ((($i->"fs")=$l) && (($i->"fullname")=$f) && (($i->"parent")=$s) && (($i->"read-only")=true)) do={:set w ($w+1)}};
					:if ($w!=1) do={:error (? . " /" . $m . "/" . $f)}}}}}`,
			routeros.Text(sayAbsent), refuseSource(cluster, slot), routeros.Text(sayNoPool), routeros.Text(saySeveral), routeros.Text(sayApart),
			routeros.Number(int64(len(slot)+len(imageName)+1)), routeros.Text(sayUnseen))
	return lookAtSnapshots(printDisk(b, slot), id+"[.]")
}

// lookAtSnapshots looks for those whose name begins so.
func lookAtSnapshots(b *routeros.Builder, prefix string) *routeros.Builder {
	return look(b, "/"+prefix, "^"+prefix)
}

// sighted is the one sighting of a snapshot. What lies at two places is for a person to judge.
func (r *RDS) sighted(reply routeros.Reply, line int, id string) (s sighting, found bool, err error) {
	seen, err := sightings(reply, line, func(target string) bool { return target == id })
	if err != nil {
		return s, false, r.about(snapshotOf(id), err)
	}
	switch len(seen) {
	case 0:
		return s, false, nil
	case 1:
		return seen[0], true, nil
	}
	places := make([]string, 0, len(seen))
	for _, s := range seen {
		places = append(places, "/"+s.id())
	}
	return s, false, r.about(snapshotOf(id), fmt.Errorf("%w: there are several of it, at %s: move or remove the wrong ones by hand", ErrLeftover, strings.Join(places, " and ")))
}

// spoilt says that there is something of the name of a snapshot that is none any more, or never was. It is not removed either:
// what somebody can write to may be in use.
func (r *RDS) spoilt(id string, s sighting) error {
	return r.about(snapshotOf(id), fmt.Errorf("%w: %s is not a read-only subvolume (any more), so nobody knows what is in it: look at it, remove it by hand, and take another snapshot", ErrLeftover, s.image.Dir()))
}

// giveUp ends a copy of a volume that a node has got meanwhile: what the node writes would be in it in part.
func (r *RDS) giveUp(ctx context.Context, id string, s sighting, found bool) error {
	if found {
		if err := r.clear(ctx, snapshotOf(id), s, s.source); err != nil {
			return err
		}
	}
	return r.about(snapshotOf(id), fmt.Errorf("%w: this pool takes full copies, which are of one point in time only while nobody writes: stop the pods that use the volume, wait until it is detached, then repeat", ErrAttached))
}

// failed clears away a copy that failed, so that the next call begins anew, and says why it failed.
func (r *RDS) failed(ctx context.Context, id string, s sighting, volume string) error {
	if err := r.clear(ctx, snapshotOf(id), s, volume); err != nil {
		return err
	}
	sentinel, text := ErrAnswer, s.mark().text
	if strings.Contains(strings.ToLower(text), "no space left") {
		sentinel = ErrNoSpace
	}
	return r.about(snapshotOf(id), fmt.Errorf("%w: the copy failed, the rds says %q; repeat", sentinel, text))
}

// copySnapshot begins the copy, and says so.
func (r *RDS) copySnapshot(ctx context.Context, id string, req SnapshotRequest, reply routeros.Reply, left sighting) (Snapshot, error) {
	v, err := r.one(reply, req.Source)
	if err != nil {
		return Snapshot{}, err
	}
	dir := v.Path.home(req.Source)
	if dir.IsZero() {
		return Snapshot{}, r.errorf(req.Source, ErrForeign, "its image %s is not called after the slot, so somebody has changed the item; nothing was copied", v.Path)
	}
	of := sighting{dir: dir, target: id, source: req.Source, marks: left.marks}
	to, err := dir.Join(id + "." + req.Source + "." + image)
	if err != nil {
		return Snapshot{}, r.about(snapshotOf(id), err)
	}
	if !left.image.IsZero() && left.image != to || len(left.marks) == 0 && !left.image.IsZero() {
		return Snapshot{}, r.about(snapshotOf(id), fmt.Errorf("%w: %s is where the copy belongs, and nothing says that it is one: move or remove it by hand", ErrLeftover, left.image))
	}
	job := copyJob{of: of, from: v.Path, to: to, volume: req.Source, mark: newMark(req.Name, v.SizeBytes)}
	if err := r.startCopy(ctx, snapshotOf(id), job); err != nil {
		return Snapshot{}, err
	}
	of.marks = map[string]mark{copying: job.mark}
	return r.snapshot(of, req.Name), nil
}

// DeleteSnapshot removes a snapshot, or what there is of one; absent is success. One command to look and one to remove: what is
// removed has a path, and is not whatever has a name.
func (r *RDS) DeleteSnapshot(ctx context.Context, id string) error {
	if !ValidSnapshotID(id) {
		return nil // an id that no driver gives names no snapshot
	}
	s, found, err := r.snapshotAt(ctx, id)
	if err != nil || !found {
		return err
	}
	if s.spoilt {
		return r.spoilt(id, s)
	}
	source := ""
	if s.has(copying) && ValidSlot(s.source) && !ValidSnapshotID(s.source) {
		source = s.source
	}
	return r.clear(ctx, snapshotOf(id), s, source)
}

// GetSnapshot reads one snapshot of this cluster. ErrNotFound only when a parsed, empty answer says so.
func (r *RDS) GetSnapshot(ctx context.Context, id string) (Snapshot, error) {
	absent := r.about(snapshotOf(id), fmt.Errorf("%w: the rds has nothing of it", ErrNotFound))
	if !ValidSnapshotID(id) {
		return Snapshot{}, absent
	}
	s, found, err := r.snapshotAt(ctx, id)
	switch {
	case err != nil:
		return Snapshot{}, err
	case s.spoilt:
		return Snapshot{}, r.spoilt(id, s)
	case !found || len(s.marks) == 0 && !s.subvolume:
		return Snapshot{}, absent
	}
	return r.snapshot(s, s.mark().name), nil
}

// snapshotAt looks for one snapshot, which must be this cluster's by its id. That there is none is proven.
func (r *RDS) snapshotAt(ctx context.Context, id string) (sighting, bool, error) {
	if !strings.HasPrefix(id, snapshotsOf(r.settings.ClusterID)) {
		return sighting{}, false, r.about(snapshotOf(id), fmt.Errorf("%w: the id is that of another cluster (clusterID in the configuration); nothing was touched", ErrForeign))
	}
	s, found, err := r.lookAgain(ctx, id)
	if err == nil && !found {
		s, found, err = r.lookForProof(ctx, id)
	}
	if err == nil && s.unmarked() {
		s, found, err = r.lookForProof(ctx, id)
	}
	return s, found, err
}

// lookForProof looks for one snapshot; that there is none is proven.
func (r *RDS) lookForProof(ctx context.Context, id string) (sighting, bool, error) {
	reply, err := r.read(ctx, snapshotOf(id), provable(routeros.NewScript("snapshot_prove"), func(b *routeros.Builder) *routeros.Builder {
		return lookAtSnapshots(b, id+"[.]")
	}))
	if err != nil {
		return sighting{}, false, err
	}
	s, found, err := r.sighted(reply, 1, id)
	if err == nil && !found {
		if err = r.poolsThere(reply, false); err != nil {
			err = r.about(snapshotOf(id), err)
		}
	}
	return s, found, err
}

func (r *RDS) lookAgain(ctx context.Context, id string) (sighting, bool, error) {
	reply, err := r.read(ctx, snapshotOf(id), lookAtSnapshots(routeros.NewScript("snapshot_get"), id+"[.]"))
	if err != nil {
		return sighting{}, false, err
	}
	return r.sighted(reply, 0, id)
}

// ListSnapshots reads all snapshots of this cluster, finished or not, sorted by id. One command, and a second one when a copy was
// just done.
func (r *RDS) ListSnapshots(ctx context.Context) ([]Snapshot, error) {
	seen, err := r.lookAtAll(ctx)
	if err == nil && slices.ContainsFunc(seen, sighting.unmarked) {
		seen, err = r.lookAtAll(ctx)
	}
	if err != nil {
		return nil, err
	}
	list := make([]Snapshot, 0, len(seen))
	for _, s := range seen {
		if len(s.marks) > 0 || s.subvolume || s.spoilt {
			list = append(list, r.snapshot(s, s.mark().name))
		}
	}
	return list, nil
}

func (r *RDS) lookAtAll(ctx context.Context) ([]sighting, error) {
	const subject = "list of snapshots"
	prefix := snapshotsOf(r.settings.ClusterID)
	reply, err := r.read(ctx, subject, provable(routeros.NewScript("snapshot_list"), func(b *routeros.Builder) *routeros.Builder {
		return lookAtSnapshots(b, prefix)
	}))
	if err != nil {
		return nil, err
	}
	seen, err := sightings(reply, 1, func(target string) bool { return ValidSnapshotID(target) && strings.HasPrefix(target, prefix) })
	if err == nil {
		err = r.poolsThere(reply, false)
	}
	if err != nil {
		return nil, r.about(subject, err)
	}
	return seen, nil
}

func (r *RDS) snapshot(s sighting, name string) Snapshot {
	ready := s.phase() == proven
	out := Snapshot{
		ID:           ID{RDS: r.settings.Name, Slot: s.target},
		SourceVolume: ID{RDS: r.settings.Name, Slot: s.source, bare: r.settings.Default && adoptableSlot(s.source)},
		Name:         name, SizeBytes: s.mark().size, Created: s.mark().created, Ready: ready, Progress: s.progress(), Path: s.image,
	}
	if s.subvolume {
		out.Created = s.created
	}
	if ready {
		out.SizeBytes = s.size
	}
	return out
}

func snapshotOf(id string) string { return "snapshot " + id }
