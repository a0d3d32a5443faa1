package attach

import (
	"fmt"
	"maps"
)

// FullError refuses a publish because the node has as many volumes as it can hold.
type FullError struct {
	Volume string
	Node   string // who asked
	Has    int    // other volumes that are attached to it, or admitted
	Limit  int    // by its CSINode
}

// Error names the volume, the node, both numbers, where the limit comes from and the way out.
func (e *FullError) Error() string {
	return Cut(fmt.Sprintf("volume %s cannot be attached to node %s: it has %d volumes of this driver, attached or admitted, "+
		"and its CSINode lets it have %d (allocatable.count of the driver in kubectl get csinode %s -o yaml); "+
		"let the pod run on another node, or stop one there; if the number is too low, "+
		"raise node.maxVolumes in the configuration and restart the node plugin there", e.Volume, e.Node, e.Has, e.Limit, e.Node))
}

// ReplaceLimits says how many volumes each node can hold, by all that was listed. A node that is not there is not limited, and
// neither is any before the first list.
func (l *Ledger) ReplaceLimits(limits map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = maps.Clone(limits)
}

// UpsertLimit applies that one node says, maybe anew, how many volumes it can hold.
func (l *Ledger) UpsertLimit(node string, volumes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limits == nil {
		l.limits = map[string]int{}
	}
	l.limits[node] = volumes
}

// RemoveLimit applies that a node says no number any more.
func (l *Ledger) RemoveLimit(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.limits, node)
}

// room refuses one volume more for a node that has its number. What the node has it may be asked for again, also when its
// number went down since.
func (l *Ledger) room(volume, node string) error {
	limit, limited := l.limits[node]
	has := l.perNode[node] + l.pending[node]
	if v := look(l.volumes, volume); !limited || has < limit || v.attachedOn(node) || v.admitted(node) {
		return nil
	}
	return &FullError{Volume: volume, Node: node, Has: has, Limit: limit}
}

// pending says whether the node was admitted, and that nothing is attached there yet.
func (v *volume) pending(node string) bool { return v.admitted(node) && !v.attachedOn(node) }

// add changes one of several numbers; none is kept that is 0.
func add(numbers map[string]int, node string, n int) {
	if numbers[node] += n; numbers[node] == 0 {
		delete(numbers, node)
	}
}
