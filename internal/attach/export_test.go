package attach

// Size is the number of entries that the ledger keeps.
func (l *Ledger) Size() int {
	n := len(l.volumes) + len(l.byUID) + len(l.nodes) + len(l.fading) + len(l.perNode) + len(l.pending) + len(l.moving)
	for _, v := range l.volumes {
		n += len(v.held) + len(v.intents) + len(v.uses)
	}
	return n
}
