package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// rootName is what the subvolume is called that every Btrfs has [V].
const rootName = "<FS_ROOT>"

// firstSubvolumeID is Btrfs's own first number for a subvolume.
const firstSubvolumeID = 256

// subvolume is one of a Btrfs pool, as the flash remembers it; its files are a directory of the pool.
type subvolume struct {
	ID       int64     `json:"id"`
	Pool     string    `json:"pool"`
	Fullname string    `json:"fullname"` // path below the pool
	ReadOnly bool      `json:"readOnly,omitempty"`
	Snapshot bool      `json:"snapshot,omitempty"`
	Parent   string    `json:"parent,omitempty"` // uuid
	UUID     string    `json:"uuid"`
	Created  time.Time `json:"created"`
	Dead     bool      `json:"dead,omitempty"`
}

func (s *subvolume) path() string { return s.Pool + "/" + s.Fullname }
func (s *subvolume) name() string { return path.Base(s.Fullname) }

// What the menu answers. The form is that of errors seen in status fields [V]; the words are the kernel's [I].
var (
	errNoParentDir  = errors.New("failure: BTRFS_IOC_SUBVOL_CREATE failed: No such file or directory")
	errSubvolExists = errors.New("failure: BTRFS_IOC_SUBVOL_CREATE failed: File exists")
	errSubvolFull   = errors.New("failure: BTRFS_IOC_SNAP_DESTROY failed: Directory not empty")
	errSubvolBusy   = errors.New("failure: could not remove subvolume, stop using it first")
	errNoName       = errors.New("missing value(s) of argument(s) name")
	errRootStays    = errors.New("failure: cannot remove the root subvolume")
)

// label is what Btrfs commands call a pool by; <slot>-fs is the default of format [V].
func (p Pool) label() string { return p.Slot + "-fs" }

// settleSubvolumes forgets those whose files are gone, the dead among them, and tells the books which ones share blocks.
func (d *Device) settleSubvolumes() {
	d.flash.Subvolumes = slices.DeleteFunc(d.flash.Subvolumes, func(s *subvolume) bool {
		_, ok := d.storage.stat(s.path())
		return s.Dead || !ok
	})
	for _, s := range d.flash.Subvolumes {
		d.storage.share(s.path(), s.Snapshot)
	}
}

// subvolumeAt finds the subvolume whose top is at a path. mu is held.
func (d *Device) subvolumeAt(name string) *subvolume {
	i := slices.IndexFunc(d.flash.Subvolumes, func(s *subvolume) bool { return !s.Dead && s.path() == name })
	if i < 0 {
		return nil
	}
	return d.flash.Subvolumes[i]
}

// readOnly tells whether nothing can be written at a path. mu is held.
func (d *Device) readOnly(name string) bool {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if s := d.subvolumeAt(dir); s != nil {
			return s.ReadOnly
		}
	}
	return false
}

// subvolumeMenu is /disk/btrfs/subvolume.
type subvolumeMenu struct{ d *Device }

// Columns are those of the table [I].
func (subvolumeMenu) Columns() []string {
	return []string{"fs", "name", "parent", "top-level", "creation-time"}
}

// Verbs are those that the manual names [V].
func (subvolumeMenu) Verbs() map[string][]string {
	args := []string{"copy-from", "fs", "mount", "mountpoint", "name", "parent", "read-only"}
	return map[string][]string{
		"print": {}, "add": args, "set": append(slices.Clone(args), "numbers"), "remove": {"numbers"},
	}
}

// Items are the root of each Btrfs pool, then the others in the order they were made.
func (m subvolumeMenu) Items(context.Context) ([]console.Item, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	var all []*row
	for i, p := range m.d.storage.pools {
		if p.Filesystem != "btrfs" {
			continue
		}
		all = append(all, &row{id: itemID(int64(i) + 1), flags: "*", fields: []field{
			{name: "fs", value: p.label()}, {name: "name", value: rootName, shape: quoted},
			{name: "read-only", value: false}, {name: "mount", value: false}, {name: "subvolume-id", value: int64(5)},
			{name: "default", value: true, shape: hidden}, {name: "snapshot", value: false, shape: hidden}, {name: "dead", value: false, shape: hidden},
		}})
	}
	for _, s := range m.d.flash.Subvolumes {
		all = append(all, m.row(s))
	}
	return items(all), nil
}

