package appliance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// copyJob is a copy to be made.
type copyJob struct {
	of     sighting // dir, target and source say where it goes
	from   Path     // the image to copy
	to     Path
	volume string // slot whose image it is; empty for the copy of a snapshot, which nobody writes to
	mark   mark
}

func (c copyJob) file(kind string) string { return c.of.id() + "." + kind }

// newMark begins an attempt.
func newMark(name string, size int64) mark {
	nonce := make([]byte, 8)
	_, _ = rand.Read(nonce) // never fails
	return mark{size: size, created: time.Now().UTC().Truncate(time.Second), nonce: hex.EncodeToString(nonce), name: name}
}

// startCopy begins a copy in place of whatever is left of earlier attempts. One command. When its reply was lost, the next call
// sees what became of it.
func (r *RDS) startCopy(ctx context.Context, subject string, c copyJob) error {
	script, err := c.script(r.settings.ClusterID)
	if err != nil {
		return r.translate(subject, err)
	}
	_, err = r.run(ctx, subject, script)
	if errors.Is(err, routeros.ErrSyntax) {
		return r.unsupportedCopy(subject, err)
	}
	return err
}

func (r *RDS) unsupportedCopy(subject string, err error) error {
	return errors.Join(r.about(subject, ErrUnsupported), errors.New("this pool is not Btrfs, so it takes a full copy, and /file/copy needs RouterOS 7.23: upgrade the rds, or use a Btrfs pool"), err)
}

// script is what begins a copy. The source is not exported as long as it is copied, so that no node can connect to it and write:
// attaching asks for the export first (Export), and is told to wait.
//
// The job is given a name of its own for this attempt, in the claim, and works only for as long as the claim is there and bears
// that name: whatever of it is left over from an attempt that was given up, by a power loss or a person, proves nothing.
//
// Ids are compared as text here: of which type the one is that :execute returns is not known [U], and a where clause would find
// nothing on a mismatch and say nothing [R].
func (c copyJob) script(cluster string) (*routeros.Builder, error) {
	job, err := c.job().Build()
	if err != nil {
		return nil, err
	}
	claim, text := routeros.Text(c.file(copying)), routeros.Text(c.mark.String())
	b := routeros.NewScript("file_copy").
		Add(`:if (false) do={/file copy "x" name="y"}`). // does not parse where there is no such command, and then nothing runs
		Add(`?`, refuseNamed(c.to))
	if !c.of.has(done) { // it ended well after all, between the look and now
		b.Add(`:if ([:len [/file find where name=?]]>0) do={:error ?}`, routeros.Text(c.file(done)), routeros.Text(sayCopying))
	}
	if c.volume != "" {
		b.Add(`:local d [/disk find where slot=?]; :if ([:len $d]=0) do={:error ?}; ?`,
			routeros.Text(c.volume), routeros.Text(sayAbsent), refuseSource(cluster, c.volume))
	}
	b.Add(`?`, makeHome(c.to.Dir())).
		Add(`/file remove [find where name~?]; /file remove [find where name=?]`,
			routeros.Text(marksOf(c.of.dir, c.of.target)), routeros.Text(c.to.File())).
		Add(`:local z 0; :foreach i in=[/disk print detail as-value where mount-point=?] do={:set z [:tonum ($i->"free")]}`, routeros.Text(c.to.MountPoint())).
		Add(`:if ($z<?) do={:error ?}`, routeros.Number(c.mark.size), routeros.Text(sayFull))
	if c.volume != "" {
		b.Add(`/disk set $d nvme-tcp-export=no`)
	}
	return b.Add(`/file add name=? type=file contents=?`, claim, text).
		Add(`:local j [:execute script=?]; :local k ""`, routeros.Text(job.String())).
		Add(`:if ([:len ("" . $j)]=0) do={/file remove [find where name=?]; ?:error ?}`, claim, c.release(0), routeros.Text(sayJob)).
		Add(`:foreach i in=[/system/script/job print detail as-value] do={:if (("" . ($i->".id"))=("" . $j)) do={:set k ($i->"started")}}`).
		Add(`/file add name=? type=file contents=($j . " " . $k)`, routeros.Text(c.file(jobMark))), nil
}

