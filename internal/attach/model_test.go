package attach

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The model: an API server with a log of everything it wrote, an attacher that
// works as external-attacher does, kubelets (model_nodes_test.go), and a ledger
// that sees the log late, twice, or through a relist, and may lose its memory at
// any point. Another process stands by with a ledger of its own, and may come to
// lead at any point (model_handover_test.go).
//
// What holds after every step (model_check_test.go):
//   - at most one node (two for MultiNode, any number for Readers) is admitted:
//     publish said yes, and neither was it unpublished nor is its VolumeAttachment
//     gone; of a volume for readers nobody else is admitted who may write, once
//     that is known;
//   - at most as many nodes have the volume mounted, as far as VolumeAttachments
//     and kubelets' words tell, whatever went by force or by hand;
//   - nobody writes beside anybody else, but for raw block that was granted to
//     both as MultiNode, whenever the PersistentVolume is changed
//     (model_grants_test.go);
//   - what is called unused when it is admitted is mounted nowhere, as far as they
//     tell;
//   - the numbers and the migrations are those of the log as far as it was seen;
//     unknown before;
//   - what was admitted is admitted again, as long as the process lives and no
//     deadline passes;
//   - a restarted ledger that has seen all gives the same answer for every pair
//     as the one before it, except that it may refuse what the other admitted
//     when VolumeAttachments were made within the skew, or when a kubelet has the
//     volume in use: what came first is forgotten; and that it does not know of an
//     unpublish that came late, and was meant for a predecessor; a standby that
//     comes to lead may also know the order of a tie, and admit who came first;
//   - when all is seen, a free volume is admitted to as many of those who want it
//     as may have it, if these were made further apart than the skew, whatever
//     kubelets only wish for.

const (
	modelSkew    = 10 * time.Second
	modelTimeout = time.Minute
)

// record is a VolumeAttachment in the API server, with what the attacher did.
type record struct {
	Attachment
	touched     bool  // the attacher has put its finalizer
	unpublished bool  // the attacher has begun to detach
	late        bool  // an unpublish of its predecessor came again
	flight      Grant // the attacher has the yes, and is about to write it down
}

func (r *record) pair() string { return r.Volume + "@" + r.Node }

// entry is one line of the API server's log.
type entry struct {
	a    Attachment
	gone bool
}

type model struct {
	now      time.Time
	uids     int
	api      map[string]*record // by pair, as names are derived from it
	log      []entry
	ledger   *Ledger
	synced   bool
	seen     int // entries of the log that the ledger has seen
	view     map[string]Attachment
	yes      map[string]bool // admitted pairs
	ended    map[string]bool // pairs that were unpublished at some time
	volumes  map[string]Mode
	narrowed map[string]bool // volumes whose PersistentVolume went
	moving   []Migration     // as they were after the last step
	nodes    []string
	standby  process
	kubelets
	grants
}

// newModel is small, and often very small: rivals must meet for anything to go
// wrong.
func newModel(t *rapid.T) *model {
	m := &model{
		now: time.Unix(1_000_000, 0), api: map[string]*record{}, yes: map[string]bool{}, ended: map[string]bool{},
		view: map[string]Attachment{}, narrowed: map[string]bool{},
		nodes: []string{"a", "b", "c"}[:rapid.IntRange(2, 3).Draw(t, "nodes")],
		volumes: rapid.SampledFrom([]map[string]Mode{
			{"single": SingleNode}, {"multi": MultiNode}, {"single": SingleNode, "multi": MultiNode}, {"readers": Readers},
		}).Draw(t, "volumes"),
	}
	m.ledger, m.standby = NewLedger(Options{ClockSkew: modelSkew}), newProcess()
	m.kubelets = newKubelets(m.nodes)
	m.grants = newGrants(t, m.volumes)
	return m
}

func (m *model) write(r *record) { m.log = append(m.log, entry{a: r.Attachment}) }
func (m *model) erase(r *record) { m.end(r); m.log = append(m.log, entry{a: r.Attachment, gone: true}) }
func (m *model) end(r *record) {
	delete(m.api, r.pair())
	delete(m.yes, r.pair())
	delete(m.holds, r.pair())
}

