package attach

import (
	"slices"
	"strings"
)

// use is what a kubelet says of a volume, and whether it may have it mounted.
type use struct {
	node string
	said bool // it stands in status.volumesInUse
	off  bool // the node is out of service, says its administrator
	// had: since kubelet last took it from status.volumesInUse it was attached or
	// admitted there, or what was before is not known. Without that the word is a
	// wish: a pod waits there, and nothing can be mounted.
	had bool
	// proven: had, and this process saw it attached or admitted there.
	proven bool
}

// known is a Node as the ledger keeps it.
type known struct {
	Node
	fresh bool // made after the first list, and no words of it were seen yet: the first may be of old mounts
}

// ReplaceNodes makes the ledger's nodes exactly what the authority listed.
func (l *Ledger) ReplaceNodes(list []Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gone := make(map[string]bool, len(l.nodes))
	for name := range l.nodes {
		gone[name] = true
	}
	for _, n := range list {
		delete(gone, n.Name)
		l.setNode(n)
	}
	l.dropNodes(gone)
	l.nodesKnown, l.listening = true, true
}

// Doubt says that this process was not the one that admitted nodes until now, or
// did not watch: the next ReplaceNodes is like the first, all its words count, and
// so is the next Replace: what waits in it may have been granted by another.
func (l *Ledger) Doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listening, l.asked = false, false
	for _, v := range l.volumes {
		for _, i := range v.intents {
			v.notFirst(i.node)
		}
	}
}

// UpsertNode applies one added or changed Node.
func (l *Ledger) UpsertNode(n Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setNode(n)
}

// RemoveNode applies that the Node object is gone, and with it what its kubelet
// said. Its VolumeAttachments are in the way as before.
func (l *Ledger) RemoveNode(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropNodes(map[string]bool{name: true})
}

// NodeUID is the UID of the Node object of that name.
func (l *Ledger) NodeUID(name string) (uid string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.nodes[name]
	return n.UID, ok
}

// KnownNodes copies the nodes, sorted by name: for background loops.
func (l *Ledger) KnownNodes() []Node {
	l.mu.Lock()
	list := make([]Node, 0, len(l.nodes))
	for _, n := range l.nodes {
		list = append(list, n.Node)
	}
	l.mu.Unlock()
	slices.SortFunc(list, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	for i := range list {
		list[i].InUse = slices.Clone(list[i].InUse)
	}
	return list
}

func (l *Ledger) setNode(n Node) {
	old, seen := l.nodes[n.Name]
	if seen && old.UID != n.UID {
		l.dropNodes(map[string]bool{n.Name: true})
		old, seen = known{}, false
	}
	fresh := !seen || old.fresh || !l.listening
	n.InUse = sortedSet(slices.Clone(n.InUse))
	for _, handle := range old.InUse {
		if _, still := slices.BinarySearch(n.InUse, handle); !still {
			look(l.volumes, handle).silent(n.Name)
			l.forget(handle)
		}
	}
	for _, handle := range n.InUse {
		l.at(handle).say(n.Name, fresh, n.OutOfService)
	}
	l.nodes[n.Name] = known{Node: n, fresh: fresh && len(n.InUse) == 0 && l.listening}
}

// dropNodes forgets what the kubelets of these nodes said, and what they may
// have had: the first words of a Node made again count whatever they are.
func (l *Ledger) dropNodes(names map[string]bool) {
	if len(names) == 0 {
		return
	}
	for handle, v := range l.volumes {
		v.uses = slices.DeleteFunc(v.uses, func(u use) bool { return names[u.node] })
		l.forget(handle)
	}
	for name := range names {
		delete(l.nodes, name)
	}
}

func (v *volume) use(node string) *use {
	i := slices.IndexFunc(v.uses, func(u use) bool { return u.node == node })
	if i < 0 {
		i = len(v.uses)
		v.uses = append(v.uses, use{node: node})
	}
	return &v.uses[i]
}

// say: kubelet has the volume in use.
func (v *volume) say(node string, fresh, off bool) {
	u := v.use(node)
	if !u.said && (v.attachedOn(node) || v.admitted(node)) {
		u.had, u.proven = true, true
	}
	if fresh {
		u.had = true
		v.notFirst(node)
	}
	u.said, u.off = true, off
}

// silent: kubelet took the volume from what it has in use: it is unmounted. While an
// admission is not seen to be attached, that is older than what kubelet may do with
// it: it mounts nothing before.
func (v *volume) silent(node string) {
	if v.admitted(node) && !v.attachedOn(node) {
		v.use(node).said = false
		return
	}
	v.uses = slices.DeleteFunc(v.uses, func(u use) bool { return u.node == node })
}

// unsaid forgets that the node may mount what its kubelet does not have in use.
func (v *volume) unsaid(node string) {
	v.uses = slices.DeleteFunc(v.uses, func(u use) bool { return !u.said && u.node == node })
}

// possess: the node was admitted or attached, so it may mount.
func (v *volume) possess(node string) {
	u := v.use(node)
	u.had, u.proven = true, true
}

// mounted are the other nodes whose kubelet may have the volume mounted.
func (v *volume) mounted(node string) []rival {
	var out []rival
	for _, u := range v.uses {
		if u.node != node && u.said && u.had && !u.off {
			why := u.proof().why()
			out = append(out, rival{u.node, why.String(), why})
		}
	}
	return out
}
