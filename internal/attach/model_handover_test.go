package attach

import (
	"maps"
	"strings"
	"time"

	"pgregory.net/rapid"
)

// process is what one controller knows. The model's own is the one that leads. The standby sees what the API server has,
// in its own time, and nothing of what the leader admitted: until status.attached is written, that is in the leader's
// memory alone.
type process struct {
	ledger  *Ledger
	synced  bool
	seen    int
	view    map[string]Attachment
	moving  []Migration
	heard   int
	heardAt time.Time
	spoken  map[string]Node
	fresh   map[string]bool
	wished  map[string]bool
	tried   map[string]bool
}

func newProcess() process {
	return process{
		ledger: NewLedger(Options{ClockSkew: modelSkew}), view: map[string]Attachment{}, spoken: map[string]Node{},
		fresh: map[string]bool{}, wished: map[string]bool{}, tried: map[string]bool{},
	}
}

// swap makes the standby the one that the model's steps are about, and the leader the standby.
func (m *model) swap() {
	m.standby, m.ledger, m.synced, m.seen, m.view, m.moving, m.heard, m.heardAt, m.spoken, m.fresh, m.wished, m.tried = process{
		m.ledger, m.synced, m.seen, m.view, m.moving, m.heard, m.heardAt, m.spoken, m.fresh, m.wished, m.tried,
	}, m.standby.ledger, m.standby.synced, m.standby.seen, m.standby.view, m.standby.moving, m.standby.heard, m.standby.heardAt,
		m.standby.spoken, m.standby.fresh, m.standby.wished, m.standby.tried
}

// Standby: the other process sees some more, on its own watches.
func (m *model) Standby(t *rapid.T) {
	m.swap()
	rapid.SampledFrom([]func(*rapid.T){
		m.Sync, m.Deliver, m.DeliverWords, m.Flush, m.FlushNodes, m.Relist, m.RelistNodes,
	}).Draw(t, "the standby")(t)
	m.swap()
}

// HandOver: who led has ended, wherever it was, and with it what it admitted. The standby lists anew, as package kube sees
// to, and leads. Another one stands by.
func (m *model) HandOver(t *rapid.T) {
	all := m.synced && rapid.Bool().Draw(t, "the leader has seen all")
	if all {
		m.Flush(t)
		m.FlushNodes(t)
	}
	old := m.ledger
	m.swap()
	maps.Copy(m.tried, m.standby.tried)
	m.standby = newProcess()
	m.ledger.Doubt()
	m.listNodes(t, len(m.words))
	m.list(t, len(m.log))
	m.synced, m.wished, m.fresh = true, map[string]bool{}, map[string]bool{}
	if all {
		m.compareLeaders(t, old)
	}
}

// compareLeaders holds a new leader against the one before it; both have seen all. What came in which order the new one
// may know better: the other may have found a tie in its first list.
func (m *model) compareLeaders(t *rapid.T, old *Ledger) {
	for volume, mode := range m.volumes {
		for _, node := range m.nodes {
			r := m.api[volume+"@"+node]
			before, after := kind(old.decide(volume, node, mode, m.now)), kind(m.ledger.decide(volume, node, mode, m.now))
			knowsBetter := r != nil && m.tied(r) && strings.HasPrefix(before, "refused")
			narrower := look(old.volumes, volume).admits(mode) != mode // by what it granted, and nobody else can know
			if !knowsBetter && !narrower && !m.same(volume, node, before, after) {
				t.Fatalf("%s to %s: %s by the old leader, %s by the new one", volume, node, before, after)
			}
		}
	}
	m.compareBooks(t, old, func(a, b Use) bool { return a.Node == b.Node && (a.Why == b.Why || a.Why.word() && b.Why.word()) })
}
