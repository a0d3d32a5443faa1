package attach

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Check runs after every step.
func (m *model) Check(t *rapid.T) {
	m.checkAdmitted(t)
	m.checkMounted(t)
	m.checkSteady(t)
	m.checkNumbers(t)
	m.checkMigrations(t)
}

func (m *model) checkAdmitted(t *rapid.T) {
	m.checkHolds(t)
	admitted := map[string]int{}
	for pair := range m.yes {
		volume := m.api[pair].Volume
		if admitted[volume]++; !m.edited[volume] && admitted[volume] > m.volumes[volume].limit() {
			t.Fatalf("%s is admitted to too many nodes: %v", volume, slices.Sorted(maps.Keys(m.yes)))
		}
	}
}

// checkMounted: this is what it is all about. Left out is what nobody can know:
// mounts of which neither a VolumeAttachment nor a Node object tells, or of which
// the administrator says that the machine is off. It takes force to get there: a
// detach by force or by hand, or a Node that is deleted or tainted.
func (m *model) checkMounted(t *rapid.T) {
	for volume, mode := range m.volumes {
		var nodes []string
		for _, node := range m.nodes {
			pair := volume + "@" + node
			if !m.machines[node].mounted[volume] {
				continue
			}
			r, off := m.api[pair], m.machines[node].object != nil && m.machines[node].object.OutOfService
			if (r == nil || !r.Attached) && (!m.word(node, volume) || off) {
				m.untold[pair] = true
				if !m.forced[pair] && !off {
					t.Fatalf("%s is mounted, nothing tells of it, and nobody did anything by force", pair)
				}
			}
			if !m.untold[pair] {
				nodes = append(nodes, node)
			}
		}
		if !m.edited[volume] && len(nodes) > mode.limit() {
			t.Fatalf("%s is mounted on %v", volume, nodes)
		}
		m.checkWriters(t, volume, nodes)
	}
}

// checkUnused: but for what nobody can know, see checkMounted.
func (m *model) checkUnused(t *rapid.T, volume string) {
	for _, node := range m.nodes {
		if pair := volume + "@" + node; m.machines[node].mounted[volume] && !m.untold[pair] {
			t.Fatalf("%s is called unused, and mounted on %s", volume, node)
		}
	}
}

// checkSteady: what was admitted is admitted again, unless its time is over, its
// PersistentVolume went, or another kubelet came to speak of it.
func (m *model) checkSteady(t *rapid.T) {
	for handle, v := range m.ledger.volumes {
		for _, i := range v.intents {
			own, seen := v.right(i.node)
			if !seen || !m.synced || m.narrowed[handle] || m.edited[handle] || m.engaged(handle, i.node) {
				continue
			}
			if _, early := v.early(i.node); early {
				continue // another process was asked in between
			}
			err := m.ledger.decide(handle, i.node, m.volumes[handle], m.now)
			if late := (*MigrationExpiredError)(nil); errors.As(err, &late) && m.now.After(own.Created.Add(modelTimeout)) {
				continue
			}
			if errors.Is(err, ErrUnknown) && m.deaf() {
				continue
			}
			if err != nil {
				t.Fatalf("admitted before, and now: %v", err)
			}
		}
	}
}

// checkNumbers compares with the trivial reference: count again each time.
func (m *model) checkNumbers(t *rapid.T) {
	pending := map[string]int{}
	for _, v := range m.ledger.volumes {
		for _, i := range v.intents {
			if !v.attachedOn(i.node) {
				pending[i.node]++
			}
		}
	}
	if diff := cmp.Diff(pending, m.ledger.pending); diff != "" {
		t.Fatalf("admitted and not attached, per node (-want +got):\n%s", diff)
	}
	n, known := m.ledger.Volumes()
	spread, alsoKnown := m.ledger.PerNode()
	if known != m.synced || alsoKnown != m.synced {
		t.Fatalf("known is %t and %t, synced is %t", known, alsoKnown, m.synced)
	}
	attached, pairs, perNode := map[string]bool{}, map[string]bool{}, map[string]int{}
	for _, a := range m.view {
		if !a.Attached {
			continue
		}
		attached[a.Volume] = true
		if pair := a.Volume + "@" + a.Node; !pairs[pair] {
			pairs[pair] = true
			perNode[a.Node]++
		}
	}
	if !known {
		return
	}
	if n != len(attached) {
		t.Fatalf("counts %d attached volumes, there are %d", n, len(attached))
	}
	if diff := cmp.Diff(perNode, spread); diff != "" {
		t.Fatalf("per node (-want +got):\n%s", diff)
	}
}

