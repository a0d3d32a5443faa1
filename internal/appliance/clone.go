package appliance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// createFrom makes a volume with the content of another one or of a snapshot. Where both lie on one Btrfs file system that is one
// command and takes no time. Elsewhere it is a full copy that the RDS makes in the background: the first call begins it with a
// second command and answers ErrCopying, as do all others until it is done; the one after that makes the volume of it.
//
// Either way the item bears a mark until it is as large as asked for, and is not exported before: a call that was cut off in
// between is completed by the next one.
func (r *RDS) createFrom(ctx context.Context, p plan) (Volume, error) {
	reply, err := r.clone(ctx, p)
	if err != nil {
		return Volume{}, err
	}
	v, err := r.one(reply, p.slot)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return v, err
	}
	s := r.copyOf(reply, p)
	if s.unmarked() { // see there
		if reply, err = r.clone(ctx, p); err != nil {
			return Volume{}, err
		}
		s = r.copyOf(reply, p)
	}
	if s.phase() == proven { // its source may be gone by now
		if limit := p.request.LimitBytes; limit > 0 && s.size > limit {
			return Volume{}, r.errorf(p.slot, ErrOutOfRange, "the copy has %d bytes, more than the limit of %d", s.size, limit)
		}
		return r.adoptCopy(ctx, p, s)
	}
	from, err := r.origin(ctx, reply, p)
	if err != nil {
		return Volume{}, err
	}
	if limit := p.request.LimitBytes; limit > 0 && from.size > limit {
		return Volume{}, r.errorf(p.slot, ErrOutOfRange, "its source has %d bytes, more than the limit of %d", from.size, limit)
	}
	return r.copied(ctx, p, from, s)
}

// clone runs the script. What somebody else was faster with, and what a lost reply left open, the same script sees.
func (r *RDS) clone(ctx context.Context, p plan) (routeros.Reply, error) {
	reply, err := r.run(ctx, volumeOf(p.slot), cloneScript(r.settings.ClusterID, p))
	if errors.Is(err, ErrExists) || errors.Is(err, ErrOutcomeUnknown) && ctx.Err() == nil {
		reply, err = r.run(ctx, volumeOf(p.slot), cloneScript(r.settings.ClusterID, p))
	}
	return reply, r.existing(p, err)
}

// existing says what it means when something still exists after it was looked for: the image, which is to exist.
func (r *RDS) existing(p plan, err error) error {
	if errors.Is(err, ErrExists) {
		return fmt.Errorf("%w: %w", r.errorf(p.slot, ErrUnsupported, "the rds does not make a disk item of an image that is there already, so nothing can be restored or cloned on it"), err)
	}
	return err
}

