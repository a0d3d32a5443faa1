package appliance_test

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

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// odd is a device whose tables hold what a test puts there, also what the simulator would never show: paths without a
// slash, comments that were never set. It runs the driver's scripts in the simulator's console language.
type odd map[string]*table

type table struct {
	rows []row
	deaf bool   // add says that it was done, and nothing is
	look func() // before each look at it
}

type row map[string]console.Value

func (r row) ID() console.ID                        { return console.ID(r[".id"].(string)) }
func (r row) Get(prop string) (console.Value, bool) { v, ok := r[prop]; return v, ok }
func (r row) Props() []string {
	return slices.DeleteFunc(slices.Collect(maps.Keys(r)), func(p string) bool { return p == ".id" })
}

func (t *table) Items(context.Context) ([]console.Item, error) {
	if t.look != nil {
		t.look()
	}
	items := make([]console.Item, 0, len(t.rows))
	for _, r := range t.rows {
		items = append(items, r)
	}
	return items, nil
}

func (t *table) Call(_ context.Context, verb string, items []console.Item, args []console.Arg, _ io.Writer) (console.Value, error) {
	addressed := func(r row) bool {
		return slices.ContainsFunc(items, func(i console.Item) bool { return i.ID() == r.ID() })
	}
	switch {
	case verb == "remove":
		t.rows = slices.DeleteFunc(t.rows, addressed)
	case verb == "add" && t.deaf:
	case verb == "add":
		r := row{".id": fmt.Sprintf("*A%X", len(t.rows))}
		for _, a := range args {
			r[a.Name] = a.Value
		}
		t.rows = append(t.rows, r)
	case verb == "set":
		for _, r := range t.rows {
			if !addressed(r) {
				continue
			}
			for _, a := range args {
				r[a.Name] = a.Value
			}
		}
	default:
		return nil, fmt.Errorf("failure: %s is not expected here", verb)
	}
	return nil, nil
}

func (t *table) Print(context.Context, io.Writer, []console.Item, console.PrintStyle) error {
	return errors.New("nobody reads the human form")
}
func (t *table) Verbs() map[string][]string {
	arguments := []string{"slot", "comment", "file-path", "file-size", "name", "type", "contents", "fs", "parent", "read-only", "mount-filesystem", "nvme-tcp-export", "nvme-tcp-server-port", "nvme-tcp-server-nqn"}
	return map[string][]string{"print": nil, "add": arguments, "copy": {"numbers", "name"}, "set": append([]string{"mount-point"}, arguments...), "remove": {"numbers"}}
}

// clock is the menu that has one row.
type clock struct{ *table }

func (clock) Singleton() bool { return true }

func (d odd) Menu(path string) (console.Menu, bool) {
	switch path {
	case "/disk/btrfs", "/system", "/system/script", "/system/script/job":
		return &table{}, true
	case "/system/clock":
		return clock{&table{rows: numbered([]row{{"gmt-offset": "+00:00", "date": "2026-11-23", "time": "12:00:00"}})}}, true
	}
	t, ok := d[path]
	if !ok && path == "/disk/btrfs/subvolume" {
		return &table{}, true
	}
	return t, ok
}
func (d odd) Allowed(string, string) bool { return true }
func (d odd) Dialect() console.Dialect    { return console.Dialect{ErrorLocation: true} }

// Execute begins nothing, and says so by saying nothing.
func (d odd) Execute(string, string) (console.Value, error) { return "", nil }

// Down: there is no wire.
func (d odd) Down() error { return nil }

// Run is the driver's way to the device, without the wire.
func (d odd) Run(ctx context.Context, s routeros.Script) (routeros.Reply, error) {
	var out bytes.Buffer
	failed, err := console.Run(ctx, d, "csi", s.String(), &out)
	text := strings.TrimSuffix(out.String(), "\r\n")
	if failed || err != nil {
		return routeros.Reply{}, &routeros.CommandError{RDS: "rds1", Command: s.Name(), Text: text, Err: err}
	}
	return routeros.Reply{Lines: strings.Split(text, "\r\n")}, nil
}