func (m subvolumeMenu) row(s *subvolume) *row {
	flags := ""
	for _, f := range []struct {
		set    bool
		letter string
	}{{s.Snapshot, "S"}, {s.ReadOnly, "r"}, {s.Dead, "D"}} {
		if f.set {
			flags += f.letter
		}
	}
	pool, _ := m.d.storage.pool(s.Pool)
	top := path.Dir(s.Fullname)
	if top == "." {
		top = rootName
	}
	return &row{id: itemID(s.ID), flags: flags, fields: []field{
		{name: "fs", value: pool.label()},
		{name: "parent", value: m.parent(s)},
		{name: "name", value: s.name(), shape: quoted},
		{name: "read-only", value: s.ReadOnly},
		{name: "mount", value: false},
		{name: "top-level", value: top},
		{name: "fullname", value: s.Fullname, shape: quoted},
		{name: "uuid", value: s.UUID, shape: quoted},
		{name: "received-uuid", value: "", shape: quoted},
		{name: "creation-time", value: timestamp(s.Created)},
		{name: "subvolume-id", value: s.ID + firstSubvolumeID},
		{name: "generation", value: s.ID},
		{name: "default", value: false, shape: hidden},
		{name: "snapshot", value: s.Snapshot, shape: hidden},
		{name: "dead", value: s.Dead, shape: hidden},
	}}
}

// parent is the name of the subvolume that one was made from, nothing when that one is gone [V].
func (m subvolumeMenu) parent(s *subvolume) string {
	i := slices.IndexFunc(m.d.flash.Subvolumes, func(one *subvolume) bool { return !one.Dead && one.UUID == s.Parent })
	if i < 0 {
		return ""
	}
	return m.d.flash.Subvolumes[i].name()
}

// Print writes the human form.
func (m subvolumeMenu) Print(ctx context.Context, w io.Writer, list []console.Item, style console.PrintStyle) error {
	flags := [][2]string{{"*", "DEFAULT"}, {"S", "SNAPSHOT"}, {"r", "READ-ONLY"}, {"D", "DEAD"}, {"M", "MOUNTED"}}
	chosen := rows(list)
	return listing{flags: flags, inUse: chosen, width: widthOf(ctx), columns: m.Columns()}.print(w, chosen, style)
}

// Call runs a verb.
func (m subvolumeMenu) Call(
	_ context.Context, verb string, list []console.Item, args []console.Arg, _ io.Writer,
) (console.Value, error) {
	m.d.mu.Lock()
	defer m.d.mu.Unlock()
	switch verb {
	case "add":
		return m.add(newArguments(args))
	case "set":
		return nil, each(rows(list), func(r *row) error { return m.set(r, newArguments(args)) })
	case "remove":
		return nil, each(rows(list), m.remove)
	}
	return nil, fmt.Errorf("failure: %s is not part of this simulator", verb)
}

func (m subvolumeMenu) find(id console.ID) (int, error) {
	i := slices.IndexFunc(m.d.flash.Subvolumes, func(s *subvolume) bool { return itemID(s.ID) == id })
	if i < 0 {
		return 0, errRootStays
	}
	return i, nil
}

// add makes an empty subvolume, or with a parent a snapshot of that one.
func (m subvolumeMenu) add(a arguments) (console.Value, error) {
	s := &subvolume{ID: m.d.flash.NextID, UUID: newUUID(), Created: time.Now()}
	if err := m.place(s, a); err != nil {
		return nil, err
	}
	if err := a.boolean("read-only", &s.ReadOnly); err != nil {
		return nil, err
	}
	parent, err := m.from(s.Pool, a)
	if err != nil {
		return nil, err
	}
	fresh, err := m.prepare(parent, s)
	if err != nil {
		return nil, fmt.Errorf("failure: BTRFS_IOC_SNAP_CREATE failed: %w", err)
	}
	m.d.flash.NextID++
	m.d.flash.Subvolumes = append(m.d.flash.Subvolumes, s)
	if err := m.d.save(); err != nil { // a kill before the next step leaves a record that the next boot forgets
		return nil, err
	}
	m.d.storage.share(s.path(), s.Snapshot)
	if err := os.Rename(fresh, m.d.storage.host(s.path())); err != nil {
		m.d.flash.Subvolumes = slices.DeleteFunc(m.d.flash.Subvolumes, func(one *subvolume) bool { return one == s })
		return nil, errors.Join(errNoParentDir, m.d.save())
	}
	return itemID(s.ID), nil
}

