package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// contentsLimit is the largest file whose contents /file reads and writes [V].
const contentsLimit = 60 << 10

// fileMenu is /file.
type fileMenu struct{ d *Device }

// Columns are those of the table [V].
func (m fileMenu) Columns() []string { return []string{"name", "type", "size", "last-modified"} }

// Verbs are those of this version.
func (m fileMenu) Verbs() map[string][]string { return m.d.release.fileVerbs() }

// Items walks the file system: all files and directories, parents first.
func (m fileMenu) Items(context.Context) ([]console.Item, error) {
	var all []*row
	m.d.storage.walk("", func(name string, info fs.FileInfo) bool {
		all = append(all, m.row(name, info))
		return true
	})
	return items(all), nil
}

// row describes a file. Names have no leading slash here, other than in /disk [R].
func (m fileMenu) row(name string, info fs.FileInfo) *row {
	r := &row{id: fileID(name), name: name, fields: []field{
		{name: "name", value: name, shape: quoted},
		{name: "type", value: m.kind(name, info), shape: word},
	}}
	if !info.IsDir() {
		r.fields = append(r.fields, field{name: "size", value: info.Size(), shape: human})
	}
	r.fields = append(r.fields, field{
		name: "last-modified", value: info.ModTime().UTC().Format("2006-01-02 15:04:05"), // [R]
	})
	if !info.IsDir() && info.Size() <= contentsLimit && path.Ext(name) != ".img" {
		host := m.d.storage.host(name)
		r.fields = append(r.fields, field{
			name: "contents", shape: quoted, later: func() console.Value { return copyText(host, contentsLimit) },
		})
	}
	return r
}

// kind is the type that /file shows [V].
func (m fileMenu) kind(name string, info fs.FileInfo) string {
	_, inPool := m.d.storage.pool(name)
	switch {
	case inPool && !strings.Contains(name, "/"):
		return "disk"
	case info.IsDir():
		return "directory"
	case path.Ext(name) != "":
		return path.Ext(name) + " file"
	}
	return "file"
}

// fileID derives the id from the name: it is the same as long as the file has that name, and no table is needed. How
// the device makes them is not known [U].
func fileID(name string) console.ID {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name) // never fails
	return console.ID(fmt.Sprintf("*%X", h.Sum64()))
}

// Print writes the human form.
func (m fileMenu) Print(ctx context.Context, w io.Writer, list []console.Item, style console.PrintStyle) error {
	return listing{
		width: widthOf(ctx), columns: m.Columns(),
	}.print(w, rows(list), style)
}

// Call runs a verb.
func (m fileMenu) Call(
	ctx context.Context, verb string, list []console.Item, args []console.Arg, _ io.Writer,
) (console.Value, error) {
	a := newArguments(args)
	if verb == "copy" { // takes its time, and holds up nobody else
		return nil, m.copy(ctx, rows(list), a)
	}
	m.d.mu.Lock() // no file appears under a disk item while another command makes it
	defer m.d.mu.Unlock()
	switch verb {
	case "add":
		return m.add(ctx, a)
	case "set":
		return nil, each(rows(list), func(r *row) error { return m.write(ctx, r.name, a.text("contents")) })
	case "remove":
		return nil, each(rows(list), m.remove)
	}
	return nil, fmt.Errorf("failure: %s is not part of this simulator", verb)
}

func each(list []*row, do func(*row) error) error {
	for _, r := range list {
		if err := do(r); err != nil {
			return err
		}
	}
	return nil
}

func (m fileMenu) add(ctx context.Context, a arguments) (console.Value, error) {
	if !a.has("name") {
		return nil, errors.New("missing value(s) of argument(s) name")
	}
	name, err := cleanPath(a.text("name"))
	if err != nil {
		return nil, errors.New("invalid value for argument name")
	}
	if _, ok := m.d.storage.stat(name); ok {
		return nil, errFileExists
	}
	if err := m.d.storage.parent(name, m.d.quirks.is(quirkMissingDirectory, create)); err != nil {
		return nil, err
	}
	if m.d.readOnly(name) {
		return nil, errReadOnly
	}
	switch a.text("type") {
	case "directory":
		if err := os.Mkdir(m.d.storage.host(name), 0o750); err != nil {
			return nil, fmt.Errorf("failure: could not create directory: %w", errors.Unwrap(err))
		}
	case "", "file":
		if err := m.d.storage.create(ctx, name, 0); err != nil {
			return nil, err
		}
		if err := m.write(ctx, name, a.text("contents")); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("input does not match any value of type")
	}
	return fileID(name), nil
}

func (m fileMenu) write(ctx context.Context, name, contents string) error {
	info, ok := m.d.storage.stat(name)
	switch {
	case !ok:
		return errors.New("no such item")
	case info.IsDir():
		return errIsDirectory
	case m.d.readOnly(name):
		return errReadOnly
	case len(contents) > contentsLimit:
		return errors.New("failure: contents too long")
	case int64(len(contents)) > m.d.storage.free(ctx, name)+info.Size():
		return errFull
	}
	if err := os.WriteFile(m.d.storage.host(name), []byte(contents), 0o600); err != nil {
		return errFull
	}
	return nil
}

// remove removes a file; by default also one that a disk item stands on, as a real device did to somebody [I].
func (m fileMenu) remove(r *row) error {
	used := slices.ContainsFunc(m.d.flash.Disks, func(dk *disk) bool { return dk.Path == r.name })
	if used && m.d.quirks.is(quirkRemoveUsedFile, refuse) {
		return errFileUsed
	}
	if m.d.readOnly(r.name) || m.d.subvolumeAt(r.name) != nil {
		return errReadOnly
	}
	return m.d.storage.remove(r.name)
}