// pick draws one of the records that fit, or nil.
func (m *model) pick(t *rapid.T, fits func(*record) bool) *record {
	var keys []string
	for k, r := range m.api {
		if fits(r) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	return m.api[rapid.SampledFrom(keys).Draw(t, "attachment")]
}

// Create: the attach/detach controller (or a hand: it makes rivals too) wants it.
func (m *model) Create(t *rapid.T) {
	node, volume := m.draw(t)
	m.create(t, node, volume)
}

func (m *model) create(t *rapid.T, node, volume string) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms later")) * time.Millisecond)
	clock := time.Duration(rapid.IntRange(-4_500, 4_500).Draw(t, "clock off by ms")) * time.Millisecond
	if m.api[volume+"@"+node] != nil {
		return
	}
	m.uids++
	r := &record{Attachment: Attachment{
		UID: fmt.Sprint(m.uids), Name: volume + "@" + node, Volume: volume, Node: node,
		Created: m.now.Add(clock).Truncate(time.Second), Mode: m.mode(volume), MigrationTimeout: modelTimeout,
	}}
	m.api[r.pair()] = r
	m.write(r)
}

// Publish: the attacher asks, maybe not knowing yet of a deletion. It may ask for
// more than the PersistentVolume allows, or for less.
func (m *model) Publish(t *rapid.T) {
	if r := m.pick(t, func(r *record) bool { return !r.unpublished }); r != nil {
		m.publish(t, r, "attached", "reply lost", "reply late", "failed")
	}
}

func (m *model) publish(t *rapid.T, r *record, ends ...string) {
	r.touched, r.flight = true, 0
	mode := rapid.SampledFrom([]Mode{m.volumes[r.Volume], MultiNode, SingleNode, Readers}).Draw(t, "asked as")
	unused := m.ledger.Unused(r.Volume, r.Node)
	granted, err := m.ledger.Publish(r.Volume, r.Node, mode, m.now)
	if !m.synced && !errors.Is(err, ErrUnknown) {
		t.Fatalf("unknown ledger answered %v", err)
	}
	if err != nil {
		m.refused(r)
		m.complain(t, r, err)
		return
	}
	if m.deaf() && !m.attached(r.pair()) {
		t.Fatalf("%s is admitted to %s, and nothing was heard of Nodes for %s", r.Volume, r.Node, m.now.Sub(m.heardAt))
	}
	if m.overdue(r.Volume, r.Node) {
		t.Fatalf("%s is admitted to %s past the deadline of its migration", r.Volume, r.Node)
	}
	if unused {
		m.checkUnused(t, r.Volume)
	}
	was, held := m.yes[r.pair()], m.holds[r.pair()]
	m.yes[r.pair()], m.tried[r.pair()], m.holds[r.pair()] = true, true, granted
	switch rapid.SampledFrom(ends).Draw(t, "then") {
	case "attached":
		m.attach(r, granted)
	case "reply late":
		if !r.Attached {
			r.flight = granted
		}
	case "failed":
		if !was {
			m.ledger.Abandon(r.Volume, r.Node)
			delete(m.yes, r.pair())
		}
		if m.holds[r.pair()] = held; held == 0 {
			delete(m.holds, r.pair())
		}
	}
}

// attached says whether the ledger knows the pair as attached.
func (m *model) attached(pair string) bool {
	for _, a := range m.view {
		if a.Attached && a.Volume+"@"+a.Node == pair {
			return true
		}
	}
	return false
}

// Narrow: the PersistentVolume of a volume is gone, and with it the proof that
// several nodes may have it.
func (m *model) Narrow(t *rapid.T) {
	volume := rapid.SampledFrom(slices.Sorted(maps.Keys(m.volumes))).Draw(t, "volume")
	if m.mode(volume) == SingleNode || rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
		return
	}
	m.narrowed[volume] = true
	for _, r := range m.sorted() {
		if r.Volume == volume {
			r.Mode = SingleNode
			m.write(r)
		}
	}
}

// mode is what PersistentVolumes say, as far as it is seen; volumes has what they
// said at first.
func (m *model) mode(volume string) Mode {
	if m.narrowed[volume] {
		return SingleNode
	}
	return m.told[volume]
}

