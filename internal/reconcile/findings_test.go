package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// The world of the tables: an hour ago everything was made, a minute ago rds1 was asked.
var (
	noon  = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	then  = noon.Add(-time.Hour)
	asked = noon.Add(-time.Minute)
)

// attachmentOf is an attached volume, made then.
func attachmentOf(volume, node string, change ...func(*attach.Attachment)) attach.Attachment {
	a := attach.Attachment{
		UID: "uid of " + volume + " on " + node, Name: "csi-1", Volume: volume, Node: node, NodeUID: "uid of " + node,
		Attached: true, Created: then,
	}
	for _, c := range change {
		c(&a)
	}
	return a
}

func nodeOf(name string, inUse ...string) attach.Node {
	return attach.Node{Name: name, UID: "uid of " + name, InUse: inUse, Created: then.Add(-time.Hour)}
}

// item is a volume as it should be on rds1.
func item(slot string, change ...func(*appliance.Volume)) appliance.Volume {
	v := appliance.Volume{
		ID: appliance.ID{RDS: "rds1", Slot: slot}, Name: "pvc-" + slot, SizeBytes: 1 << 30, NQN: appliance.NQNFor(slot),
		Exported: true, Owner: appliance.OwnerOurs,
	}
	for _, c := range change {
		c(&v)
	}
	return v
}

func list(items ...appliance.Volume) Reading[[]appliance.Volume] {
	return Reading[[]appliance.Volume]{Value: items, Asked: asked, Came: asked.Add(time.Second)}
}

// on is a view of rds1 with these items, and of an rds2 that never answered.
func on(items ...appliance.Volume) View {
	return View{
		Now: noon, Nodes: []attach.Node{nodeOf("a"), nodeOf("b")},
		Lists: map[string]Reading[[]appliance.Volume]{"rds1": list(items...), "rds2": {}},
	}
}

func (v View) with(attachments ...attach.Attachment) View {
	v.Attachments = attachments
	return v
}

