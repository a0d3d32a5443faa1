package appliance

import (
	"context"
	"strconv"
)

// Delete removes the volume's disk item, then its file, and proves both gone; absent is success. One command. Whether a node
// still uses the volume is the caller's knowledge: the RDS cannot say who is connected [T].
func (r *RDS) Delete(ctx context.Context, slot string) error {
	if !ValidSlot(slot) {
		return r.errorf(slot, ErrInvalid, "this is not a slot")
	}
	file, err := r.orphan(slot)
	if err != nil {
		return r.about(volumeOf(slot), err)
	}
	reply, err := r.run(ctx, volumeOf(slot), deleteScript(r.settings.ClusterID, slot, file))
	if err != nil {
		return err
	}
	return r.gone(slot, reply.Lines)
}

// gone reads how many items and files are left. Only a plain zero is a proof.
func (r *RDS) gone(slot string, left []string) error {
	for i, what := range []string{"its disk item", "its image file"} {
		if i >= len(left) {
			return r.errorf(slot, ErrAnswer, "the rds does not say whether %s is gone; repeat", what)
		}
		n, err := strconv.Atoi(left[i])
		switch {
		case err != nil:
			return r.errorf(slot, ErrAnswer, "the rds says %.40q where it was to say whether %s is gone; repeat", left[i], what)
		case n != 0:
			return r.errorf(slot, ErrLeftover, "the rds took the command, yet %s is still there; repeat, or remove it by hand", what)
		}
	}
	return nil
}

// orphan is the file to remove when the item is gone already, as after a reboot between the two removals. Its name alone
// speaks for it, so it must be one that only a driver gives; for any other slot there is no such file.
func (r *RDS) orphan(slot string) (Path, error) {
	if !derivedSlot(slot) && !adoptableSlot(slot) {
		return Path{}, nil
	}
	return r.settings.Pool.Join(slot + ".img")
}