// Wait: time goes by, and migrations with it.
func (m *model) Wait(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.SampledFrom([]int{1, 20, 45, 90, 200}).Draw(t, "seconds")) * time.Second)
}

// complain: the attacher writes the answer down, by the name: into what is there.
func (m *model) complain(t *rapid.T, r *record, err error) {
	if rapid.Bool().Draw(t, "attachError") {
		r.AttachError, r.AttachErrorAt = err.Error(), m.now
		m.write(r)
	}
}

// LateUnpublish repeats a detach whose VolumeAttachment is gone, and was made again.
func (m *model) LateUnpublish(t *rapid.T) {
	if r := m.pick(t, func(r *record) bool { return m.ended[r.pair()] && !r.unpublished }); r != nil {
		r.late = true
		m.ledger.Unpublish(r.Volume, r.Node)
	}
}

// Delete: nobody wants it any more. Without the attacher's finalizer it is gone
// at once; the package comment says why that must have been seen (Flush).
func (m *model) Delete(t *rapid.T) {
	r := m.pick(t, func(r *record) bool { return !r.Deleting && !m.word(r.Node, r.Volume) })
	if r == nil {
		return
	}
	if !r.touched {
		m.erase(r)
		m.Flush(t)
		return
	}
	r.Deleting = true
	m.write(r)
}

// Unpublish: the attacher detaches, once or again, and then lets it go.
func (m *model) Unpublish(t *rapid.T) {
	r := m.pick(t, func(r *record) bool { return r.Deleting })
	if r == nil {
		return
	}
	m.unpublish(r)
	if rapid.Bool().Draw(t, "finalizer removed") {
		m.erase(r)
	}
}

// unpublish comes after the ledger has seen what was published: the attacher
// asked for that first, and was refused until then.
func (m *model) unpublish(r *record) {
	if !r.unpublished {
		m.seeUntil(func() bool { _, ok := m.view[r.UID]; return ok })
	}
	r.unpublished, r.flight, m.ended[r.pair()] = true, 0, true
	m.ledger.Unpublish(r.Volume, r.Node)
	delete(m.yes, r.pair())
	delete(m.holds, r.pair())
}

// Detach is a whole detach that the ledger's watch is late to see.
func (m *model) Detach(t *rapid.T) {
	if r := m.pick(t, func(r *record) bool { return r.touched && !m.word(r.Node, r.Volume) }); r != nil {
		m.detach(r)
	}
}

// Force is the attach/detach controller's forced detach: kubelet was not asked, and
// has been silent for six minutes.
func (m *model) Force(t *rapid.T) {
	r := m.pick(t, func(r *record) bool { return r.touched })
	if r != nil {
		m.forced[r.pair()] = true
		m.blind(t, func() { m.detach(r) })
	}
}

// blind lets something happen that only words tell of: the ledger has seen all
// before, or its watches were cut, and what was in between it never sees.
func (m *model) blind(t *rapid.T, happens func()) {
	if m.synced && rapid.Bool().Draw(t, "watches are cut") {
		happens()
		m.listNodes(t, len(m.words))
		m.list(t, len(m.log))
		return
	}
	m.Flush(t)
	m.FlushNodes(t)
	happens()
	m.Flush(t)
}

func (m *model) detach(r *record) {
	r.Deleting = true
	m.write(r)
	m.unpublish(r)
	m.erase(r)
}

// ByHand removes a finalizer without any detach, from what was not made just now.
func (m *model) ByHand(t *rapid.T) {
	if r := m.pick(t, func(*record) bool { return true }); r != nil {
		m.forced[r.pair()] = true
		m.blind(t, func() { m.erase(r) })
	}
}

// Deliver lets the ledger see some more of the log, some entries twice.
func (m *model) Deliver(t *rapid.T) {
	twice := rapid.Bool().Draw(t, "twice")
	for range rapid.IntRange(1, 5).Draw(t, "entries") {
		if m.synced && m.seen < len(m.log) {
			m.see()
			if twice {
				m.apply(m.log[m.seen-1])
			}
		}
	}
}

