package appliance

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// Delete removes the volume's disk item, then its file, and proves both gone; absent is success. One command, and a second one
// where neither was there. An item without owner is claimed first, and what is being copied waits. Whether a node still uses the volume is the caller's knowledge: the RDS cannot say who is
// connected [T].
func (r *RDS) Delete(ctx context.Context, slot string) error {
	if !ValidSlot(slot) {
		return r.errorf(slot, ErrInvalid, "this is not a slot")
	}
	file, err := r.orphan(slot)
	if err != nil {
		return r.about(volumeOf(slot), err)
	}
	reply, err := r.remove(ctx, slot, file)
	if err != nil {
		return err
	}
	found, err := r.gone(slot, reply.Lines)
	if err != nil || found || file.flat.IsZero() {
		return err
	}
	return r.elsewhere(ctx, slot)
}

// remove runs the script, after what it asks for first.
func (r *RDS) remove(ctx context.Context, slot string, o orphan) (routeros.Reply, error) {
	about := routeros.Text(claimsAbout(slot))
	claims := routeros.Part(`:if ([:len [/file find where name~?]]>0) do={:error ?}`, about, routeros.Text(sayCopying))
	do := func() (routeros.Reply, error) {
		return r.run(ctx, volumeOf(slot), deleteScript(r.settings.ClusterID, slot, o, claims))
	}
	reply, err := do()
	if errors.Is(err, ErrForeign) && strings.Contains(err.Error(), sayUnowned) {
		if _, err := r.run(ctx, volumeOf(slot), claimScript(r.settings.ClusterID, slot)); err != nil {
			return routeros.Reply{}, err
		}
		reply, err = do()
	}
	if errors.Is(err, ErrCopying) {
		if err := r.stillCopied(ctx, slot, err); err != nil {
			return routeros.Reply{}, err
		}
		claims = routeros.Part(`?/file remove [find where name~?]`, forgetClaims(slot), about)
		return do()
	}
	return reply, err
}

// gone reads how many items and files there were, and how many of each are left. Only a plain zero is a proof.
func (r *RDS) gone(slot string, lines []string) (found bool, err error) {
	counts := [3]int{}
	for i, what := range []string{"the volume was there", "its disk item is gone", "its image is gone, and the subvolume around it"} {
		if i >= len(lines) {
			return false, r.errorf(slot, ErrAnswer, "the rds does not say whether %s; repeat", what)
		}
		if counts[i], err = strconv.Atoi(lines[i]); err != nil {
			return false, r.errorf(slot, ErrAnswer, "the rds says %.40q where it was to say whether %s; repeat", lines[i], what)
		}
		if i > 0 && counts[i] != 0 {
			return false, r.errorf(slot, ErrLeftover, "the rds took the command, yet it does not say that %s; repeat, or remove it by hand", what)
		}
	}
	return counts[0] > 0, nil
}

// elsewhere looks for the image of a volume that is not there any more. An earlier call may have removed the item and not
// the file, and the item alone knew the directory when that is not the configured one. A file is named, not removed: it may
// as well be a copy that somebody keeps. One that cannot be seen is not gone.
func (r *RDS) elsewhere(ctx context.Context, slot string) error {
	reply, err := r.read(ctx, volumeOf(slot), provable(routeros.NewScript("file_find"), func(b *routeros.Builder) *routeros.Builder {
		return printFiles(b, slot)
	}))
	if err != nil {
		return err
	}
	files, err := rows[fileRow](reply, 1)
	if err != nil {
		return r.about(volumeOf(slot), err)
	}
	for _, file := range files {
		name := file.Name.Text()
		if strings.HasSuffix(name, "/"+slot+".img") || strings.HasSuffix(name, "/"+slot+"/"+imageName) {
			return r.errorf(slot, ErrLeftover, "its disk item is gone, but /%s is on the rds: remove that file, or rename it if it is a copy to keep, then repeat",
				strings.TrimPrefix(name, "/"))
		}
	}
	if err := r.poolsThere(reply, adoptableSlot(slot)); err != nil {
		return r.about(volumeOf(slot), err)
	}
	return nil
}

// printFiles finds files by a slot in their names; the caller looks closer. A slot has no character that means anything in a regular
// expression.
func printFiles(b *routeros.Builder, slot string) *routeros.Builder {
	return b.Add(`:put [:serialize to=json options=json.no-string-conversion [/file print detail as-value where name~?]]`, routeros.Text(slot))
}

// orphan is where the image of a volume may lie whose item is gone.
type orphan struct{ flat, within Path }

// orphan is the file to remove when the item is gone already, as after a reboot between the two removals. Its name alone
// speaks for it, so it must be one that only a driver gives; for any other slot there is no such file.
func (r *RDS) orphan(slot string) (o orphan, err error) {
	if !derivedSlot(slot) && !adoptableSlot(slot) {
		return orphan{}, nil
	}
	if o.flat, err = flat(r.settings.Pool, slot); err != nil || !derivedSlot(slot) {
		return o, err
	}
	o.within, err = within(r.settings.Pool, slot)
	return o, err
}
