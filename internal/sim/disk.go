package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// slotLimit is what a third party found on 7.24.4 [S].
const slotLimit = 32

// What /disk answers. The texts follow families seen in other menus [I].
var (
	errSlotTaken = errors.New("failure: already have disk with such slot")
	errNQNTaken  = errors.New("failure: already have disk with such nvme-tcp-server-nqn")
	errBusy      = errors.New("failure: could not remove, stop using it first")
	errShrink    = errors.New("failure: file-size cannot be made smaller")
	errNoSize    = errors.New("missing value(s) of argument(s) file-size")
	errHardware  = errors.New("failure: not supported by this simulator for hardware disks and pools")
)

// diskMenu is /disk.
type diskMenu struct{ d *Device }

// NameProp tells the console that disks are addressed by slot.
func (m diskMenu) NameProp() string { return "slot" }

// Columns are those of the table.
func (m diskMenu) Columns() []string {
	return []string{"slot", "model", "serial", "interface", "size", "free", "fs", "raid-master"}
}

// Verbs are those of this version.
func (m diskMenu) Verbs() map[string][]string { return m.d.release.diskVerbs() }

// Policy is what a monitor needs: the manual has test for "other test commands" [V], and whether monitors are among them is
// not known [U].
func (m diskMenu) Policy(verb string) string {
	if verb == "monitor-traffic" {
		return m.d.quirks.get(quirkMonitorPolicy)
	}
	return ""
}

// Items returns all rows.
func (m diskMenu) Items(ctx context.Context) ([]console.Item, error) {
	return items(m.d.list(ctx)), nil
}

// Print writes the human form.
func (m diskMenu) Print(ctx context.Context, w io.Writer, list []console.Item, style console.PrintStyle) error {
	chosen := rows(list)
	inUse := chosen
	if len(chosen) == 0 {
		inUse = m.d.list(ctx)
	}
	return listing{
		flags: diskFlags(), inUse: inUse, width: widthOf(ctx), columns: m.Columns(),
	}.print(w, chosen, style)
}

// Call runs a verb.
func (m diskMenu) Call(
	ctx context.Context, verb string, list []console.Item, args []console.Arg, out io.Writer,
) (console.Value, error) {
	a, chosen := newArguments(args), rows(list)
	switch verb {
	case "add":
		return m.d.add(ctx, a)
	case "set", "comment":
		return nil, m.d.change(chosen, func(dk *disk) error { return m.d.set(ctx, dk, a) })
	case "enable", "disable":
		off := arguments{"disabled": verb == "disable"}
		return nil, m.d.change(chosen, func(dk *disk) error { return m.d.set(ctx, dk, off) })
	case "remove":
		return nil, m.d.change(chosen, m.d.remove)
	case "monitor-traffic":
		return m.d.monitorTraffic(out, chosen, a)
	}
	return nil, fmt.Errorf("failure: %s is not part of this simulator", verb)
}

// change does something to items in turn, up to the first that fails: what was done before stays done.
func (d *Device) change(chosen []*row, do func(*disk) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range chosen {
		if r.disk == nil {
			return errHardware
		}
		i := slices.IndexFunc(d.flash.Disks, func(dk *disk) bool { return itemID(dk.ID) == r.id })
		if i < 0 {
			return errors.New("no such item")
		}
		if err := first(do(d.flash.Disks[i]), d.save()); err != nil { // half of a change is remembered too
			return err
		}
	}
	return nil
}

// add makes an item, its file if need be, and its export, all in one command [R].
func (d *Device) add(ctx context.Context, a arguments) (console.Value, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dk := &disk{Port: 4420, MountFilesystem: true}
	if err := d.copyFrom(dk, a); err != nil {
		return nil, err
	}
	if err := d.fill(dk, a); err != nil {
		return nil, err
	}
	made, err := d.open(ctx, dk, a.has("file-size") || a.has("copy-from"), a.text("file-size") == "auto")
	if err != nil {
		return nil, err
	}
	dk.ID = d.flash.NextID
	d.look(dk)
	if err := d.raise(dk); err != nil {
		if made {
			d.note(d.storage.remove(dk.Path))
		}
		return nil, err
	}
	d.flash.NextID++
	d.flash.Disks = append(d.flash.Disks, dk)
	return itemID(dk.ID), d.save()
}

// copyFrom takes the settings of another item as defaults. Not its data: nothing in the manual says that it would [I].
func (d *Device) copyFrom(dk *disk, a arguments) error {
	if !a.has("copy-from") {
		return nil
	}
	want := a.text("copy-from")
	i := slices.IndexFunc(d.flash.Disks, func(one *disk) bool {
		return one.Slot == want || string(itemID(one.ID)) == want
	})
	if i < 0 {
		return errors.New("no such item")
	}
	*dk = *d.flash.Disks[i]
	dk.Slot, dk.Path, dk.Serial, dk.UUID, dk.up, dk.mounted, dk.fs, dk.hosts, dk.sitting = "", "", "", "", false, false, "", 0, nil
	return nil
}

