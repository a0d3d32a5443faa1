package attach

// Unused says for certain that no node has the volume, and that none can get it
// before the publish to this node is answered with a yes: the only VolumeAttachments
// are the node's own and wait, nobody was admitted, and what kubelets say of it are
// wishes. It is not said of a node that is asked for again after a yes, since that
// yes may have arrived; nor while anything is unknown, and not for some minutes after
// a node had the volume of which its kubelet never spoke: its word may be under way.
// What silence does not prove (see the package comment) it does not prove here either.
//
// Without Kubernetes nothing tells what was admitted before this process began. There it
// is said only once this process saw the volume taken from all nodes.
func (l *Ledger) Unused(volume, node string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, freed := l.freed[volume]; l.standalone && !freed {
		return false
	}
	return l.known && l.nodesKnown && look(l.volumes, volume).unused(node)
}

// frees says whether an unpublish from the node, or from all when it is empty, leaves
// the volume on no node at all, also of those that this process never heard of: a CO
// does not ask for a volume for a single node while another one has it.
func (v *volume) frees(node string) bool {
	return node == "" || len(v.intents) == 1 && v.intents[0].node == node && v.intents[0].mode == SingleNode
}

func (v *volume) unused(node string) bool {
	for _, h := range v.held {
		if h.Attached || h.Node != node {
			return false
		}
	}
	for _, u := range v.uses {
		if u.had && (u.node == node || !u.off) {
			return false
		}
	}
	return len(v.intents) == 0
}

// undo takes an admission back. Of one before which nobody had the volume it is
// certain that the node could not mount it: its kubelet's word is a wish as before.
func (v *volume) undo(node string) {
	for _, i := range v.intents {
		if i.node == node && i.first && !v.attachedOn(node) {
			v.unpossess(node)
		}
	}
	v.release(node)
}

// notFirst: something tells since that the node may have had the volume before it was
// admitted, so taking the admission back takes nothing else back.
func (v *volume) notFirst(node string) {
	for i := range v.intents {
		if v.intents[i].node == node {
			v.intents[i].first = false
		}
	}
}

// unpossess takes possess back.
func (v *volume) unpossess(node string) {
	u := v.use(node)
	u.had, u.proven = false, false
	v.unsaid(node)
}