// job is what runs in the background. Should the copy command come back before the copy is whole, which nobody knows, the job
// waits for as long as the copy grows, and for a minute more.
func (c copyJob) job() *routeros.Builder {
	n, size := routeros.Number(int64(len(c.mark.String()))), routeros.Number(c.mark.size)
	return routeros.NewScript("file_copy_job").
		Add(`:local c ?; :local n ?; :local g [/file find where name=$c]`, routeros.Text(c.file(copying)), routeros.Text(c.mark.String())).
		Add(`:if ([:len $g]>0) do={:if ([:pick [/file get $g contents] 0 ?]=$n) do={
			:local r ?; :local t $n;
			:onerror e in={/file copy ? name=?; :local w 0; :local z 0;
				:while (($z<?) && ($w<120)) do={:local y $z; :set z [:tonum [/file get [find where name=?] size]];
					:set w ($w+1); :if ($z>$y) do={:set w 0}; :if ($z<?) do={:delay 500ms}};
				:if ($z<?) do={:error ?}} do={:set r ?; :set t ($n . ? . $e)};
			:set g [/file find where name=$c];
			:if ([:len $g]>0) do={:if ([:pick [/file get $g contents] 0 ?]=$n) do={
				?/file add name=$r type=file contents=$t; /file remove $g}}}}`,
			n, routeros.Text(c.file(done)), routeros.Text(c.from.File()), routeros.Text(c.to.File()),
			size, routeros.Text(c.to.File()), size, size, routeros.Text("the copy did not become whole"),
			routeros.Text(c.file(failure)), routeros.Text(errorKey), n, c.release(1))
}

// release exports the source again, unless another copy of it is claimed beside this one, which has so many claims of its own.
func (c copyJob) release(own int64) routeros.Value {
	if c.volume == "" {
		return routeros.Part("")
	}
	return routeros.Part(`:if ([:len [/file find where name~?]]<=?) do={/disk set [find where slot=?] nvme-tcp-export=yes}; `,
		routeros.Text(claimsOn(c.volume)), routeros.Number(own), routeros.Text(c.volume))
}

// claimsOn is the regular expression of the claims of copies that are made of a volume.
func claimsOn(slot string) string { return "[.]" + slot + "[.]copying$" }

// refuseNamed stops a script before it touches a file that a disk item names, in whatever form the item writes the path.
func refuseNamed(path Path) routeros.Value {
	return routeros.Part(`:foreach i in=[/disk print detail as-value] do={
		:local q ("" . ($i->"file-path")); :if (($q=?) || ($q=?)) do={:error ?}}`,
		routeros.Text(path.File()), routeros.Text(path.Disk()), routeros.Text(sayNamed))
}

// clear removes what there is of a copy or of a snapshot, the proof first, so that half of it is never taken for a whole. One
// command.
func (r *RDS) clear(ctx context.Context, subject string, s sighting, volume string) error {
	reply, err := r.run(ctx, subject, clearScript(s, volume))
	if err != nil {
		return err
	}
	if len(reply.Lines) == 0 || strings.TrimSpace(reply.Lines[0]) != "0" {
		return r.about(subject, errors.Join(ErrLeftover, errors.New("the rds took the command, yet something of /"+s.id()+" is still there; repeat, or remove it by hand")))
	}
	return nil
}

// clearScript stops the job first. That a job ends between the look and the removal is no failure. A file that cannot be seen is
// not gone, so the pool must be there before and after.
func clearScript(s sighting, volume string) *routeros.Builder {
	b := routeros.NewScript("snapshot_remove").Add(`?`, findPool(s.dir))
	if s.alive {
		b.Add(`:foreach i in=[/system/script/job print detail as-value] do={:if ((($i->".id") . " " . ($i->"started"))=?) do={
			:foreach n in=[/system/script/job find] do={:if (("" . $n)=("" . ($i->".id"))) do={:do {/system/script/job remove $n} on-error={}}}}}`, routeros.Text(s.job))
	}
	if !s.image.IsZero() {
		b.Add(`?`, refuseNamed(s.image))
	}
	switch {
	case s.subvolume:
		at := s.image.Dir()
		b.Add(`:foreach i in=[/disk print detail as-value where mount-point=?] do={:local l ($i->"fs-label");
			/disk/btrfs/subvolume remove [find where name=? and fullname=? and fs=$l]}`,
			routeros.Text(at.MountPoint()), routeros.Text(at.Base()), routeros.Text(at.below())).
			Add(`:local c [:len [/file find where name=?]]`, routeros.Text(at.File()))
	default:
		// The job may take its claim back in the middle.
		b.Add(`:do {/file remove [find where name~?]} on-error={}`, routeros.Text(marksOf(s.dir, s.target))).
			Add(`/file remove [find where name~?]; /file remove [find where name=?]`, routeros.Text(marksOf(s.dir, s.target)), routeros.Text(s.image.File())).
			Add(`:local c ([:len [/file find where name~?]]+[:len [/file find where name=?]])`, routeros.Text(marksOf(s.dir, s.target)), routeros.Text(s.image.File()))
	}
	if volume != "" {
		b.Add(`:if ([:len [/file find where name~?]]=0) do={/disk set [find where slot=?] nvme-tcp-export=yes}`,
			routeros.Text(claimsOn(volume)), routeros.Text(volume))
	}
	return b.Add(`:if (true) do={?}; :put $c`, findPool(s.dir))
}
