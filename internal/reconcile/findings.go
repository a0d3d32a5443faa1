package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// clockSkew is how far apart the clocks may be whose stamps are compared: those of
// two API servers, or of one and this process.
const clockSkew = 10 * time.Second

// View is everything that findings are made from.
type View struct {
	Now         time.Time
	Attachments []attach.Attachment
	Nodes       []attach.Node
	Words       []attach.Word
	Migrations  []attach.Migration
	// Lists has every configured RDS: its last complete list, or nothing where that is missing or too old.
	Lists map[string]Reading[[]appliance.Volume]
}

// Finding is one contradiction.
type Finding struct {
	Kind   Kind
	Volume string    // canonical handle, or a stand-in that names what is known
	Node   string    // empty where the finding is not about one node
	Object string    // UID that tells this occurrence from one of the same names; may be empty
	Detail string    // what contradicts what
	Seen   time.Time // what proves it was true at some moment after this
}

// message is for an event.
func (f Finding) message() string { return string(f.Kind) + ": " + f.Detail + "; " + f.Kind.nextStep() }

// subject is what a finding is about: the same in every look that has it.
type subject struct {
	kind                 Kind
	volume, node, object string
}

func (f Finding) subject() subject { return subject{f.Kind, f.Volume, f.Node, f.Object} }

// authority is by whose looks it is found: that of an RDS, or that of Kubernetes.
func (f Finding) authority() string {
	if !f.Kind.byRDS() {
		return byKubernetes
	}
	rds, _, _ := strings.Cut(f.Volume, "/")
	return rds
}

// byKubernetes is the authority of what is found without an RDS; no RDS has that name.
const byKubernetes = ""

// Findings compares. It is a function of the view alone, sorted.
func Findings(v View) []Finding {
	out := slices.Concat(v.byAttachment(), v.byVolume(), v.byNode(), v.byMigration())
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Volume, b.Volume),
			cmp.Compare(a.Node, b.Node), cmp.Compare(a.Object, b.Object))
	})
	return out
}

// byAttachment finds VolumeAttachments whose node or volume is not known.
func (v View) byAttachment() []Finding {
	nodes := make(map[string]attach.Node, len(v.Nodes))
	for _, n := range v.Nodes {
		nodes[n.Name] = n
	}
	var out []Finding
	for _, a := range v.Attachments {
		n, there := nodes[a.Node]
		if why := gone(a, n, there); why != "" {
			out = append(out, v.about(NodeGone, a, why))
		}
		if _, why := v.resolve(a.Volume); why != "" {
			out = append(out, v.about(Unresolved, a, why))
		}
	}
	return out
}

func (v View) about(k Kind, a attach.Attachment, why string) Finding {
	return Finding{
		Kind: k, Volume: a.Volume, Node: a.Node, Object: a.UID, Seen: v.Now,
		Detail: fmt.Sprintf("VolumeAttachment %s of volume %s on node %s: %s", a.Name, a.Volume, a.Node, why),
	}
}

// gone says why the node that the VolumeAttachment means is not there, if so. A
// Node object made again under the same name is another machine, or one that was
// set up anew: by its UID where the publish wrote that down, else by its age.
func gone(a attach.Attachment, n attach.Node, there bool) string {
	switch {
	case !there:
		return "the Node object is gone"
	case a.NodeUID != "" && a.NodeUID != n.UID:
		return fmt.Sprintf("it was attached to the Node with UID %s, the one of that name now has UID %s", a.NodeUID, n.UID)
	case a.NodeUID == "" && n.Created.After(a.Created.Add(clockSkew)):
		return "the Node of that name is younger than the VolumeAttachment"
	}
	return ""
}

// resolve finds the RDS of a volume among the configured ones.
func (v View) resolve(volume string) (id appliance.ID, why string) {
	id, err := appliance.ParseID(volume, "")
	if err != nil {
		return id, "nothing tells which volume it means: its PersistentVolume is gone and was never seen"
	}
	if _, configured := v.Lists[id.RDS]; !configured {
		return id, fmt.Sprintf("rds %s is not configured", id.RDS)
	}
	return id, ""
}

// attached is one volume and what is attached of it.
type attached struct {
	id    appliance.ID
	nodes []string
	last  time.Time // when the youngest VolumeAttachment was made
}

// attachedOn are the attached volumes of each RDS.
func (v View) attachedOn() map[string]map[string]*attached {
	out := map[string]map[string]*attached{}
	for _, a := range v.Attachments {
		id, why := v.resolve(a.Volume)
		if !a.Attached || why != "" {
			continue
		}
		if out[id.RDS] == nil {
			out[id.RDS] = map[string]*attached{}
		}
		on := out[id.RDS][id.Slot]
		if on == nil {
			on = &attached{id: id}
			out[id.RDS][id.Slot] = on
		}
		on.nodes = append(on.nodes, a.Node)
		if a.Created.After(on.last) {
			on.last = a.Created
		}
	}
	return out
}