// A file that any item names is never removed, in whatever form the item writes the path: a mismatch of slashes once cost
// somebody 114 live volumes. What has no path, or no comment, is in nobody's way.
func TestSlashesNeverDecideAboutAFile(t *testing.T) {
	slot := appliance.SlotFor("homelab", "pvc-1")
	plain := "storage-pool/k8s/" + slot + ".img"
	const comment = "rds-csi/1 cluster=homelab name=pvc-1"
	for name, c := range map[string]struct {
		disks []row
		want  error
	}{
		"with a slash":              {[]row{{"slot": slot, "comment": comment, "file-path": "/" + plain}}, nil},
		"without a slash":           {[]row{{"slot": slot, "comment": comment, "file-path": plain}}, nil},
		"absent":                    {nil, nil},
		"others have no path":       {[]row{{"slot": "nvme1"}, {"slot": "nvme2", "file-path": nil}, {"slot": "x", "file-path": ""}}, nil},
		"other, like a prefix":      {[]row{{"slot": "x", "file-path": "/" + plain + ".bak"}, {"slot": "y", "file-path": "/storage-pool/k8s"}}, nil},
		"other with a slash":        {[]row{{"slot": slot, "comment": comment, "file-path": plain}, {"slot": "x", "file-path": "/" + plain}}, appliance.ErrInUse},
		"other without a slash":     {[]row{{"slot": slot, "comment": comment, "file-path": "/" + plain}, {"slot": "x", "file-path": plain}}, appliance.ErrInUse},
		"only other with":           {[]row{{"slot": "x", "file-path": "/" + plain}}, appliance.ErrInUse},
		"only other without":        {[]row{{"slot": "x", "file-path": plain}}, appliance.ErrInUse},
		"no path":                   {[]row{{"slot": slot, "comment": comment}}, appliance.ErrForeign},
		"short path":                {[]row{{"slot": slot, "comment": comment, "file-path": "/a"}}, appliance.ErrForeign},
		"path is only the name":     {[]row{{"slot": slot, "comment": comment, "file-path": slot + ".img"}}, appliance.ErrForeign},
		"name ends alike":           {[]row{{"slot": slot, "comment": comment, "file-path": "/storage-pool/k8s/x" + slot + ".img"}}, appliance.ErrForeign},
		"no comment":                {[]row{{"slot": slot, "file-path": "/" + plain}}, appliance.ErrForeign},
		"empty comment":             {[]row{{"slot": slot, "comment": "", "file-path": "/" + plain}}, appliance.ErrForeign},
		"short comment":             {[]row{{"slot": slot, "comment": "rds", "file-path": "/" + plain}}, appliance.ErrForeign},
		"comment of a number":       {[]row{{"slot": slot, "comment": int64(1), "file-path": "/" + plain}}, appliance.ErrForeign},
		"cluster that begins alike": {[]row{{"slot": slot, "comment": "rds-csi/1 cluster=homelab2 name=pvc-1", "file-path": "/" + plain}}, appliance.ErrForeign},
		"two in the slot":           {[]row{{"slot": slot, "comment": comment, "file-path": "/" + plain}, {"slot": slot, "comment": comment, "file-path": "/other/" + slot + ".img"}}, appliance.ErrAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			pool := row{"slot": "storage-pool", "mount-point": "storage-pool"}
			d := odd{"/disk": {rows: numbered(append(slices.Clone(c.disks), pool))}, "/file": {rows: numbered([]row{{"name": plain}, {"name": plain + ".bak"}, {"name": "other/" + slot + ".img"}})}}
			rds, err := appliance.NewRDS(appliancetest.Settings(t), d)
			if err != nil {
				t.Fatal(err)
			}
			if err := rds.Delete(t.Context(), slot); !errors.Is(err, c.want) {
				t.Errorf("delete: %v, want %v", err, c.want)
			}
			wantDisks, wantFiles := len(c.disks)+1, 3
			if c.want == nil {
				wantFiles--
				if slices.ContainsFunc(c.disks, func(r row) bool { return r["slot"] == slot }) {
					wantDisks--
				}
			}
			if len(d["/disk"].rows) != wantDisks || len(d["/file"].rows) != wantFiles {
				t.Errorf("left: %v %v, want %d and %d", d["/disk"].rows, d["/file"].rows, wantDisks, wantFiles)
			}
		})
	}
}

