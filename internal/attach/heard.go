package attach

import (
	"slices"
	"time"
)

// nodesPatience is how long the watch of Nodes may say nothing before words are
// taken for old. The API server sends a bookmark about once a minute when nothing
// happens. The attach/detach controller waits six minutes before it detaches by
// force (kubernetes: pkg/controller/volume/attachdetach [S]): what a kubelet mounted
// before that was heard.
const nodesPatience = 3 * time.Minute

// place is a volume on a node.
type place struct{ volume, node string }

// NodesHeard says that the watch of Nodes gave a list, an event or a bookmark at
// that time, and that the ledger was told of it. As long as nobody calls it Nodes
// are taken for heard of.
func (l *Ledger) NodesHeard(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = at
	for p, since := range l.fading {
		v := look(l.volumes, p.volume)
		switch {
		case !v.fades(p.node):
			delete(l.fading, p)
		case since.IsZero():
			l.fading[p] = at
		case since.Add(nodesPatience).Before(at):
			v.unsaid(p.node)
			l.forget(p.volume)
			delete(l.fading, p)
		}
	}
}

// deaf says whether the Nodes were not heard of for too long. The wall clock goes on
// when a machine sleeps, the monotonic one when the wall clock is set back: the one
// that says more counts.
func (l *Ledger) deaf(now time.Time) bool {
	silence := max(now.Sub(l.heard), now.Round(0).Sub(l.heard.Round(0)))
	return !l.heard.IsZero() && silence > nodesPatience
}

// fade begins to forget that a node had a volume which no VolumeAttachment puts
// there any more, and of which its kubelet says nothing. The word may be under way:
// it is forgotten when the Nodes were heard of twice with enough time between.
func (l *Ledger) fade(handle, node string) {
	if look(l.volumes, handle).fades(node) {
		l.fading[place{handle, node}] = time.Time{}
	}
}

// fades says whether all that is left of a node is that it had the volume.
func (v *volume) fades(node string) bool {
	return !v.has(node) && slices.ContainsFunc(v.uses, func(u use) bool { return u.node == node && !u.said })
}