// checkMigrations: those of which VolumeAttachments tell are known, and no others;
// and a change is told.
func (m *model) checkMigrations(t *rapid.T) {
	got := m.ledger.Migrations()
	changed := !slices.Equal(got, m.moving)
	m.moving = got
	select {
	case <-m.ledger.Changed():
	default:
		if changed {
			t.Fatalf("migrations changed to %v, and nobody was told", got)
		}
	}
	byVolume := map[string]Migration{}
	for _, g := range got {
		byVolume[g.Volume] = g
	}
	if len(byVolume) != len(got) {
		t.Fatalf("a volume migrates twice: %v", got)
	}
	for volume := range m.volumes {
		if !m.synced {
			break
		}
		want, moves := m.migration(volume)
		have, has := byVolume[volume]
		if moves && have != want {
			t.Fatalf("%s migrates as %v, want %v", volume, have, want)
		}
		if has && !moves {
			t.Fatalf("%s does not migrate: %v", volume, have)
		}
	}
}

// migration is what the view alone tells, by brute force.
func (m *model) migration(volume string) (w Migration, moves bool) {
	var all []Attachment
	for _, a := range m.view {
		if a.Volume != volume {
			continue
		}
		if granted, told := a.Granted.Mode(); a.Mode != MultiNode || told && granted != MultiNode {
			return w, false
		}
		if a.Attached {
			all = append(all, a)
		}
	}
	if len(all) != 2 {
		return w, false
	}
	from, to := all[0], all[1]
	if to.Created.Before(from.Created) || to.Created.Equal(from.Created) && to.UID < from.UID {
		from, to = to, from
	}
	return Migration{Volume: volume, From: from.Node, To: to.Node, Began: to.Created, Deadline: to.Created.Add(modelTimeout)}, true
}

// overdue: another node is attached, this one is not, and the time is over. All by
// the view.
func (m *model) overdue(volume, node string) bool {
	if m.volumes[volume] == Readers || m.edited[volume] {
		return false // nobody moves, or did not always
	}
	for _, own := range m.view {
		if own.Volume != volume || own.Node != node || own.Attached || own.Deleting {
			continue
		}
		for _, other := range m.view {
			late := m.now.After(own.Created.Add(modelTimeout)) && m.now.After(other.Created.Add(modelTimeout))
			if other.Volume == volume && other.Node != node && other.Attached && late {
				return true
			}
		}
	}
	return false
}

// Settle: all is seen, and nobody does anything any more.
func (m *model) Settle(t *rapid.T) {
	if !m.synced {
		return
	}
	m.Flush(t)
	m.FlushNodes(t)
	m.retryAll(t)
	m.allRead(t)
	for volume := range m.volumes {
		wanted, admitted, free := 0, 0, !m.narrowed[volume] && !m.engaged(volume, "") && m.pure(volume)
		for _, r := range m.sorted() {
			if r.Volume != volume {
				continue
			}
			free = free && !r.Deleting && !m.tied(r) && (m.mode(volume) != MultiNode || !m.now.After(r.Created.Add(modelTimeout)))
			wanted++
			if m.ledger.decide(volume, r.Node, m.volumes[volume], m.now) == nil {
				admitted++
			}
		}
		if want := min(wanted, m.mode(volume).limit()); free && admitted != want {
			t.Fatalf("%s is wanted by %d nodes and admitted to %d, want %d", volume, wanted, admitted, want)
		}
	}
}

// allRead: everybody who wants to read a volume for readers may, as soon as no kubelet
// speaks of it where no VolumeAttachment is.
func (m *model) allRead(t *rapid.T) {
	for _, r := range m.sorted() {
		free := m.mode(r.Volume) == Readers && !r.Deleting && m.pure(r.Volume)
		for _, other := range m.nodes {
			free = free && (m.api[r.Volume+"@"+other] != nil || !slices.Contains(m.spoken[other].InUse, r.Volume))
		}
		if err := m.ledger.decide(r.Volume, r.Node, Readers, m.now); free && err != nil {
			t.Fatalf("%s wants to read: %v", r.pair(), err)
		}
	}
}

