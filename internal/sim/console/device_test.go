package console_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// item is a row of a table.
type item struct {
	id    console.ID
	props map[string]console.Value
}

func (i *item) ID() console.ID { return i.id }

func (i *item) Get(prop string) (console.Value, bool) {
	v, ok := i.props[prop]
	return v, ok
}

func (i *item) Props() []string { return slices.Collect(maps.Keys(i.props)) }

// table is a menu in memory.
type table struct {
	name    string // the property that names an item
	columns []string
	single  bool
	verbs   map[string][]string
	policy  map[string]string
	items   []*item
	next    int
	calls   []call
}

type call struct {
	verb  string
	items int
	args  []console.Arg
}

func (t *table) NameProp() string           { return t.name }
func (t *table) Columns() []string          { return t.columns }
func (t *table) Singleton() bool            { return t.single }
func (t *table) Policy(verb string) string  { return t.policy[verb] }
func (t *table) Verbs() map[string][]string { return t.verbs }

func (t *table) Items(context.Context) ([]console.Item, error) {
	out := make([]console.Item, 0, len(t.items))
	for _, i := range t.items {
		out = append(out, i)
	}
	return out, nil
}

func (t *table) Call(
	_ context.Context, verb string, items []console.Item, args []console.Arg, out io.Writer,
) (console.Value, error) {
	t.calls = append(t.calls, call{verb, len(items), args})
	switch verb {
	case "add":
		return t.add(args)
	case "set":
		for _, i := range items {
			assign(i.(*item), args)
		}
	case "remove":
		t.items = slices.DeleteFunc(t.items, func(i *item) bool {
			return slices.ContainsFunc(items, func(gone console.Item) bool { return gone.ID() == i.id })
		})
	case "monitor-traffic":
		_, _ = fmt.Fprintf(out, "slot: %s\r\n", console.Text(first(items[0].Get("slot"))))
	}
	return nil, nil
}

func (t *table) add(args []console.Arg) (console.Value, error) {
	t.next++
	i := &item{console.ID(fmt.Sprintf("*%X", t.next)), map[string]console.Value{}}
	assign(i, args)
	for _, other := range t.items {
		if other.props[t.name] == i.props[t.name] {
			return nil, errors.New("failure: already have such " + t.name)
		}
	}
	t.items = append(t.items, i)
	return i.id, nil
}

func first(v console.Value, _ bool) console.Value { return v }

func assign(i *item, args []console.Arg) {
	for _, a := range args {
		i.props[a.Name] = a.Value
		if n, ok := console.Number(a.Value); ok {
			i.props[a.Name] = n
		}
		if b, ok := console.Bool(a.Value); ok {
			i.props[a.Name] = b
		}
	}
}

func (t *table) Print(_ context.Context, w io.Writer, items []console.Item, style console.PrintStyle) error {
	for n, i := range items {
		line := fmt.Sprintf("%d form=%d flags=%v", n, style.Form, style.Flags)
		props := slices.Sorted(slices.Values(i.Props()))
		if style.Proplist != nil {
			props = style.Proplist
		}
		for _, p := range props {
			line += " " + p + "=" + console.Text(first(i.Get(p)))
		}
		if _, err := io.WriteString(w, line+"\r\n"); err != nil {
			return err
		}
	}
	return nil
}

// box is a device with two disks, a file and a resource.
type box struct {
	menus    map[string]*table
	dialect  console.Dialect
	policies []string
	stored   map[string]string
}

func (b *box) Menu(path string) (console.Menu, bool) {
	t, ok := b.menus[path]
	return t, ok
}

func (b *box) Allowed(user, policy string) bool {
	return user == "admin" || slices.Contains(b.policies, policy)
}

func (b *box) Dialect() console.Dialect { return b.dialect }

func (b *box) Store(_ context.Context, name string, text []byte) error {
	b.stored[name] = string(text)
	return nil
}

func newBox() *box {
	diskArgs := []string{"comment", "file-path", "file-size", "mount-filesystem", "nvme-tcp-export", "slot", "type"}
	return &box{
		stored: map[string]string{},
		menus: map[string]*table{
			"/disk": {
				name: "slot", next: 0x1F,
				policy: map[string]string{"monitor-traffic": "test"},
				verbs: map[string][]string{
					"print": {"stats"}, "add": diskArgs, "set": diskArgs, "remove": nil,
					"monitor-traffic": {"numbers", "once"},
				},
				items: []*item{
					{"*1E", map[string]console.Value{
						"slot": "x", "type": "file", "size": int64(1099511627776), "file-path": "/raid10/x.img",
						"nvme-tcp-export": true, "comment": "a;b",
					}},
					{"*1F", map[string]console.Value{
						"slot": "raid10", "type": "raid", "size": int64(16003143565312), "nvme-tcp-export": false,
					}},
				},
			},
			"/disk/settings": {single: true, verbs: map[string][]string{"print": nil, "set": {"auto-smb-sharing"}},
				items: []*item{{"", map[string]console.Value{"auto-smb-sharing": false}}}},
			"/file": {name: "name", columns: []string{"name", "type"},
				verbs: map[string][]string{"print": nil, "add": {"name", "type", "contents"}, "remove": nil},
				items: []*item{{"*2", map[string]console.Value{"name": "raid10/x.img", "type": ".img file", "size": int64(5)}}}},
			"/system": {verbs: map[string][]string{"reboot": nil}, policy: map[string]string{"reboot": "reboot"}},
			"/system/resource": {single: true, verbs: map[string][]string{"print": nil},
				items: []*item{{"", map[string]console.Value{"version": "7.24.4 (stable)", "cpu-count": int64(16)}}}},
		},
	}
}

// run runs a script as admin and returns what the user sees, with CRLF shown as newlines.
func run(t *testing.T, b *box, script string) (out string, failed bool) {
	t.Helper()
	var buf bytes.Buffer
	failed, err := console.Run(t.Context(), b, "admin", script, &buf)
	if err != nil {
		t.Fatalf("run %q: %v", script, err)
	}
	text := buf.String()
	if strings.Count(text, "\n") != strings.Count(text, "\r\n") {
		t.Errorf("line end without CR in %q", text)
	}
	return strings.ReplaceAll(text, "\r\n", "\n"), failed
}

type scriptCase struct{ name, script, want string }

// check runs scripts that must succeed, each on a device of its own.
func check(t *testing.T, cases []scriptCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, failed := run(t, newBox(), c.script)
			if got != c.want || failed {
				t.Errorf("%s\n got %q (failed: %v)\nwant %q", c.script, got, failed, c.want)
			}
		})
	}
}

// checkFails runs scripts that must fail with this output.
func checkFails(t *testing.T, d console.Dialect, cases []scriptCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBox()
			b.dialect = d
			got, failed := run(t, b, c.script)
			if got != c.want || !failed {
				t.Errorf("%s\n got %q (failed: %v)\nwant %q", c.script, got, failed, c.want)
			}
		})
	}
}