// cloneScript makes the volume if its source is a subvolume of the file system that the volume is to lie on, and otherwise looks
// for all that a copy needs.
//
// A disk item of an image that is not there would be an empty volume, which the next node formats. So the item is made only
// after the image was seen, once, in its place and as large as its source. A subvolume that an earlier call has left without an
// item is used if it was made from the same source and lies where it belongs; any other is somebody's data. Its source may have
// grown since: how large it was the earlier call has written down beside it, in $k here, before it made it.
func cloneScript(cluster string, p plan) *routeros.Builder {
	source := p.request.Source
	b := routeros.NewScript("disk_clone")
	parent, files := "^"+literal(source.Volume)+"$", "^"+literal(p.dir.File()+"/"+p.slot)+"[.]"
	if source.Snapshot != "" {
		parent = "^" + source.Snapshot + "[.]"
		files = "(" + files + "|/" + source.Snapshot + "[.])"
	}
	within := withinLimit(p.request.LimitBytes)
	b.Add(`:local s ?; :local a (? . "/" . $s); :local q ($a . ?); :local v [/disk find where slot=$s]`,
		routeros.Text(p.slot), routeros.Text(p.dir.File()), routeros.Text("/"+imageName)).
		Add(`:if ([:len $v]=0) do={?; :if ([/disk get $m fs]="btrfs") do={
			:local l [/disk get $m fs-label]; :local n ""; :local u ""; :local o ""; :local w 0; :local x "";
			:foreach i in=[/disk/btrfs/subvolume print detail as-value where name~?] do={
				:if ((($i->"fs")=$l) && (($i->"dead")!=true)) do={
					:set w ($w+1); :set n ($i->"name"); :set u (? . "/" . ($i->"fullname")); :set o ($i->"read-only"); :set x ($x . " /" . $u)}};
			:if ($w>1) do={:error (? . $x)};
			:if ($w=1) do={?; :local z "";
				:foreach i in=[/file print detail as-value where name=($u . ?)] do={:set z [:tonum ($i->"size")]};
				:if ([:typeof $z]!="num") do={:error ?}; :local k $z;
				:if ([:len [/file find where name=$a]]>0) do={:set w 0;
					:foreach i in=[/disk/btrfs/subvolume print detail as-value where name=$s] do={
						:if ((($i->"fs")=$l) && (($i->"parent")=$n) && (($i->"fullname")=?)) do={:set w ($w+1)}};
					:if ($w!=1) do={:error (? . " /" . $a)};
					:foreach i in=[/file print detail as-value where name=?] do={:local y [:tonum ("" . ($i->"contents"))]; :if ([:typeof $y]="num") do={:set k $y}};
					?
				} else={? ?};
				:set w 0;
				:foreach i in=[/file print detail as-value where name=$q] do={:if ([:tonum ($i->"size")]=$k) do={:set w ($w+1)}};
				:if ($w!=1) do={:error (? . " /" . $q)};
				/disk/add type=file file-path=("/" . $q) file-size=$k slot=$s mount-filesystem=no comment=?;
				:set v [/disk find where slot=$s]}}}`,
			findPool(p.dir), routeros.Text(parent), routeros.Text(p.dir.MountPoint()), routeros.Text(saySeveral),
			fromWhere(cluster, source), routeros.Text("/"+imageName), routeros.Text(saySize),
			routeros.Text(p.within.Dir().below()), routeros.Text(sayLeftover), routeros.Text(p.cloning()), within,
			within, subvolumeOrSay(routeros.Part(`?:do {/file remove [find where name=?]; /file add name=? type=file contents=$z} on-error={};
				/disk/btrfs/subvolume add fs=$l parent=$n name=?`,
				makeSubvolumes(p.dir.directories()), routeros.Text(p.cloning()), routeros.Text(p.cloning()), routeros.Text(p.within.Dir().below()))),
			routeros.Text(sayImage), routeros.Text(p.unfinished())).
		Add(`?`, finish(p))
	return look(printDisk(printDisk(b, p.slot), source.Volume), files, parent)
}

// fromWhere refuses a subvolume as a source that is not what the source is said to be: of a snapshot, one that somebody can
// write to; of a volume, one that its item does not lie in, or that has no item and so holds what is nobody's. $u is its place.
func fromWhere(cluster string, source Source) routeros.Value {
	if source.Snapshot != "" {
		return routeros.Part(`:if ($o!=true) do={:error (? . " /" . $u)}`, routeros.Text(sayWritable))
	}
	return routeros.Part(`:local d [/disk find where slot=?]; :if ([:len $d]=0) do={:error ?}; ?;
		:local p ("" . [/disk get $d file-path]);
		:if (($p!=("/" . $u . ?)) && ($p!=($u . ?))) do={:error (? . " /" . $u)}`,
		routeros.Text(source.Volume), routeros.Text(saySource), refuseSource(cluster, source.Volume),
		routeros.Text("/"+imageName), routeros.Text("/"+imageName), routeros.Text(sayApart))
}

func withinLimit(limit int64) routeros.Value {
	if limit == 0 {
		return routeros.Part("")
	}
	return routeros.Part(`:if ($k>?) do={:error ?};`, routeros.Number(limit), routeros.Text(sayLarge))
}

// cloning is where it is written how large a subvolume is that is not a disk item yet.
func (p plan) cloning() string {
	return sighting{dir: p.dir, target: p.slot, source: p.request.Source.name()}.id() + ".cloning"
}