// engaged says whether the word of another node's kubelet may be more than a wish.
func (m *model) engaged(volume, node string) bool {
	for name, n := range m.spoken {
		pair := volume + "@" + name
		if name != node && slices.Contains(n.InUse, volume) && (!m.wished[pair] || m.tried[pair]) {
			return true
		}
	}
	return false
}

// retryAll: the attacher asks for all, and what it writes down is seen.
func (m *model) retryAll(t *rapid.T) {
	m.askAll()
	for _, r := range m.sorted() {
		if err := m.ledger.decide(r.Volume, r.Node, m.volumes[r.Volume], m.now); errors.Is(err, ErrNotSeen) {
			r.AttachError, r.AttachErrorAt = err.Error(), m.now
			m.write(r)
		}
	}
	m.Flush(t)
}

// tied says whether a rival was made so close to r that clocks cannot order them.
func (m *model) tied(r *record) bool {
	for _, other := range m.api {
		apart := other.Created.Sub(r.Created).Abs()
		if other.Volume == r.Volume && other.Node != r.Node && apart <= modelSkew {
			return true
		}
	}
	return false
}

// compare holds a new process against the one before it; both have seen all.
func (m *model) compare(t *rapid.T, old *Ledger) {
	for volume, mode := range m.volumes {
		for _, node := range m.nodes {
			before, after := kind(old.decide(volume, node, mode, m.now)), kind(m.ledger.decide(volume, node, mode, m.now))
			narrower := look(old.volumes, volume).admits(mode) != mode // by what it granted, and nobody else can know
			if !narrower && !m.same(volume, node, before, after) {
				t.Fatalf("%s to %s: %s before the restart, %s after it", volume, node, before, after)
			}
		}
	}
	m.compareBooks(t, old, sameUse)
}

// compareBooks holds what a process tells, but for its decisions, against the one before it.
func (m *model) compareBooks(t *rapid.T, old *Ledger, same func(was, is Use) bool) {
	for volume := range m.volumes {
		was, err := old.InUse(volume)
		is, err2 := m.ledger.InUse(volume)
		if !slices.EqualFunc(was, is, same) || err != nil || err2 != nil {
			t.Fatalf("%s is in use on %v by the process before, on %v by this one (%v, %v)", volume, was, is, err, err2)
		}
	}
	if was, is := old.Migrations(), m.ledger.Migrations(); !slices.Equal(was, is) {
		t.Fatalf("%v migrate by the process before, %v by this one", was, is)
	}
	was, _ := old.Volumes()
	is, _ := m.ledger.Volumes()
	spread, _ := old.PerNode()
	respread, _ := m.ledger.PerNode()
	if was != is || !cmp.Equal(spread, respread) {
		t.Fatalf("%d volumes, %v by the process before; %d, %v by this one", was, spread, is, respread)
	}
}

// sameUse: of words a restart forgets what they prove.
func sameUse(was, is Use) bool {
	return was.Node == is.Node && (was.Why == is.Why || was.Why.word() && is.Why == MayBeMounted)
}

// same says whether a restart may turn one answer into the other.
func (m *model) same(volume, node, before, after string) bool {
	r := m.api[volume+"@"+node]
	if before == after || r != nil && r.late && before == ErrNotSeen.Error() {
		return true
	}
	if m.edited[volume] || before == ErrUnknown.Error() || after == ErrUnknown.Error() && m.waits(volume, node) {
		return true
	}
	forgotten := r != nil && m.tied(r)
	for name, n := range m.spoken {
		forgotten = forgotten || name != node && slices.Contains(n.InUse, volume)
	}
	return forgotten && strings.HasPrefix(after, "refused") && before != ErrNotSeen.Error()
}

func kind(err error) string {
	var c *ConflictError
	var late *MigrationExpiredError
	switch {
	case err == nil:
		return "admitted"
	case errors.As(err, &c):
		return "refused: " + c.Holder
	case errors.As(err, &late):
		return "expired: " + late.Other
	default:
		return errors.Unwrap(err).Error()
	}
}
