package appliance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// Export makes sure that nodes can reach the volume and that the RDS keeps its hands off it. One command when all is as it
// should be; a second puts it right, for exports do get lost (a reboot of the appliance, a person), and the volumes of
// the existing driver carry mount-filesystem=yes (B6) and no owner: from now on they have one. Repaired says what was done.
func (r *RDS) Export(ctx context.Context, slot string) (Volume, error) {
	return r.export(ctx, slot, false)
}

// ExportUnused is Export of a volume of which it is certain that no node is connected to it, and none will be before the answer. One
// that has grown is exported anew, once: a target that fixes the size of a namespace when it is enabled, as Linux does before 5.8
// and so perhaps an RDS, shows the new size to nobody before [U]. That costs a second command. The device's identifiers may change
// with it [U], as at a reboot of the RDS: nodes find a device by its subsystem's name alone.
func (r *RDS) ExportUnused(ctx context.Context, slot string) (Volume, error) {
	return r.export(ctx, slot, true)
}

func (r *RDS) export(ctx context.Context, slot string, unused bool) (Volume, error) {
	v, err := r.Get(ctx, slot)
	if err != nil {
		return Volume{}, err
	}
	if v.Owner == OwnerForeign {
		return Volume{}, r.errorf(slot, ErrForeign, "the comment of its disk item does not name this cluster (%s); it is not handed out: see clusterID in the configuration", r.settings.ClusterID)
	}
	return r.settle(ctx, v, unused)
}

// settle returns the volume when it is safe to hand out, and otherwise makes it so.
func (r *RDS) settle(ctx context.Context, v Volume, unused bool) (Volume, error) {
	slot := v.ID.Slot
	if v.Mounted {
		return Volume{}, r.errorf(slot, ErrMounted, "a node writing beside it would destroy the file system: set mount-filesystem=no for %s on the rds, check it there, then repeat", slot)
	}
	if v.Unfinished {
		return Volume{}, r.errorf(slot, ErrCopying, "the create that makes it of %s is not finished: repeat that", v.Source.name())
	}
	todo := repair{v: v, unused: unused}
	if todo.done(v) {
		return v, nil
	}
	now, err := r.reassert(ctx, todo)
	if err != nil {
		return Volume{}, err
	}
	if !now.settled() {
		return Volume{}, r.errorf(slot, ErrAnswer, "the rds took the change, yet says exported=%t mount-filesystem=%t mounted=%t nqn=%q owner=%s",
			now.Exported, now.MountFilesystem, now.Mounted, now.NQN, now.Owner)
	}
	now.Repaired = todo.String()
	return now, nil
}

// settled says that the volume may be handed out as it is.
func (v Volume) settled() bool { return v.Presentable() && v.Owner == OwnerOurs }

// repair is what it takes to settle a volume, and to show how large it is.
type repair struct {
	v      Volume // as it was found
	unused bool
}

// done says that there is nothing, or nothing any more, to put right.
func (r repair) done(now Volume) bool { return now.settled() && (!r.unused || now.GrownTo == 0) }

// anew says that the volume is exported, and is to be exported again. Nobody may be connected.
func (r repair) anew() bool { return r.unused && r.v.GrownTo > 0 && r.v.Exported }

// lost says that the volume cannot be reached as it is to be.
func (r repair) lost() bool { return !r.v.Exported || r.v.NQN != NQNFor(r.v.ID.Slot) }

// String is for people.
func (r repair) String() string {
	v := r.v
	var done []string
	if v.Owner == OwnerNone {
		done = append(done, "it belongs to this cluster now (it had no owner)")
	}
	if v.MountFilesystem {
		done = append(done, "the RDS does not mount its file system any more (mount-filesystem=no)")
	}
	if r.lost() {
		done = append(done, "it is exported again")
	}
	if r.anew() {
		done = append(done, "it is exported anew, so that its new size is seen")
	}
	return strings.Join(done, ", ")
}

// Presentable says whether nodes can reach the volume and the RDS keeps its hands off it, so that it may be handed out as it is.
func (v Volume) Presentable() bool {
	return v.Exported && !v.MountFilesystem && !v.Mounted && v.NQN == NQNFor(v.ID.Slot)
}

// reassert puts the export right. That the volume is not exported may be because it is being copied: then it waits, unless the
// copy has died. Whether it has is a guess, since the mark that says which job does it may be lost: so the claim goes before
// the export, and a job that still runs proves nothing any more.
func (r *RDS) reassert(ctx context.Context, todo repair) (Volume, error) {
	v := todo.v
	reply, err := r.run(ctx, volumeOf(v.ID.Slot), exportScript(r.settings.ClusterID, todo, refuseCopied(todo)))
	if errors.Is(err, ErrCopying) {
		if err := r.stillCopied(ctx, v.ID.Slot, err); err != nil {
			return Volume{}, err
		}
		reply, err = r.run(ctx, volumeOf(v.ID.Slot), exportScript(r.settings.ClusterID, todo, forgetClaims(v.ID.Slot)))
	}
	switch {
	case errors.Is(err, ErrOutcomeUnknown):
		now, again := r.Get(ctx, v.ID.Slot)
		if again != nil || !todo.done(now) {
			return Volume{}, err
		}
		return now, nil
	case err != nil:
		return Volume{}, err
	}
	return r.one(reply, v.ID.Slot)
}

// refuseCopied stops a script that would export a volume of which a copy is claimed.
func refuseCopied(todo repair) routeros.Value {
	if !todo.lost() && !todo.anew() { // nothing is exported then
		return routeros.Part("")
	}
	return routeros.Part(`:if ([:len [/file find where name~?]]>0) do={:error ?}; `, routeros.Text(claimsOn(todo.v.ID.Slot)), routeros.Text(sayCopying))
}

// forgetClaims takes back all claims of copies of a volume, and proves it. A job looks for its claim before it says that it is
// done, so what a node writes from then on is in no copy that counts. What remains says that the rest is a copy that was given up.
func forgetClaims(slot string) routeros.Value {
	claims := routeros.Text(claimsOn(slot))
	return routeros.Part(`:foreach i in=[/file print detail as-value where name~?] do={
			:local n ($i->"name"); :local q ([:pick $n 0 ([:len $n]-?)] . ?);
			:if ([:len [/file find where name=$q]]=0) do={/file add name=$q type=file contents=($i->"contents")};
			/file remove [find where name=$n]};
		:if ([:len [/file find where name~?]]>0) do={:error ?}; `,
		claims, routeros.Number(int64(len(copying))), routeros.Text(givenUp), claims, routeros.Text(sayCopying))
}

// stillCopied returns the refusal when a job works on a copy of the volume or into it, and nothing when no job is known to.
func (r *RDS) stillCopied(ctx context.Context, slot string, refusal error) error {
	subject := volumeOf(slot)
	reply, err := r.read(ctx, subject, look(routeros.NewScript("copies_of"), "[./]"+slot+"[.]", "^$"))
	if err != nil {
		return err
	}
	seen, err := sightings(reply, 0, func(string) bool { return true })
	if err != nil {
		return r.about(subject, err)
	}
	for _, s := range seen {
		if (s.source == slot || s.target == slot) && s.alive && !s.has(done) && !s.has(failure) {
			return fmt.Errorf("%w (%s, %.0f%% done)", refusal, s.target, 100*s.progress())
		}
	}
	return nil
}