// A pool that is away shows no file, so nothing is absent and nothing is removed: neither while it is the configured one, nor while it
// is another one that a volume of this cluster lies on, and what is looked for may have been there too.
func TestAPoolThatIsAwayProvesNothing(t *testing.T) {
	slot, neighbour := appliance.SlotFor("homelab", "pvc-1"), appliance.SlotFor("homelab", "pvc-2")
	const ours, theirs = "rds-csi/1 cluster=homelab name=x", "rds-csi/1 cluster=other name=x"
	there := row{"slot": "storage-pool", "mount-point": "storage-pool", "fs": "xfs"}
	for name, c := range map[string]struct {
		disks []row
		away  string
		says  string
	}{
		"the volume's item":           {[]row{{"slot": slot, "comment": ours, "file-path": "/storage-pool/k8s/" + slot + ".img"}}, "storage-pool", ""},
		"no item":                     {nil, "storage-pool", ""},
		"not mounted":                 {[]row{{"slot": "storage-pool", "mount-point": "storage-pool", "mounted": false}}, "storage-pool", ""},
		"its item, and not mounted":   {[]row{{"slot": "storage-pool", "mount-point": "storage-pool", "mounted": "false"}, {"slot": slot, "comment": ours, "file-path": "/storage-pool/k8s/" + slot + ".img"}}, "storage-pool", ""},
		"not mounted, in other words": {[]row{{"slot": "storage-pool", "mount-point": "storage-pool", "mounted": "no"}}, "storage-pool", ""},
		"a neighbour's":               {[]row{there, {"slot": neighbour, "comment": ours, "file-path": "/raid9/fast/" + neighbour + ".img"}}, "raid9", "remove the disk items of cluster homelab"},
		"a neighbour's, no slash":     {[]row{there, {"slot": neighbour, "comment": ours, "file-path": "raid9/fast/" + neighbour + ".img"}}, "raid9", "volume " + neighbour},
		"of another cluster":          {[]row{there, {"slot": neighbour, "comment": theirs, "file-path": "/raid9/" + neighbour + ".img"}}, "", ""},
		"all there":                   {[]row{there, {"slot": "raid9", "mount-point": "raid9", "mounted": true}, {"slot": neighbour, "comment": ours, "file-path": "/raid9/" + neighbour + ".img"}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := odd{"/disk": {rows: numbered(c.disks)}, "/file": {}}
			rds, err := appliance.NewRDS(appliancetest.Settings(t), d)
			if err != nil {
				t.Fatal(err)
			}
			want := map[bool]error{true: appliance.ErrPoolNotFound}[c.away != ""]
			id := appliance.SnapshotIDFor("homelab", "snapshot-1")
			_, get := rds.GetSnapshot(t.Context(), id)
			_, list := rds.ListSnapshots(t.Context())
			_, restore := rds.Create(t.Context(), appliance.CreateRequest{Name: "pvc-3", Source: appliance.Source{Snapshot: id}})
			for what, err := range map[string]error{"volume": rds.Delete(t.Context(), slot), "snapshot": rds.DeleteSnapshot(t.Context(), id), "list": list, "get": get, "restore": restore} {
				want := want
				if want == nil && (what == "get" || what == "restore") {
					want = appliance.ErrNotFound
				}
				if !errors.Is(err, want) || err != nil && (!strings.Contains(err.Error(), c.away) || !strings.Contains(err.Error(), c.says)) {
					t.Errorf("%s: %v, want %v", what, err, want)
				}
			}
			if c.away == "storage-pool" {
				if _, err := rds.Create(t.Context(), appliance.CreateRequest{Name: "pvc-4"}); !errors.Is(err, appliance.ErrPoolNotFound) {
					t.Errorf("create: %v", err)
				}
			}
			if len(d["/disk"].rows) != len(c.disks) {
				t.Errorf("left %v", d["/disk"].rows)
			}
		})
	}
}

// What has no owner may be what a bare handle is looked for as, and nothing else of this cluster's; its disk item is nobody's to remove.
func TestAPoolOfTheExistingDriverThatIsAway(t *testing.T) {
	const other = "pvc-11111111-2222-4333-8444-555555555555"
	d := odd{"/disk": {rows: numbered([]row{
		{"slot": "storage-pool", "mount-point": "storage-pool", "fs": "xfs"}, {"slot": other, "file-path": "/raid9/" + other + ".img"},
	})}, "/file": {}}
	rds, err := appliance.NewRDS(appliancetest.Settings(t), d)
	if err != nil {
		t.Fatal(err)
	}
	_, list := rds.ListSnapshots(t.Context())
	for what, err := range map[string]error{
		"volume": rds.Delete(t.Context(), appliance.SlotFor("homelab", "pvc-1")), "snapshot": rds.DeleteSnapshot(t.Context(), appliance.SnapshotIDFor("homelab", "x")), "list": list,
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	err = rds.Delete(t.Context(), adoptedSlot)
	if !errors.Is(err, appliance.ErrPoolNotFound) || !strings.Contains(err.Error(), "disk item "+other+", which has no owner") || strings.Contains(err.Error(), "remove") {
		t.Errorf("%v", err)
	}
}

func numbered(rows []row) []row {
	for i, r := range rows {
		r[".id"] = fmt.Sprintf("*%X", i+1)
	}
	return slices.Clone(rows)
}
