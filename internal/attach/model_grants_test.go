package attach

import (
	"maps"
	"slices"

	"pgregory.net/rapid"
)

// The part of the model in which somebody changes the access modes of
// PersistentVolumes, at any time. The attacher and kubelets go by what they read
// once, be it older than what the ledger has seen, or newer.

// mount is as what a node mounted a volume.
type mount struct {
	granted Grant
	writes  bool
}

type grants struct {
	edits  bool              // in this run
	raw    map[string]bool   // volumes that are raw block: that cannot be changed
	pv     map[string]Mode   // what PersistentVolumes say
	told   map[string]Mode   // what the ledger's feed has seen of that
	said   map[string][]Mode // all that they said at some time
	edited map[string]bool   // volumes that said more than one thing
	holds  map[string]Grant  // pairs that were granted, and were not refused when they were asked for again
	mounts map[string]mount  // pairs
}

func newGrants(t *rapid.T, volumes map[string]Mode) grants {
	g := grants{
		edits: rapid.Bool().Draw(t, "access modes are changed"),
		raw:   map[string]bool{}, pv: maps.Clone(volumes), told: maps.Clone(volumes), said: map[string][]Mode{},
		edited: map[string]bool{}, holds: map[string]Grant{}, mounts: map[string]mount{},
	}
	for _, volume := range slices.Sorted(maps.Keys(volumes)) {
		g.raw[volume] = volumes[volume] == MultiNode || rapid.Bool().Draw(t, "raw block")
		g.said[volume] = []Mode{volumes[volume]}
	}
	return g
}

// Edit: somebody changes a PersistentVolume. The ledger's feed may see it later.
func (m *model) Edit(t *rapid.T) {
	_, volume := m.draw(t)
	modes := []Mode{SingleNode, Readers}
	if m.raw[volume] {
		modes = append(modes, MultiNode)
	}
	mode := rapid.SampledFrom(modes).Draw(t, "access mode")
	if !m.edits || m.narrowed[volume] || mode == m.pv[volume] {
		return
	}
	m.pv[volume], m.edited[volume] = mode, true
	m.said[volume] = append(m.said[volume], mode)
	if rapid.Bool().Draw(t, "told at once") {
		m.tellOf(volume)
	}
}

// Tell lets the ledger's feed see a PersistentVolume as it is.
func (m *model) Tell(t *rapid.T) {
	_, volume := m.draw(t)
	m.tellOf(volume)
}

func (m *model) tellOf(volume string) {
	if m.told[volume] == m.pv[volume] || m.narrowed[volume] {
		return
	}
	m.told[volume] = m.pv[volume]
	for _, r := range m.sorted() {
		if r.Volume == volume {
			r.Mode = m.told[volume]
			m.write(r)
		}
	}
}

// attach: the attacher writes down what it was answered.
func (m *model) attach(r *record, granted Grant) {
	if !r.Attached || r.Granted != granted {
		r.Attached, r.Granted, r.flight = true, granted, 0
		m.write(r)
	}
}

// Land: a yes that was under way is written down, however many restarts ago it was
// given.
func (m *model) Land(t *rapid.T) {
	if r := m.pick(t, func(r *record) bool { return r.flight != 0 }); r != nil {
		m.attach(r, r.flight)
	}
}

// Fail: the attacher finds that it cannot ask, and writes that down. What it was
// answered before did not arrive.
func (m *model) Fail(t *rapid.T) {
	if r := m.pick(t, func(r *record) bool { return !r.unpublished && !r.Attached }); r != nil {
		r.flight = 0
		m.refused(r)
		r.AttachError, r.AttachErrorAt = "no CSINode", m.now
		m.write(r)
	}
}

// refused: what a pair was granted before did not arrive, or it would not be asked
// for again.
func (m *model) refused(r *record) {
	if !r.Attached {
		delete(m.holds, r.pair())
	}
}

// askAll: the attacher asks for all, whatever it is answered.
func (m *model) askAll() {
	for _, r := range m.sorted() {
		r.flight = 0
		m.refused(r)
		m.ledger.ask(r.Volume, r.Node)
	}
}

// mountAs is the node plugin: kubelet asks it by the PersistentVolume as it read it at
// some time, and it mounts for nothing wider than what was granted.
func (m *model) mountAs(t *rapid.T, r *record) bool {
	granted, writes := r.Granted, rapid.SampledFrom(m.said[r.Volume]).Draw(t, "kubelet says") != Readers
	if granted == GrantOf(Readers) && writes {
		return false
	}
	was := m.mounts[r.pair()]
	m.mounts[r.pair()] = mount{granted, writes || was.writes}
	return true
}

// checkHolds: nobody may write beside anybody else, by what was granted.
func (m *model) checkHolds(t *rapid.T) {
	for volume := range m.volumes {
		var all []Grant
		for pair, granted := range m.holds {
			if r := m.api[pair]; r.Volume == volume && (r.Attached || !r.Deleting) {
				all = append(all, granted)
			}
		}
		if !together(all) {
			t.Fatalf("%s is granted as %v", volume, all)
		}
	}
}

// together says whether nodes may have a volume that were granted it as that.
func together(all []Grant) bool {
	only := func(mode Mode) bool {
		return !slices.ContainsFunc(all, func(g Grant) bool { return g != GrantOf(mode) })
	}
	return len(all) < 2 || only(Readers) || only(MultiNode) && len(all) == 2
}

// checkWriters: nobody writes beside anybody else, but for raw block that was granted
// to both as MultiNode. Left out is what takes force and a changed PersistentVolume
// together: a volume that was detached by force, that its node has mounted still, and
// of which something else is said since.
func (m *model) checkWriters(t *rapid.T, volume string, nodes []string) {
	var all []Grant
	writes := false
	for _, node := range nodes {
		pair := volume + "@" + node
		r, as := m.api[pair], m.mounts[pair]
		attached := r != nil && r.Attached
		granted := as.granted
		if attached {
			granted = r.Granted
		}
		other := slices.ContainsFunc(m.said[volume], func(said Mode) bool { return granted != GrantOf(said) })
		if m.forced[pair] && (attached && as.writes && granted == GrantOf(Readers) || !attached && other) {
			continue
		}
		all, writes = append(all, granted), writes || as.writes
	}
	if writes && !together(all) {
		t.Fatalf("%s is mounted on %v as %v, and written to", volume, nodes, all)
	}
}

// pure says whether all was granted as the PersistentVolume says it always did.
func (m *model) pure(volume string) bool {
	for pair, granted := range m.holds {
		if m.api[pair].Volume == volume && granted != GrantOf(m.volumes[volume]) {
			return false
		}
	}
	return !m.edited[volume] && look(m.ledger.volumes, volume).admits(m.volumes[volume]) == m.volumes[volume]
}

// waits says whether another node waits for the volume.
func (m *model) waits(volume, node string) bool {
	return slices.ContainsFunc(m.sorted(), func(r *record) bool { return r.Volume == volume && r.Node != node && !r.Attached })
}