// byVolume holds what is attached against what each RDS has. An RDS without a
// list says nothing, neither way.
func (v View) byVolume() []Finding {
	var out []Finding
	for rds, volumes := range v.attachedOn() {
		list := v.Lists[rds]
		if list.Came.IsZero() {
			continue
		}
		items := make(map[string]appliance.Volume, len(list.Value))
		for _, item := range list.Value {
			items[item.ID.Slot] = item
		}
		for slot, on := range volumes {
			item, there := items[slot]
			if k, why := on.compare(item, there, list.Asked); k != "" {
				slices.Sort(on.nodes)
				out = append(out, Finding{
					Kind: k, Volume: on.id.Key(), Seen: list.Asked,
					Detail: fmt.Sprintf("volume %s, attached to %s: %s", on.id, strings.Join(slices.Compact(on.nodes), ", "), why),
				})
			}
		}
	}
	return out
}

// compare says how the item of an attached volume is wrong. Of an item that is not
// known to be this cluster's nothing else is said: what is not ours is not judged.
func (on *attached) compare(item appliance.Volume, there bool, asked time.Time) (Kind, string) {
	switch {
	case !there && !asked.After(on.last.Add(clockSkew)):
		return "", "" // the list may be older than the attachment
	case !there:
		return VolumeGone, "the rds has no disk item in its slot"
	case item.Owner == appliance.OwnerForeign:
		return VolumeForeign, "the comment of the disk item in its slot does not name this cluster"
	case item.Mounted:
		return MountedOnRDS, "the rds has mounted its file system"
	case !item.Exported:
		return ExportLost, "the rds does not export it"
	case item.NQN != appliance.NQNFor(item.ID.Slot):
		return ExportLost, fmt.Sprintf("the rds exports it as %q, not as %s", item.NQN, appliance.NQNFor(item.ID.Slot))
	}
	return "", ""
}

// byNode finds what kubelets have mounted without a VolumeAttachment. A kubelet also
// names what a pod there waits for, which contradicts nothing; and what it named
// before this process listened may be either. What a node that is said to be shut
// down once reported proves nothing.
func (v View) byNode() []Finding {
	nodes := make(map[string]attach.Node, len(v.Nodes))
	for _, n := range v.Nodes {
		nodes[n.Name] = n
	}
	puts, taken := v.placed()
	var out []Finding
	for _, w := range v.Words {
		n, there := nodes[w.Node]
		if !there || n.OutOfService || puts[place{w.Volume, w.Node}] {
			continue
		}
		f := Finding{Kind: InUseUnattached, Volume: w.Volume, Node: w.Node, Object: n.UID, Seen: v.Now}
		switch {
		case w.Proof == attach.Has:
			f.Detail = fmt.Sprintf("volume %s is in use on node %s by the word of its kubelet, and no VolumeAttachment puts it there", w.Volume, w.Node)
		case w.Proof == attach.MayHave && !taken[w.Volume]:
			f.Kind = inUseUnproven
			f.Detail = fmt.Sprintf("volume %s is mounted or waited for on node %s, and no VolumeAttachment puts it there", w.Volume, w.Node)
		default:
			continue
		}
		out = append(out, f)
	}
	return out
}

// place is a volume on a node.
type place struct{ volume, node string }

// placed are the places where a VolumeAttachment puts a volume, and the volumes for
// one node that a node has: a pod elsewhere that waits for one of these is the
// likely reason of a word that proves nothing.
func (v View) placed() (puts map[place]bool, taken map[string]bool) {
	puts, taken = make(map[place]bool, len(v.Attachments)), map[string]bool{}
	for _, a := range v.Attachments {
		puts[place{a.Volume, a.Node}] = true
		if a.Attached && a.Mode == attach.SingleNode {
			taken[a.Volume] = true
		}
	}
	return puts, taken
}

func (v View) byMigration() []Finding {
	var out []Finding
	for _, m := range v.Migrations {
		if v.Now.After(m.Deadline) {
			out = append(out, Finding{
				Kind: MigrationOverdue, Volume: m.Volume, Node: m.To, Object: m.Began.String(), Seen: v.Now,
				Detail: fmt.Sprintf("volume %s migrates from node %s to node %s since %s, it should have ended at %s",
					m.Volume, m.From, m.To, m.Began.Format(time.RFC3339), m.Deadline.Format(time.RFC3339)),
			})
		}
	}
	return out
}

func (v View) hasNode(name string) bool {
	return slices.ContainsFunc(v.Nodes, func(n attach.Node) bool { return n.Name == name })
}