func TestFindings(t *testing.T) {
	created := func(at time.Time) func(*attach.Attachment) { return func(a *attach.Attachment) { a.Created = at } }
	unattached := func(a *attach.Attachment) { a.Attached = false }
	publishedTo := func(uid string) func(*attach.Attachment) { return func(a *attach.Attachment) { a.NodeUID = uid } }
	foreign := func(v *appliance.Volume) { v.Owner = appliance.OwnerForeign }
	adopted := func(v *appliance.Volume) { v.Owner = appliance.OwnerNone }
	unexported := func(v *appliance.Volume) { v.Exported = false }
	mounted := func(v *appliance.Volume) { v.Mounted = true }

	for name, tt := range map[string]struct {
		view View
		want []string // kind volume node
	}{
		"all is well":                             {on(item("x")).with(attachmentOf("rds1/x", "a")), nil},
		"nothing at all":                          {on(), nil},
		"an item that nobody attached":            {on(item("x", unexported, mounted)), nil},
		"an rds that never answered says nothing": {on().with(attachmentOf("rds2/x", "a")), nil},

		"the node is gone": {on(item("x")).with(attachmentOf("rds1/x", "c")), []string{"node_gone rds1/x c"}},
		"of one not attached yet too": {
			on(item("x")).with(attachmentOf("rds1/x", "c", unattached)), []string{"node_gone rds1/x c"}},
		"the node was made again": {
			on(item("x")).with(attachmentOf("rds1/x", "a", publishedTo("another"))), []string{"node_gone rds1/x a"}},
		"published by a driver that wrote no node uid": {on(item("x")).with(attachmentOf("rds1/x", "a", publishedTo(""))), nil},
		"and the node was made again": {
			on(item("x")).with(attachmentOf("rds1/x", "a", publishedTo(""), created(then.Add(-2*time.Hour)))), []string{"node_gone rds1/x a"}},
		"and clocks differ a little": {on(item("x")).with(attachmentOf("rds1/x", "a", publishedTo(""), created(then.Add(-time.Hour-5*time.Second)))), nil},

		"the volume is gone":                    {on().with(attachmentOf("rds1/x", "a")), []string{"volume_gone rds1/x "}},
		"gone, but not attached":                {on().with(attachmentOf("rds1/x", "a", unattached)), nil},
		"gone, but attached after the list":     {on().with(attachmentOf("rds1/x", "a", created(noon))), nil},
		"gone, but attached just before it":     {on().with(attachmentOf("rds1/x", "a", created(asked.Add(-time.Second)))), nil},
		"gone, and a second attachment is new":  {on().with(attachmentOf("rds1/x", "a"), attachmentOf("rds1/x", "b", created(noon))), nil},
		"the item is another cluster's":         {on(item("x", foreign)).with(attachmentOf("rds1/x", "a")), []string{"unresolved rds1/x "}},
		"it is, and is not exported":            {on(item("x", foreign, unexported)).with(attachmentOf("rds1/x", "a")), []string{"unresolved rds1/x "}},
		"the export is lost":                    {on(item("x", unexported)).with(attachmentOf("rds1/x", "a")), []string{"export_lost rds1/x "}},
		"lost with two attachments, found once": {on(item("x", unexported)).with(attachmentOf("rds1/x", "a"), attachmentOf("rds1/x", "b")), []string{"export_lost rds1/x "}},
		"lost while it is being detached": {
			on(item("x", unexported)).with(attachmentOf("rds1/x", "a", func(a *attach.Attachment) { a.Deleting = true })), []string{"export_lost rds1/x "}},
		"lost, of an adopted volume":    {on(item("x", adopted, unexported)).with(attachmentOf("rds1/x", "a")), []string{"export_lost rds1/x "}},
		"exported under another name":   {on(item("x", func(v *appliance.Volume) { v.NQN = "nqn.other" })).with(attachmentOf("rds1/x", "a")), []string{"export_lost rds1/x "}},
		"mounted there":                 {on(item("x", mounted)).with(attachmentOf("rds1/x", "a")), []string{"mounted_on_rds rds1/x "}},
		"mounted there, and unexported": {on(item("x", mounted, unexported)).with(attachmentOf("rds1/x", "a")), []string{"mounted_on_rds rds1/x "}},

		"a stand-in for a volume":       {on().with(attachmentOf("persistentvolume:pv-1", "a")), []string{"unresolved persistentvolume:pv-1 a"}},
		"an rds that is not configured": {on().with(attachmentOf("rds3/x", "a")), []string{"unresolved rds3/x a"}},

		"in use, and attached":        {on(item("x")).using("a", "rds1/x").with(attachmentOf("rds1/x", "a")), nil},
		"in use, and to be attached":  {on(item("x")).using("a", "rds1/x").with(attachmentOf("rds1/x", "a", unattached)), nil},
		"in use, without any":         {on(item("x")).using("a", "rds1/x"), []string{"in_use_unattached rds1/x a"}},
		"in use, asked for elsewhere": {on(item("x")).using("a", "rds1/x").with(attachmentOf("rds1/x", "b", unattached)), []string{"in_use_unattached rds1/x a"}},
		"waited for, while another node has it": {
			on(item("x")).using("a", "rds1/x").with(attachmentOf("rds1/x", "b")), nil},
		"in use beside another, of a volume for two": {
			on(item("x")).using("a", "rds1/x").with(attachmentOf("rds1/x", "b", func(a *attach.Attachment) { a.Mode = attach.MultiNode })),
			[]string{"in_use_unattached rds1/x a"}},
		"in use on a node that is off": {on(item("x")).off("a", "rds1/x"), nil},

		"a migration in time": {on().migrating(noon), nil},
		"one that is overdue": {on().migrating(noon.Add(-time.Nanosecond)), []string{"migration_overdue rds1/x b"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range Findings(tt.view) {
				got = append(got, strings.Join([]string{string(f.Kind), f.Volume, f.Node}, " "))
				if !strings.Contains(f.Detail, f.Volume) || !strings.Contains(f.Detail, f.Node) {
					t.Errorf("the detail does not name %s and %s: %s", f.Volume, f.Node, f.Detail)
				}
				if f.Seen.IsZero() || f.Kind.byRDS() && !f.Seen.Equal(asked) {
					t.Errorf("%s was seen at %s", f.Kind, f.Seen)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func (v View) using(node string, volumes ...string) View {
	for i := range v.Nodes {
		if v.Nodes[i].Name == node {
			v.Nodes[i].InUse = volumes
		}
	}
	return v
}

func (v View) off(node string, volumes ...string) View {
	v = v.using(node, volumes...)
	v.Nodes[0].OutOfService = true
	return v
}

func (v View) migrating(deadline time.Time) View {
	v.Migrations = []attach.Migration{{Volume: "rds1/x", From: "a", To: "b", Began: then, Deadline: deadline}}
	return v
}

// Every kind tells what to do, in words of its own.
func TestEveryKindHasANextStep(t *testing.T) {
	seen := map[string]Kind{Kind("another").nextStep(): "another"}
	for _, k := range append(Kinds(), orphan) {
		if other, twice := seen[k.nextStep()]; twice {
			t.Errorf("%s says the same as %s", k, other)
		}
		seen[k.nextStep()] = k
	}
}

// A finding counts when looks for as long as the grace time all had it, and goes at once.
func TestTrackerWaitsForTheGraceTime(t *testing.T) {
	at := func(minutes int, volumes ...string) (found []Finding) {
		for _, v := range volumes {
			found = append(found, Finding{Kind: ExportLost, Volume: v, Seen: noon.Add(time.Duration(minutes) * time.Minute)})
		}
		return found
	}
	for name, tt := range map[string]struct {
		looks [][]Finding
		begun []int // findings that begin to count, look by look
		count int   // at the end
	}{
		"long enough":                        {[][]Finding{at(0, "x"), at(1, "x"), at(2, "x"), at(3, "x")}, []int{0, 0, 1, 0}, 1},
		"not in every look":                  {[][]Finding{at(0, "x"), at(1), at(2, "x"), at(3, "x")}, []int{0, 0, 0, 0}, 0},
		"gone again":                         {[][]Finding{at(0, "x"), at(2, "x"), at(3)}, []int{0, 1, 0}, 0},
		"and back":                           {[][]Finding{at(0, "x"), at(2, "x"), at(3), at(4, "x"), at(6, "x")}, []int{0, 1, 0, 0, 1}, 1},
		"the same look again proves no more": {[][]Finding{at(0, "x"), at(0, "x"), at(0, "x")}, []int{0, 0, 0}, 0},
		"each on its own":                    {[][]Finding{at(0, "x"), at(1, "x", "y"), at(2, "x", "y"), at(3, "x", "y")}, []int{0, 0, 1, 1}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTracker(2 * time.Minute)
			var begun []int
			for _, found := range tt.looks {
				begun = append(begun, len(tr.update(found)))
			}
			if diff := cmp.Diff(tt.begun, begun); diff != "" {
				t.Error(diff)
			}
			if n := tr.counting()[ExportLost]; n != tt.count {
				t.Errorf("%d count at the end, want %d", n, tt.count)
			}
		})
	}
	overdue := []Finding{{Kind: MigrationOverdue, Volume: "x", Seen: noon}}
	if begun := newTracker(time.Hour).update(overdue); len(begun) != 1 {
		t.Error("an overdue migration waits for a grace time: its deadline was one")
	}
}

func TestVolumeSlotsAreBounded(t *testing.T) {
	all := []attach.Attachment{
		attachmentOf("rds2/a", "a"), attachmentOf("rds1/c", "a"), attachmentOf("rds1/b", "a"), attachmentOf("rds1/b", "b"),
		attachmentOf("rds1/a", "a", func(a *attach.Attachment) { a.Attached = false }), attachmentOf("persistentvolume:x", "a"),
	}
	for n, want := range map[int][]string{0: nil, 1: nil, 2: {"b"}, 3: {"b", "c"}, 100: {"b", "c"}} {
		if diff := cmp.Diff(want, VolumeSlots(all, "rds1", n)); diff != "" {
			t.Errorf("%d: %s", n, diff)
		}
	}
}
