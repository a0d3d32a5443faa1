package attach

import (
	"slices"
	"strings"
	"time"
)

// held is one VolumeAttachment as the ledger keeps it.
type held struct {
	Attachment
	arrival int  // with which event or list it was first seen: those of one list share it
	spent   int  // the last unpublish of its pair since it was first seen, or 0
	before  bool // it was attached before the last event or list
	// early: it waits, and was granted before all that this process remembers, or not
	// at all: nobody tells. Until it is asked for.
	early bool
}

// intent is an admission.
type intent struct {
	node  string
	mode  Mode // as it was granted
	since time.Time
	first bool // nobody had the volume before it, as far as was heard until now
}

// outlived says whether h was written after the unpublish with that mark, and not
// to be deleted: what the unpublish was for had its deletion timestamp before.
func (h held) outlived(mark string) bool {
	return !h.Deleting && strings.Contains(h.AttachError, mark)
}

// volume is what is known of one volume. There are one or two entries in each
// slice, so a scan beats an index.
type volume struct {
	held    []held
	intents []intent
	uses    []use // by kubelets
}

// look finds a volume; one that nobody has is empty and not kept.
func look(volumes map[string]*volume, handle string) *volume {
	if v, ok := volumes[handle]; ok {
		return v
	}
	return &volume{}
}

func (v *volume) find(uid string) int {
	return slices.IndexFunc(v.held, func(h held) bool { return h.UID == uid })
}

func (v *volume) put(h held) {
	if h.Attached && !h.before {
		v.possess(h.Node)
	}
	i := v.find(h.UID)
	if i < 0 {
		v.held = append(v.held, h)
		return
	}
	v.held[i] = h
}

func (v *volume) nodeOf(uid string) string {
	if i := v.find(uid); i >= 0 {
		return v.held[i].Node
	}
	return ""
}

func (v *volume) drop(uid string) {
	i := v.find(uid)
	node := v.held[i].Node
	v.held = slices.Delete(v.held, i, i+1)
	v.expire(node)
}

// expire ends an admission whose VolumeAttachment is gone: a restart would not
// know of it either.
func (v *volume) expire(node string) {
	if !v.has(node) {
		v.release(node)
	}
}

func (v *volume) has(node string) bool {
	return slices.ContainsFunc(v.held, func(h held) bool { return h.Node == node })
}

func (v *volume) attached() bool {
	return slices.ContainsFunc(v.held, func(h held) bool { return h.Attached })
}

// attachedOn says whether a VolumeAttachment of that node is attached.
func (v *volume) attachedOn(node string) bool {
	return slices.ContainsFunc(v.held, func(h held) bool { return h.Attached && h.Node == node })
}

func (v *volume) admitted(node string) bool {
	return slices.ContainsFunc(v.intents, func(i intent) bool { return i.node == node })
}

func (v *volume) intend(i intent) {
	if !v.admitted(i.node) {
		v.intents = append(v.intents, i)
	}
}

// release forgets the admission of the node.
func (v *volume) release(node string) {
	v.intents = slices.DeleteFunc(v.intents, func(i intent) bool { return i.node == node })
}

// agree is a mode, as far as all VolumeAttachments agree with it. Without
// Kubernetes there are none, and those who were admitted speak.
func (v *volume) agree(mode Mode) Mode {
	if len(v.held) == 0 {
		return v.admits(mode)
	}
	for _, h := range v.held {
		mode = mode.And(h.mode())
	}
	return mode
}

// admits is a mode, as far as what this process granted agrees with it.
func (v *volume) admits(mode Mode) Mode {
	for _, i := range v.intents {
		mode = mode.And(i.mode)
	}
	return mode
}

// early is a VolumeAttachment of another node of which it is not known what it was
// granted.
func (v *volume) early(node string) (h held, yes bool) {
	i := slices.IndexFunc(v.held, func(h held) bool { return h.early && h.Node != node })
	if i < 0 {
		return h, false
	}
	return v.held[i], true
}

// asked: whatever the node was granted before is not on its way any more, or it would
// not be asked for again. It may have been written down all the same: see the package
// comment.
func (v *volume) asked(node string) {
	for i := range v.held {
		if v.held[i].Node == node {
			v.held[i].early = false
		}
	}
}

// waits says whether it may yet be mounted by what was granted to it, and does not
// tell what that was. kubelet mounts by nothing that is being deleted (kubernetes:
// pkg/volume/csi/csi_attacher.go [S]).
func (h held) waits() bool { return !h.Attached && !h.Deleting }