// fill sets what add was given and what it may not leave open.
func (d *Device) fill(dk *disk, a arguments) error {
	switch {
	case !a.has("type") && !a.has("copy-from"):
		return errors.New("missing value(s) of argument(s) type")
	case a.has("type") && a.text("type") != "file":
		return d.otherType(a.text("type"))
	case !a.has("file-path"):
		return errors.New("missing value(s) of argument(s) file-path")
	}
	path, err := cleanPath(a.text("file-path"))
	if err != nil {
		return errors.New("invalid value for argument file-path")
	}
	dk.Path = path
	if !a.has("slot") {
		dk.Slot = "file-" + strings.ReplaceAll(path, "/", "-") // [R]
	}
	if a.text("file-size") != "auto" { // [S]
		if err := a.size("file-size", &dk.Size); err != nil {
			return err
		}
	}
	return d.settings(dk, a)
}

func (d *Device) otherType(t string) error {
	if !d.release.since(17) && t == "file" {
		return errors.New("input does not match any value of type")
	}
	known := strings.Fields("hardware partition raid ramdisk tmpfs iscsi nvme-tcp smb nfs sshfs")
	if slices.Contains(known, t) {
		return fmt.Errorf("failure: type=%s is not part of this simulator", t)
	}
	return errors.New("input does not match any value of type")
}

// settings sets the properties that add and set have in common. It changes nothing but dk.
func (d *Device) settings(dk *disk, a arguments) error {
	if a.has("slot") {
		slot, err := d.slot(a.text("slot"), dk)
		if err != nil {
			return err
		}
		dk.Slot = slot
	}
	server := []string{"nvme-tcp-server-port", "nvme-tcp-server-nqn", "nvme-tcp-server-allow-host-name",
		"nvme-tcp-server-password"}
	dk.ServerSet = dk.ServerSet || slices.ContainsFunc(server, a.has)
	a.string("comment", &dk.Comment)
	a.string("nvme-tcp-server-nqn", &dk.NQN)
	a.string("nvme-tcp-server-allow-host-name", &dk.AllowHost)
	a.string("nvme-tcp-server-password", &dk.Password)
	if strings.Contains(dk.NQN, "/") || len(dk.NQN) > 223 || strings.Trim(dk.NQN, ".") == "" && dk.NQN != "" {
		return errors.New("invalid value for argument nvme-tcp-server-nqn")
	}
	var compress bool
	err := first(
		a.boolean("disabled", &dk.Disabled),
		a.boolean("mount-filesystem", &dk.MountFilesystem),
		a.boolean("mount-read-only", &dk.MountReadOnly),
		a.boolean("compress", &compress),
		a.boolean("nvme-tcp-export", &dk.Export),
		a.number("nvme-tcp-server-port", 1, 65535, &dk.Port),
		a.size("file-offset", &dk.Offset),
	)
	if compress && err == nil {
		return errors.New("failure: compression only available for btrfs") // [V]
	}
	dk.ServerSet = dk.ServerSet || dk.Export
	return err
}

// slot judges a name that an item is to have.
func (d *Device) slot(name string, dk *disk) (string, error) {
	if name == "" || strings.Contains(name, "/") {
		return "", errors.New("invalid value for argument slot")
	}
	if len(name) > slotLimit {
		switch d.quirks.get(quirkSlotOver32) {
		case failing:
			return "", errors.New("invalid value for argument slot")
		case truncate:
			name = name[:slotLimit]
		}
	}
	taken := slices.ContainsFunc(d.flash.Disks, func(one *disk) bool { return one.Slot == name && one.ID != dk.ID })
	for _, p := range d.storage.pools {
		taken = taken || p.Slot == name
	}
	if taken && d.quirks.is(quirkDuplicateSlot, failing) {
		return "", errSlotTaken
	}
	return name, nil
}

// set changes an item that exists.
func (d *Device) set(ctx context.Context, dk *disk, a arguments) error {
	next := *dk
	if a.has("file-path") || a.has("type") {
		return errors.New("failure: file-path and type of an item cannot be changed in this simulator")
	}
	if err := d.settings(&next, a); err != nil {
		return err
	}
	if a.has("mount-filesystem") || a.has("disabled") {
		d.look(&next)
	}
	if err := a.size("file-size", &next.Size); err != nil {
		return err
	}
	if next.Size != dk.Size {
		if err := d.resize(ctx, dk, next.Size); err != nil {
			return err
		}
		next.up, next.Serial, next.UUID, next.sitting = dk.up, dk.Serial, dk.UUID, dk.sitting
	}
	return d.replace(dk, &next)
}

// replace makes dk what next is, its export included.
func (d *Device) replace(dk, next *disk) error {
	if d.sameExport(dk, next) {
		*dk = *next
		return nil
	}
	d.lower(dk)
	old := *dk
	next.up, next.sitting = false, nil
	*dk = *next
	if err := d.raise(dk); err != nil {
		*dk = old
		d.note(d.raise(dk))
		return err
	}
	return nil
}

func (d *Device) sameExport(a, b *disk) bool {
	return a.Export == b.Export && a.Disabled == b.Disabled && a.Port == b.Port && d.nqn(a) == d.nqn(b) &&
		a.AllowHost == b.AllowHost && a.Offset == b.Offset
}

// remove takes an item away. Its file stays [V].
func (d *Device) remove(dk *disk) error {
	if d.quirks.is(quirkRemoveWhileConnected, refuse) && d.connected(dk) {
		return errBusy
	}
	d.lower(dk)
	d.flash.Disks = slices.DeleteFunc(d.flash.Disks, func(one *disk) bool { return one == dk })
	return nil
}
