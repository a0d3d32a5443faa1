package appliance

import (
	"context"
	"errors"

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

const (
	// grownMark is in the comment of a volume that has grown and was not exported anew since.
	grownMark = " grown=yes"
	// grownPattern finds it as a word.
	grownPattern = grownMark + "( |$)"
)

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
		Add(`:if ($z<?) do={:if ([:len $c]=0) do={:set c ?}; :if (!($c~?)) do={:set c ($c . ?)}; /disk set $d file-size=? comment=$c}`,
			routeros.Number(size), routeros.Text(tag{cluster: cluster, name: slot}.String()),
			routeros.Text("("+grownPattern+"|"+unfinishedMark+"$)"), routeros.Text(grownMark), routeros.Number(size))
	return printDisk(b, slot)
}