// spend marks what is seen of the node, or of all nodes, by the number of the
// unpublish.
func (v *volume) spend(node string, unpublish int) {
	for i := range v.held {
		if h := &v.held[i]; node == "" || h.Node == node {
			h.spent = unpublish
			h.early = h.early || h.waits() && v.admitted(h.Node)
		}
	}
}

// spent is the last unpublish that spent a VolumeAttachment of the node, or 0.
func (v *volume) spent(node string) int {
	last := 0
	for _, h := range v.held {
		if h.Node == node {
			last = max(last, h.spent)
		}
	}
	return last
}

// right is the node's own VolumeAttachment that asks for the volume. Of several
// (only hands make a second one) the youngest speaks, for it yields to most.
func (v *volume) right(node string) (own held, ok bool) {
	for _, h := range v.held {
		if h.Node != node || h.Deleting || h.spent > 0 {
			continue
		}
		attached := h.Attached || own.Attached
		if !ok || h.Created.After(own.Created) {
			own, ok = h, true
		}
		own.Attached = attached
	}
	return own, ok
}

// rivals are the other nodes that VolumeAttachments put in the way of own, and
// those that have the volume for certain; kubelets' words are part of both. Of an
// own that is attached only other attached ones are rivals: to repeat what was
// done changes nothing.
func (v *volume) rivals(own held, node string, skew time.Duration) [][]rival {
	if own.Attached {
		return [][]rival{eachOnce(v.ahead(own, skew))}
	}
	mounted := v.mounted(node)
	return [][]rival{eachOnce(append(v.ahead(own, skew), mounted...)), eachOnce(append(v.holders(node), mounted...))}
}

// refuses answers those of the rivals because of which a node may not have the
// volume in that mode. Of a volume for readers all VolumeAttachments are readers',
// and what a kubelet has in use where there is one was attached to be read; what
// it has in use without one may as well be written to.
func (v *volume) refuses(mode Mode, rivals []rival) []rival {
	switch {
	case mode == Readers:
		return slices.DeleteFunc(rivals, func(r rival) bool { return !r.why.word() || v.has(r.node) })
	case len(rivals) < mode.limit():
		return nil
	default:
		return rivals
	}
}

// ahead are the other nodes that the VolumeAttachments alone put in the way of
// own.
func (v *volume) ahead(own held, skew time.Duration) []rival {
	var out []rival
	for _, h := range v.held {
		if reason, blocks := h.blocks(own, skew); blocks && h.Node != own.Node {
			out = append(out, rival{h.Node, reason, Asked})
		}
	}
	return out
}

// holders are the other nodes that have the volume for certain: attached, or
// admitted by this process.
func (v *volume) holders(node string) []rival {
	var out []rival
	for _, h := range v.held {
		if h.Attached && h.Node != node {
			out = append(out, rival{h.Node, h.isAttached(), Attached})
		}
	}
	for _, i := range v.intents {
		if i.node != node {
			out = append(out, rival{i.node, "admitted, not confirmed yet", Asked})
		}
	}
	return out
}

// eachOnce sorts by node and keeps the first reason for each.
func eachOnce(rivals []rival) []rival {
	slices.SortStableFunc(rivals, func(a, b rival) int { return strings.Compare(a.node, b.node) })
	return slices.CompactFunc(rivals, func(a, b rival) bool { return a.node == b.node })
}

func (h held) isAttached() string {
	text := "VolumeAttachment " + h.Name + " is attached"
	m, told := h.Granted.Mode()
	switch {
	case told && m != h.Mode:
		return text + " as " + m.String() + ", whatever its PersistentVolume says now"
	case h.mode() != h.Mode:
		return text + " and does not tell that it only reads"
	default:
		return text
	}
}

// blocks says whether h, on another node, is in the way of own, and why.
func (h held) blocks(own held, skew time.Duration) (reason string, yes bool) {
	switch {
	case h.Attached:
		return h.isAttached(), true
	case own.Attached:
		return "", false // own was admitted before h could be
	case h.Created.After(own.Created.Add(skew)):
		return "", false // younger for certain: it is refused because of own
	case h.arrival > own.arrival && !own.Created.After(h.Created.Add(skew)):
		return "", false // a tie by the clocks, but it was written later
	default:
		return "VolumeAttachment " + h.Name + " asked first or at the same time", true
	}
}

// nodes lists nodes with a VolumeAttachment that counts, and those admitted if
// wanted; sorted, each once.
func (v *volume) nodes(counts func(held) bool, intents bool) []string {
	var out []string
	for _, h := range v.held {
		if counts(h) {
			out = append(out, h.Node)
		}
	}
	if intents {
		for _, i := range v.intents {
			out = append(out, i.node)
		}
	}
	return sortedSet(out)
}
