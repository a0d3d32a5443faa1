package appliance

import (
	"context"
	"errors"
	"strconv"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// Expand makes the volume as large as asked for, and never smaller: one that is large enough stays as it is. What is returned is
// the size that the RDS says afterwards. One command, and a second one when its reply was lost.
//
// Whether hosts see the new size at once, when they look again, only when they connect again, or not before the volume is exported
// anew depends on the RDS's target [U]: the node proves it. So the item's comment says that the volume has grown, for ExportUnused
// to know; and since a comment says whose an item is, one without owner has one from now on, as after Export.
func (r *RDS) Expand(ctx context.Context, slot string, requiredBytes, limitBytes int64) (Volume, error) {
	if !ValidSlot(slot) {
		return Volume{}, r.errorf(slot, ErrInvalid, "this is not a slot")
	}
	size := int64(0) // nothing required: nothing to grow
	if requiredBytes != 0 {
		var err error
		if size, err = SizeFor(requiredBytes, limitBytes); err != nil {
			return Volume{}, r.about(volumeOf(slot), err)
		}
	}
	v, err := r.grow(ctx, slot, size)
	if err != nil {
		return Volume{}, err
	}
	switch {
	case v.SizeBytes < requiredBytes:
		return Volume{}, r.errorf(slot, ErrAnswer, "the rds took the command, yet it has %d bytes where at least %d were asked for; repeat", v.SizeBytes, requiredBytes)
	case limitBytes > 0 && v.SizeBytes > limitBytes:
		return Volume{}, r.errorf(slot, ErrOutOfRange, "it has %d bytes already, more than the limit of %d, and a volume is never made smaller", v.SizeBytes, limitBytes)
	}
	return v, nil
}

// grow runs the script. When nobody knows whether it ran, the size tells.
func (r *RDS) grow(ctx context.Context, slot string, size int64) (Volume, error) {
	reply, err := r.run(ctx, volumeOf(slot), expandScript(r.settings.ClusterID, slot, size))
	if errors.Is(err, ErrOutcomeUnknown) {
		v, again := r.reread(ctx, slot, err)
		if again == nil && v.SizeBytes < size {
			return Volume{}, err
		}
		return v, again
	}
	if err != nil {
		return Volume{}, err
	}
	return r.one(reply, slot)
}

// grownKey begins the mark in the comment of a volume that has grown and was not exported anew since.
const grownKey = " grown="

// grownMark names the size, so that whoever takes the mark away takes that of the growth he knows of, and of no later one.
func grownMark(bytes int64) string { return grownKey + strconv.FormatInt(bytes, 10) }

// expandScript compares on the device, so that whoever else grows the volume meanwhile is not undone: what a smaller file-size
// would do is not known [U]. The comparison needs a number, which a print yields to scripts [R]; anything else is no permission.
// Size and mark are set by one command, so that neither is there without the other. What is unfinished bears its own mark, at the end,
// and is not exported yet.
func expandScript(cluster, slot string, size int64) *routeros.Builder {
	b := routeros.NewScript("disk_expand").
		Add(`:local d [/disk find where slot=?]`, routeros.Text(slot)).
		Add(`:if ([:len $d]=0) do={:error ?}`, routeros.Text(sayAbsent)).
		Add(`?`, refuseForeign(cluster, slot)).
		Add(`:local z [:tonum ([/disk print detail as-value where slot=?]->0->"file-size")]`, routeros.Text(slot)).
		Add(`:if ([:typeof $z]!="num") do={:error ?}`, routeros.Text(saySize)).
		Add(`:if ($z<?) do={:if ([:len $c]=0) do={:set c ?}; :if (!($c~?)) do={?}; /disk set $d file-size=? comment=$c}`,
			routeros.Number(size), routeros.Text(tag{cluster: cluster, name: slot}.String()),
			routeros.Text(unfinishedMark+"$"), markGrowth(size), routeros.Number(size))
	return printDisk(b, slot)
}

// markGrowth puts the mark at the end of $c, the comment, or where that of an earlier growth is.
func markGrowth(size int64) routeros.Value {
	return routeros.Part(`:local k $c; :local r "";
		:if ($c~?) do={:local n [:find $c ?]; :local q [:pick $c ($n+?) [:len $c]]; :local e [:find ($q . " ") " "];
			:set k [:pick $c 0 $n]; :if ([:len $q]>$e) do={:set r [:pick $q $e [:len $q]]}};
		:set c ($k . ? . $r)`,
		routeros.Text(grownKey+"[0-9]+( |$)"), routeros.Text(grownKey), routeros.Number(int64(len(grownKey))), routeros.Text(grownMark(size)))
}