// unfinished is the comment of an item that is not yet as large as asked for.
func (p plan) unfinished() string { return p.comment + unfinishedMark }

const unfinishedMark = " unfinished=yes"

// finish makes an unfinished item what was asked for: the size first, then all else at once. $s is its slot. What was made from the
// same source is the same volume, whatever else the comment says. The comparison of sizes needs a number, as in expandScript.
func finish(p plan) routeros.Value {
	own, _, _ := strings.Cut(p.comment, "name=")
	return routeros.Part(`:foreach i in=[/disk print detail as-value where slot=$s] do={:local c ("" . ($i->"comment"));
		:if (([:pick $c 0 ?]=?) && ($c~?) && ($c~?)) do={
		:local z [:tonum ($i->"file-size")]; :if (([:typeof $z]!="num") || ($z<=0)) do={:error ?};
		:if ($z<?) do={/disk set [find where slot=$s] file-size=?};
		/disk set [find where slot=$s] comment=? ?;
		/file remove [find where name~?]}}`,
		routeros.Number(int64(len(own))), routeros.Text(own), routeros.Text(" from="+literal(encode(p.request.Source.name()))+" "), routeros.Text(unfinishedMark+"$"),
		routeros.Text(saySize), routeros.Number(p.size), routeros.Number(p.size), routeros.Text(p.comment), exported(p),
		routeros.Text(marksOf(p.dir, p.slot)))
}

// original is the image to copy.
type original struct {
	path Path
	size int64
}

// origin finds the image of the source, which must be there and, of a snapshot, proven.
func (r *RDS) origin(ctx context.Context, reply routeros.Reply, p plan) (original, error) {
	source := p.request.Source
	if source.Snapshot != "" {
		from, err := r.snapshotImage(reply, p)
		if errors.Is(err, ErrNotFound) {
			return original{}, r.noSource(ctx, p, err)
		}
		return from, err
	}
	line := routeros.Reply{Lines: reply.Lines[min(1, len(reply.Lines)):]}
	v, err := r.one(line, source.Volume)
	if err != nil {
		return original{}, fmt.Errorf("volume %s is to be made from it: %w", p.slot, err)
	}
	return original{path: v.Path, size: v.SizeBytes}, nil
}

// noSource returns the error if the snapshot is proven not to be there.
func (r *RDS) noSource(ctx context.Context, p plan, absent error) error {
	switch _, found, err := r.lookForProof(ctx, p.request.Source.Snapshot); {
	case err != nil:
		return fmt.Errorf("volume %s is to be made from it: %w", p.slot, err)
	case found:
		return r.errorf(p.slot, ErrAnswer, "its source, snapshot %s, was not there a moment ago, and is now, as when a pool comes back: repeat", p.request.Source.Snapshot)
	}
	return absent
}

func (r *RDS) snapshotImage(reply routeros.Reply, p plan) (original, error) {
	id := p.request.Source.Snapshot
	s, found, err := r.sighted(reply, 2, id)
	switch {
	case err != nil:
		return original{}, err
	case !found:
		return original{}, r.errorf(p.slot, ErrNotFound, "its source, snapshot %s, is not there", id)
	case s.phase() == moving:
		return original{}, r.errorf(p.slot, ErrCopying, "its source, snapshot %s, is not ready (%.0f%% done)%s", id, 100*s.progress(), s.whose())
	case s.phase() != proven:
		return original{}, r.errorf(p.slot, ErrLeftover, "its source, snapshot %s, is not whole, or no snapshot any more; nothing can be made of it: delete it and take it again", id)
	}
	return original{path: s.image, size: s.size}, nil
}

// copyOf is what there is of a copy that is to become the volume. Its image has no source in its name.
func (r *RDS) copyOf(reply routeros.Reply, p plan) sighting {
	s := sighting{dir: p.dir, target: p.slot, source: p.request.Source.name()}
	seen, err := sightings(reply, 2, func(target string) bool { return target == p.slot })
	if err != nil { // the lines were read before, by origin
		return s
	}
	at := sighting{dir: p.dir, target: p.slot}
	var found sighting
	for _, one := range seen {
		switch one.id() {
		case s.id():
			one.image, one.size = found.image, found.size
			found = one
		case at.id():
			found.image, found.size = one.image, one.size
		}
	}
	found.dir, found.target, found.source = s.dir, s.target, s.source
	return found
}

