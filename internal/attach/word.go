package attach

import (
	"cmp"
	"slices"
	"strings"
)

// Proof is what a kubelet's word that it has a volume in use proves.
type Proof int

const (
	// Waits is no mount: this process saw the word come, and nothing was attached or
	// admitted there since. A pod waits.
	Waits Proof = iota
	// MayHave is either: the word was there when this process began to listen. The
	// kubelet has the volume mounted, or a pod waits for it.
	MayHave
	// Has is a mount, as far as anybody can tell: the volume was attached or admitted
	// there since the kubelet last spoke of nothing, and it speaks of it.
	Has
)

// Word is that a Node names a volume of this driver in status.volumesInUse.
type Word struct {
	Node, Volume string
	Proof        Proof
}

// Words lists what kubelets say, by node and volume, of nodes that are out of
// service as well: for background loops.
func (l *Ledger) Words() []Word {
	l.mu.Lock()
	var list []Word
	for handle, v := range l.volumes {
		for _, u := range v.uses {
			if u.said {
				list = append(list, Word{u.node, handle, u.proof()})
			}
		}
	}
	l.mu.Unlock()
	slices.SortFunc(list, func(a, b Word) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Volume, b.Volume))
	})
	return list
}

func (u use) proof() Proof {
	switch {
	case u.proven:
		return Has
	case u.had:
		return MayHave
	default:
		return Waits
	}
}
