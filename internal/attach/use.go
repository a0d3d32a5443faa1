package attach

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Why is how it is known that a node has a volume, or may get it; what is more
// certain comes first.
type Why int

const (
	// Attached is what a VolumeAttachment says.
	Attached Why = iota
	// Asked is what a VolumeAttachment says that waits, or what an admission says.
	Asked
	// Mounted is a kubelet's word without a VolumeAttachment, of a volume that was
	// attached or admitted there.
	Mounted
	// MayBeMounted is such a word that was there before this
	// process began to listen: kubelet has the volume mounted, or a pod waits for it.
	MayBeMounted
	// Awaited is such a word that this process saw come, where nothing was
	// attached there since: a pod waits.
	Awaited
)

// String says it to a user.
func (w Why) String() string {
	switch w {
	case Attached:
		return "a VolumeAttachment is attached"
	case Asked:
		return "a VolumeAttachment asks for it"
	case Mounted:
		return "its kubelet has it in use"
	case MayBeMounted:
		return "its kubelet has it mounted, or a pod there waits for it"
	default:
		return "a pod there waits for it"
	}
}

// word says whether only a kubelet says so.
func (w Why) word() bool { return w >= Mounted }

// Use is a node that has a volume, or may get it.
type Use struct {
	Node string
	Why  Why
}

// MayWrite says whether the node may have the volume mounted now, or any moment.
func (u Use) MayWrite() bool { return u.Why != Awaited }

// Explain says who has a volume, why, and what to do about it. It goes on from
// "it is ".
func Explain(uses []Use) string {
	rivals := make([]rival, 0, len(uses))
	for _, u := range uses {
		rivals = append(rivals, rival{node: u.Node, reason: u.Why.String(), why: u.Why})
	}
	return fit(rivals, func(who string) string { return "in use on " + who + "; " + wayOut(rivals) })
}

// InUse tells the nodes that have the volume or may get it, by name: those with
// a VolumeAttachment, attached or not, those admitted, and those whose kubelet has
// it in use, unless they are out of service. The volume may be deleted when there
// is none.
func (l *Ledger) InUse(volume string) ([]Use, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known || !l.nodesKnown {
		return nil, fmt.Errorf("volume %s: %w", volume, ErrUnknown)
	}
	return look(l.volumes, volume).inUse(), nil
}

func (v *volume) inUse() []Use {
	var out []Use
	for _, h := range v.held {
		why := Asked
		if h.Attached {
			why = Attached
		}
		out = append(out, Use{h.Node, why})
	}
	for _, i := range v.intents {
		out = append(out, Use{i.node, Asked})
	}
	for _, u := range v.uses {
		if u.said && !u.off {
			out = append(out, Use{u.node, u.proof().why()})
		}
	}
	slices.SortFunc(out, func(a, b Use) int { return cmp.Or(strings.Compare(a.Node, b.Node), cmp.Compare(a.Why, b.Why)) })
	return slices.CompactFunc(out, func(a, b Use) bool { return a.Node == b.Node })
}

// why is what a word alone proves.
func (p Proof) why() Why {
	switch p {
	case Has:
		return Mounted
	case MayHave:
		return MayBeMounted
	default:
		return Awaited
	}
}