// name is the slot or the id.
func (s Source) name() string { return s.Volume + s.Snapshot }

// copied goes on with a copy from where it stands.
func (r *RDS) copied(ctx context.Context, p plan, from original, s sighting) (Volume, error) {
	volume := p.request.Source.Volume
	switch phase := s.phase(); {
	case volume != "" && p.request.SourceAttached:
		if len(s.marks) > 0 {
			if err := r.clear(ctx, volumeOf(p.slot), s, volume); err != nil {
				return Volume{}, err
			}
		}
		return Volume{}, r.errorf(p.slot, ErrAttached, "this pool takes full copies, which are of one point in time only while nobody writes: detach the source, volume %s, then repeat", volume)
	case phase == moving:
		return Volume{}, r.errorf(p.slot, ErrCopying, "the rds copies %s to it (%.0f%% done); repeat%s", from.path, 100*s.progress(), s.whose())
	case phase == broken:
		return Volume{}, r.brokenCopy(ctx, p, s)
	case len(s.marks) == 0 && !s.image.IsZero():
		return Volume{}, r.errorf(p.slot, ErrLeftover, "%s is where its image belongs, and nothing says that it is a copy: move or remove the file by hand", s.image)
	}
	job := copyJob{of: s, from: from.path, to: p.flat, volume: volume, mark: newMark("", from.size)}
	if err := r.startCopy(ctx, volumeOf(p.slot), job); err != nil {
		return Volume{}, err
	}
	return Volume{}, r.errorf(p.slot, ErrCopying, "the rds has begun to copy %s to it, %d bytes; repeat", from.path, from.size)
}

func (r *RDS) brokenCopy(ctx context.Context, p plan, s sighting) error {
	if err := r.clear(ctx, volumeOf(p.slot), s, p.request.Source.Volume); err != nil {
		return err
	}
	sentinel, text := ErrAnswer, s.mark().text
	if strings.Contains(strings.ToLower(text), "no space left") {
		sentinel = ErrNoSpace
	}
	return r.errorf(p.slot, sentinel, "the copy failed, the rds says %q; repeat", text)
}

// adoptCopy makes the volume of a copy that is proven. One command.
func (r *RDS) adoptCopy(ctx context.Context, p plan, s sighting) (Volume, error) {
	b := routeros.NewScript("disk_adopt").
		Add(`:local s ?`, routeros.Text(p.slot)).
		Add(`:if ([:len [/disk find where slot=$s]]=0) do={?; :local w 0; :local y 0;
			:foreach i in=[/file print detail as-value where name=?] do={:if ([:tonum ($i->"size")]=?) do={:set w ($w+1)}};
			:foreach i in=[/file print detail as-value where name=?] do={:if (("" . ($i->"contents"))~?) do={:set y ($y+1)}};
			:if (($w!=1) || ($y!=1)) do={:error (? . " " . ?)};
			/disk/add type=file file-path=? file-size=? slot=$s mount-filesystem=no comment=?}`,
			refuseNamed(p.flat), routeros.Text(p.flat.File()), routeros.Number(s.size),
			routeros.Text(s.id()+"."+done), routeros.Text("nonce="+s.mark().nonce), routeros.Text(sayImage), routeros.Text(p.flat.Disk()),
			routeros.Text(p.flat.Disk()), routeros.Number(s.size), routeros.Text(p.unfinished())).
		Add(`?`, finish(p))
	reply, err := r.run(ctx, volumeOf(p.slot), printDisk(b, p.slot))
	if errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrExists) {
		v, err := r.reread(ctx, p.slot, err)
		return v, r.existing(p, err)
	}
	if err != nil {
		return Volume{}, err
	}
	return r.one(reply, p.slot)
}
