package sim

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// growthLook is how often connections are looked at while growth waits for them to end: the kernel announces that to nobody.
const growthLook = 25 * time.Millisecond

// resize gives the file of an item another size and lets the export know, as far as the switches say so.
func (d *Device) resize(ctx context.Context, dk *disk, size int64) error {
	if size < dk.Size && d.quirks.is(quirkShrink, refuse) {
		return errShrink
	}
	if size == 0 {
		return errNoSize
	}
	if size-dk.Size > d.storage.free(ctx, dk.Path) {
		return errFull
	}
	if dk.up && d.quirks.is(quirkResizeBouncesExport, yes) {
		return d.bounce(ctx, dk, size)
	}
	if dk.up && size > dk.Size && d.hides(dk) {
		dk.Size = size
		return nil
	}
	dk.sitting = nil
	if err := d.storage.resize(ctx, dk.Path, size); err != nil {
		return err
	}
	dk.Size = size
	if !dk.up {
		return nil
	}
	return d.exports.grown(d.nqn(dk), d.quirks.is(quirkGrowthVisible, notify))
}

// bounce takes the export away while the size changes.
func (d *Device) bounce(ctx context.Context, dk *disk, size int64) error {
	d.lower(dk)
	err := d.storage.resize(ctx, dk.Path, size)
	if err == nil {
		dk.Size = size
	}
	return first(err, d.raise(dk))
}

// hides tells whether the file keeps its size for now, because a host would see another one: until the item is exported anew, or
// until nobody is left of those who are connected. An export has one size for all of its connections, so a host that comes in the
// meantime sees the old one.
func (d *Device) hides(dk *disk) bool {
	switch d.quirks.get(quirkGrowthVisible) {
	case reexport:
		return true
	case reconnect:
		watched := len(dk.sitting) > 0
		dk.sitting = d.connections(dk)
		if len(dk.sitting) > 0 && !watched {
			id := dk.ID
			d.work.Go(func() { d.watchGrowth(id) })
		}
		return len(dk.sitting) > 0
	}
	return false
}

// watchGrowth shows growth when those who were connected before it have left.
func (d *Device) watchGrowth(id int64) {
	tick := time.NewTicker(growthLook)
	defer tick.Stop()
	for d.waits(id) {
		select {
		case <-tick.C:
		case <-d.life.Done():
			return
		}
	}
}

// waits looks once, and tells whether growth has to wait longer. A boot ends the wait, for it exports anew.
func (d *Device) waits(id int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.flash.Disks, func(dk *disk) bool { return dk.ID == id })
	if i < 0 {
		return false
	}
	d.showGrowth(d.flash.Disks[i])
	return len(d.flash.Disks[i].sitting) > 0
}

// showGrowth gives the file its size if nobody is left of those whom growth waits for. Who connected since, and before this look, is
// notified: a host is not to keep a size that its connection would not have begun with. mu is held.
func (d *Device) showGrowth(dk *disk) {
	if len(dk.sitting) == 0 {
		return
	}
	now := d.connections(dk)
	if slices.ContainsFunc(dk.sitting, func(one string) bool { return slices.Contains(now, one) }) {
		return
	}
	dk.sitting = nil
	if err := first(d.catchUp(dk), d.exports.grown(d.nqn(dk), true)); err != nil {
		d.log.Error("growth could not be shown", "slot", dk.Slot, "error", err)
	}
}

// connections names those of an item; a name is never given again.
func (d *Device) connections(dk *disk) []string {
	if !dk.up {
		return nil
	}
	list := d.exports.connections(d.nqn(dk))
	for n := range dk.hosts {
		list = append(list, fmt.Sprintf("pretended %d", n))
	}
	return list
}

// catchUp gives the file the size that set asked for while hosts were not to see it.
func (d *Device) catchUp(dk *disk) error {
	info, ok := d.storage.stat(dk.Path)
	if !ok || info.Size() >= dk.Size {
		return nil
	}
	return os.Truncate(d.storage.host(dk.Path), dk.Size)
}
