package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// fixedMenu is a menu that is computed when asked for and changed by nothing but its own set.
type fixedMenu struct {
	single  bool
	columns []string
	rows    func() []*row
	set     func(arguments) error
	args    []string // of set
	passage bool     // only leads to other menus
}

// Singleton tells the console whether there is one item without an id.
func (m fixedMenu) Singleton() bool { return m.single }

// Columns are those of the table.
func (m fixedMenu) Columns() []string { return m.columns }

// Verbs are print, and set where something can be set.
func (m fixedMenu) Verbs() map[string][]string {
	if m.passage {
		return nil
	}
	verbs := map[string][]string{"print": {}}
	if m.set != nil {
		verbs["set"] = m.args
	}
	return verbs
}

// Items computes the rows.
func (m fixedMenu) Items(context.Context) ([]console.Item, error) { return items(m.rows()), nil }

// Call runs set.
func (m fixedMenu) Call(
	_ context.Context, verb string, _ []console.Item, args []console.Arg, _ io.Writer,
) (console.Value, error) {
	if verb != "set" || m.set == nil {
		return nil, fmt.Errorf("failure: %s is not part of this simulator", verb)
	}
	return nil, m.set(newArguments(args))
}

// Print writes "name: value" for a single item, a table otherwise.
func (m fixedMenu) Print(ctx context.Context, w io.Writer, list []console.Item, style console.PrintStyle) error {
	chosen := rows(list)
	if m.single {
		return each(chosen, func(r *row) error { return sheet(w, visible(r, style.Proplist)) })
	}
	return listing{width: widthOf(ctx), columns: m.columns}.print(w, chosen, style)
}

// sheet writes fields as a column of names and one of values, as menus with one item do [R].
func sheet(w io.Writer, fields []field) error {
	width := 0
	for _, f := range fields {
		width = max(width, len(f.name)+2)
	}
	for _, f := range fields {
		if _, err := fmt.Fprintf(w, "%*s: %s%s", width, f.name, f.bare(), eol); err != nil {
			return err
		}
	}
	return nil
}

func resourceMenu(d *Device) console.Menu {
	return fixedMenu{single: true, rows: func() []*row {
		up := time.Since(*d.booted.Load())
		return []*row{{fields: []field{
			{name: "uptime", value: uptime(up)},
			{name: "version", value: d.release.text + " (stable)"},
			{name: "build-time", value: "2026-09-29 08:11:40"},
			{name: "free-memory", value: int64(31 << 30), shape: human},
			{name: "total-memory", value: int64(32 << 30), shape: human},
			{name: "cpu", value: "ARM64"},
			{name: "cpu-count", value: int64(16)},
			{name: "cpu-frequency", value: int64(2000)},
			{name: "cpu-load", value: int64(1)},
			{name: "free-hdd-space", value: d.storage.free(context.Background(), ""), shape: human},
			{name: "total-hdd-space", value: int64(flashBytes), shape: human},
			{name: "architecture-name", value: "arm64"},
			{name: "board-name", value: "RDS2216-2XG-4S+4XS-2XQ"},
			{name: "platform", value: "MikroTik"},
		}}}
	}}
}

func identityMenu(d *Device) console.Menu {
	return fixedMenu{
		single: true,
		args:   []string{"name"},
		rows: func() []*row {
			d.mu.Lock()
			defer d.mu.Unlock()
			return []*row{{fields: []field{{name: "name", value: d.flash.Identity}}}}
		},
		set: func(a arguments) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			a.string("name", &d.flash.Identity)
			return d.save()
		},
	}
}

func userMenu(d *Device) console.Menu {
	return fixedMenu{columns: []string{"name", "group"}, rows: func() []*row {
		all := make([]*row, 0, len(d.users))
		for i, name := range sortedNames(d.users) {
			all = append(all, &row{id: itemID(int64(i) + 1), fields: []field{
				{name: "name", value: name},
				{name: "group", value: strings.Join(d.users[name].Policies, ",")},
				{name: "disabled", value: false},
			}})
		}
		return all
	}}
}

// systemMenu is /system itself.
type systemMenu struct{ d *Device }

// Verbs are those of /system.
func (systemMenu) Verbs() map[string][]string { return map[string][]string{"reboot": {}} }

// Policy is what reboot needs [V].
func (systemMenu) Policy(verb string) string {
	if verb == "reboot" {
		return "reboot"
	}
	return ""
}

// Items is empty: there is nothing to print.
func (systemMenu) Items(context.Context) ([]console.Item, error) { return nil, nil }

// Print has nothing to print.
func (systemMenu) Print(context.Context, io.Writer, []console.Item, console.PrintStyle) error {
	return nil
}

// Call reboots. On a terminal the device asks [y/N]; without one it is taken to go ahead [U].
func (m systemMenu) Call(
	_ context.Context, verb string, _ []console.Item, _ []console.Arg, _ io.Writer,
) (console.Value, error) {
	if verb != "reboot" {
		return nil, errors.New("failure: not part of this simulator")
	}
	m.d.power.wanted.Store(true) // the session begins it when the script has ended
	return nil, nil
}