// prepare makes the files of a subvolume where nobody sees them: as on Btrfs, one is there as a whole or not at all.
func (m subvolumeMenu) prepare(parent, s *subvolume) (dir string, err error) {
	dir = filepath.Join(m.d.dir, "subvolume.new")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if parent == nil {
		return dir, os.Mkdir(dir, 0o750)
	}
	s.Parent, s.Snapshot = parent.UUID, true
	return dir, copyTree(m.d.storage.host(parent.path()), dir, func(relative string) bool {
		return m.d.subvolumeAt(parent.path()+"/"+relative) != nil
	})
}

// place decides where a new subvolume goes. A name like a path puts it into another subvolume [V].
func (m subvolumeMenu) place(s *subvolume, a arguments) error {
	if !a.has("fs") {
		return errors.New("missing value(s) of argument(s) fs")
	}
	i := slices.IndexFunc(m.d.storage.pools, func(p Pool) bool { return p.Filesystem == "btrfs" && p.label() == a.text("fs") })
	if i < 0 {
		return errors.New("input does not match any value of fs")
	}
	if !a.has("name") {
		return errNoName
	}
	name, err := cleanPath(a.text("name"))
	if err != nil {
		return errors.New("invalid value for argument name")
	}
	s.Pool, s.Fullname = m.d.storage.pools[i].Slot, name
	if _, exists := m.d.storage.stat(s.path()); exists {
		return errSubvolExists
	}
	return m.room(s)
}

// room tells whether the directory is there that a subvolume is to be in.
func (m subvolumeMenu) room(s *subvolume) error {
	dir := path.Dir(s.path())
	if dir == s.Pool {
		return nil
	}
	info, ok := m.d.storage.stat(dir)
	switch in := m.d.subvolumeAt(dir); {
	case !ok || !info.IsDir(), in == nil && m.d.quirks.is(quirkSubvolumeInDirectory, failing):
		return errNoParentDir
	case in != nil && in.ReadOnly, in == nil && m.d.readOnly(dir):
		return errReadOnly
	}
	return nil
}

// from finds the subvolume to make a snapshot of, by its name [V].
func (m subvolumeMenu) from(pool string, a arguments) (*subvolume, error) {
	if !a.has("parent") {
		return nil, nil //nolint:nilnil // an empty subvolume has none
	}
	var found []*subvolume
	for _, s := range m.d.flash.Subvolumes {
		if !s.Dead && s.Pool == pool && s.name() == a.text("parent") {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return nil, errors.New("input does not match any value of parent")
	case 1:
		return found[0], nil
	}
	return nil, errors.New("ambiguous value of parent, more than one possible value matches input")
}

func (m subvolumeMenu) set(r *row, a arguments) error {
	i, err := m.find(r.id)
	if err != nil {
		return err
	}
	if a.has("name") || a.has("fs") || a.has("parent") {
		return errors.New("failure: only read-only of a subvolume can be changed in this simulator")
	}
	return first(a.boolean("read-only", &m.d.flash.Subvolumes[i].ReadOnly), m.d.save())
}

// remove removes a subvolume with all that is in it, but not with another subvolume in it.
func (m subvolumeMenu) remove(r *row) error {
	i, err := m.find(r.id)
	if err != nil {
		return err
	}
	s := m.d.flash.Subvolumes[i]
	below := func(name string) bool { return strings.HasPrefix(name, s.path()+"/") }
	switch {
	case s.Dead:
		return nil
	case slices.ContainsFunc(m.d.flash.Subvolumes, func(one *subvolume) bool { return !one.Dead && below(one.path()) }):
		return errSubvolFull
	case m.d.quirks.is(quirkRemoveUsedFile, refuse) && slices.ContainsFunc(m.d.flash.Disks, func(dk *disk) bool { return below(dk.Path) }):
		return errSubvolBusy
	}
	if err := os.RemoveAll(m.d.storage.host(s.path())); err != nil {
		return fmt.Errorf("failure: BTRFS_IOC_SNAP_DESTROY failed: %w", errors.Unwrap(err))
	}
	m.d.storage.share(s.path(), false)
	s.Dead = true
	if m.d.quirks.is(quirkSubvolumeRemoval, atOnce) {
		m.d.flash.Subvolumes = slices.Delete(m.d.flash.Subvolumes, i, i+1)
	}
	return m.d.save()
}