// Flush lets the ledger see all there is.
func (m *model) Flush(*rapid.T) {
	m.seeUntil(func() bool { return false })
}

func (m *model) seeUntil(done func() bool) {
	for m.synced && m.seen < len(m.log) && !done() {
		m.see()
	}
}

func (m *model) see() {
	e := m.log[m.seen]
	m.seen++
	m.apply(e)
	m.possess(e.a, e.gone)
	replay(m.view, e)
}

// possess: what this process sees attached for the first time may be mounted from then on, whoever asked for it.
func (m *model) possess(a Attachment, gone bool) {
	if a.Attached && !gone && (!m.synced || !m.view[a.UID].Attached) {
		m.tried[a.Volume+"@"+a.Node] = true
	}
}

func (m *model) apply(e entry) {
	if e.gone {
		m.ledger.Remove(e.a.UID)
		return
	}
	m.ledger.Upsert(e.a)
}

func replay(view map[string]Attachment, e entry) {
	if e.gone {
		delete(view, e.a.UID)
		return
	}
	view[e.a.UID] = e.a
}

// Relist replaces the ledger's content by a list that is not older than what it
// has seen (410 Gone, a cut watch).
func (m *model) Relist(t *rapid.T) {
	if m.synced {
		m.list(t, rapid.IntRange(m.seen, len(m.log)).Draw(t, "list at"))
	}
}

// Sync are the first lists of a process: consistent reads.
func (m *model) Sync(t *rapid.T) {
	if m.synced {
		return
	}
	if rapid.Bool().Draw(t, "nodes first") {
		m.listNodes(t, len(m.words))
		m.list(t, len(m.log))
	} else {
		m.list(t, len(m.log))
		m.listNodes(t, len(m.words))
	}
	m.synced = true
}

func (m *model) list(t *rapid.T, upTo int) {
	m.seen = upTo
	view := map[string]Attachment{}
	for _, e := range m.log[:upTo] {
		replay(view, e)
	}
	list := slices.Collect(maps.Values(view))
	for _, a := range list {
		m.possess(a, false)
	}
	m.view = view
	slices.SortFunc(list, func(a, b Attachment) int { return strings.Compare(a.UID, b.UID) })
	m.ledger.Replace(rapid.Permutation(list).Draw(t, "list order"))
}

// Restart loses the process's memory; nothing that was refused may be admitted.
func (m *model) Restart(t *rapid.T) {
	if !m.synced {
		return
	}
	m.Flush(t)
	m.FlushNodes(t)
	old := m.ledger
	m.ledger, m.synced, m.moving = NewLedger(Options{ClockSkew: modelSkew}), false, nil
	m.forget()
	m.Check(t)
	if rapid.Bool().Draw(t, "API server is down") {
		return
	}
	m.Sync(t)
	if rapid.Bool().Draw(t, "all are asked for") {
		m.askAll()
	}
	m.compare(t, old)
}

func (m *model) sorted() []*record {
	return slices.SortedFunc(maps.Values(m.api), func(a, b *record) int { return strings.Compare(a.UID, b.UID) })
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(map[string]func(*rapid.T){
			"": m.Check, "create": m.Create, "publish": m.Publish, "publish again": m.Publish, "delete": m.Delete,
			"unpublish": m.Unpublish, "detach": m.Detach, "by hand": m.ByHand, "deliver": m.Deliver, "flush": m.Flush,
			"relist": m.Relist, "sync": m.Sync, "restart": m.Restart, "hand over": m.HandOver, "standby": m.Standby, "settle": m.Settle,
			"late unpublish": m.LateUnpublish, "force": m.Force, "narrow": m.Narrow, "wait": m.Wait,
			"run": m.Run, "run another": m.Run, "pod": m.Pod, "mount": m.Mount, "mount more": m.Mount, "pod gone": m.PodGone, "node": m.Node, "admin": m.Admin,
			"kubelet restart": m.KubeletRestart, "scale down": m.ScaleDown,
			"deliver words": m.DeliverWords, "relist nodes": m.RelistNodes,
			"edit": m.Edit, "tell": m.Tell, "land": m.Land, "fail": m.Fail,
		})
	})
}
