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
		"the item is another cluster's":         {on(item("x", foreign)).with(attachmentOf("rds1/x", "a")), []string{"volume_foreign rds1/x "}},
		"it is, and is not exported":            {on(item("x", foreign, unexported)).with(attachmentOf("rds1/x", "a")), []string{"volume_foreign rds1/x "}},
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
		"in use, while another node has it": {
			on(item("x")).using("a", "rds1/x").with(attachmentOf("rds1/x", "b")), []string{"in_use_unattached rds1/x a"}},
		"waited for":           {on(item("x")).says("a", attach.Waits, "rds1/x"), nil},
		"in use or waited for": {on(item("x")).says("a", attach.MayHave, "rds1/x"), []string{"in_use_unproven rds1/x a"}},
		"in use or waited for, and attached": {
			on(item("x")).says("a", attach.MayHave, "rds1/x").with(attachmentOf("rds1/x", "a", unattached)), nil},
		"in use or waited for, while another node has it": {
			on(item("x")).says("a", attach.MayHave, "rds1/x").with(attachmentOf("rds1/x", "b")), nil},
		"in use on a node that is not known any more": {on(item("x")).says("c", attach.Has, "rds1/x"), nil},
		"in use beside another, of a volume for two": {
			on(item("x")).using("a", "rds1/x").with(attachmentOf("rds1/x", "b", func(a *attach.Attachment) { a.Mode = attach.MultiNode })),
			[]string{"in_use_unattached rds1/x a"}},
		"in use on a node that is off": {on(item("x")).using("a", "rds1/x").off("a"), nil},

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

func (v View) using(node, volume string) View { return v.says(node, attach.Has, volume) }

func (v View) says(node string, proof attach.Proof, volume string) View {
	v.Words = append(v.Words, attach.Word{Node: node, Volume: volume, Proof: proof})
	return v
}

func (v View) off(node string) View {
	for i := range v.Nodes {
		v.Nodes[i].OutOfService = v.Nodes[i].Name == node
	}
	return v
}

func (v View) migrating(deadline time.Time) View {
	v.Migrations = []attach.Migration{{Volume: "rds1/x", From: "a", To: "b", Began: then, Deadline: deadline}}
	return v
}

// Every kind tells what to do, in words of its own.
func TestEveryKindHasANextStep(t *testing.T) {
	seen := map[string]Kind{Kind("another").nextStep(): "another"}
	for _, k := range append(Kinds(), orphan, inUseUnproven) {
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
				begun = append(begun, len(tr.update(found, nil)))
			}
			if diff := cmp.Diff(tt.begun, begun); diff != "" {
				t.Error(diff)
			}
			if n, known := tr.count(anyKind); n != tt.count || !known {
				t.Errorf("%d count at the end (known: %t), want %d", n, known, tt.count)
			}
		})
	}
	overdue := []Finding{{Kind: MigrationOverdue, Volume: "x", Seen: noon}}
	if begun := newTracker(time.Hour).update(overdue, nil); len(begun) != 1 {
		t.Error("an overdue migration waits for a grace time: its deadline was one")
	}
}

func anyKind(Finding) bool { return true }

// What the first look met may have counted for long: until it counts here or is gone, the number is not known. What comes later is known to be new.
func TestTrackerKnowsWhatItDoesNotKnow(t *testing.T) {
	type look struct {
		at     int // minutes; less than none: silent
		found  []string
		n      int
		number bool
	}
	const silent = -1
	x, y := "rds1/x", "rds1/y"
	for name, looks := range map[string][]look{
		"met":                        {{0, []string{x}, 0, false}, {1, []string{x}, 0, false}, {2, []string{x}, 1, true}, {3, nil, 0, true}},
		"met, and gone":              {{0, []string{x}, 0, false}, {1, nil, 0, true}, {2, []string{x}, 0, true}},
		"new":                        {{0, nil, 0, true}, {1, []string{x}, 0, true}, {2, []string{x}, 0, true}, {3, []string{x}, 1, true}},
		"new beside one met":         {{0, []string{x}, 0, false}, {1, []string{x, y}, 0, false}, {2, []string{x, y}, 1, true}, {3, []string{x, y}, 2, true}},
		"the same look again":        {{0, []string{x}, 0, false}, {0, []string{x}, 0, false}, {0, nil, 0, true}, {0, []string{x}, 0, false}},
		"met again, after silence":   {{0, nil, 0, true}, {1, []string{x}, 0, true}, {silent, nil, 0, true}, {9, []string{x}, 0, false}, {11, []string{x}, 1, true}},
		"new again, after silence":   {{0, []string{x}, 0, false}, {silent, nil, 0, true}, {9, nil, 0, true}, {10, []string{x}, 0, true}},
		"counted, and after silence": {{0, []string{x}, 0, false}, {2, []string{x}, 1, true}, {silent, nil, 0, true}, {9, []string{x}, 0, false}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTracker(2 * time.Minute)
			for i, l := range looks {
				seen, answers := noon.Add(time.Duration(l.at)*time.Minute), map[string]time.Time{}
				if l.at != silent {
					answers["rds1"] = seen
				}
				var found []Finding
				for _, volume := range l.found {
					found = append(found, Finding{Kind: ExportLost, Volume: volume, Seen: seen})
				}
				tr.update(found, answers)
				if n, known := tr.count(anyKind); n != l.n || known != l.number {
					t.Errorf("look %d: %d (known: %t), want %d (%t)", i, n, known, l.n, l.number)
				}
			}
		})
	}
	if a := (Finding{Kind: NodeGone, Volume: "rds1/x"}).authority(); a != byKubernetes {
		t.Errorf("what Kubernetes alone tells waits for %q", a)
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
