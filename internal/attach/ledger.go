package attach

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// defaultClockSkew: the clocks of a control plane with a time service differ by
// milliseconds, but even those can turn two stamps of whole seconds around.
// Ten seconds cost nothing: two VolumeAttachments of one single-node volume are
// not made within them unless something is wrong already.
const defaultClockSkew = 10 * time.Second

// unknown is the counter's value before the first Replace.
const unknown = -1

// Options of a Ledger; the zero value is right for production.
type Options struct {
	// ClockSkew is how far the clocks of the API servers may be apart. Zero
	// means ten seconds.
	ClockSkew time.Duration
}

// Ledger answers who may have which volume. It is safe for concurrent use.
type Ledger struct {
	skew       time.Duration
	standalone bool
	name       string                         // of this ledger, unlike that of any other process
	count      atomic.Int64                   // volumes with an attached VolumeAttachment, or unknown
	spread     atomic.Pointer[map[string]int] // the same by node; a map is never changed once it is here
	changed    chan struct{}

	mu         sync.Mutex
	known      bool // VolumeAttachments were listed
	nodesKnown bool // Nodes were listed
	listening  bool // since the last list of Nodes, no word came unseen
	asked      bool // since the last list of VolumeAttachments, nobody else was asked for admissions
	arrivals   int  // events and lists so far
	ended      int  // unpublishes so far
	volumes    map[string]*volume
	byUID      map[string]string // UID of a VolumeAttachment -> its volume
	nodes      map[string]known
	heard      time.Time           // when the watch of Nodes last gave anything; zero: nobody tells
	fading     map[place]time.Time // what may be forgotten of nodes, and since when
	limits     map[string]int      // how many volumes a node can hold; who is not there is not limited
	freed      map[string]struct{} // standalone: volumes that were on no node once, so that this process knows all of theirs

	// Sums over volumes, kept by change.
	attached int
	perNode  map[string]int
	pending  map[string]int      // volumes admitted and not attached yet, by node
	respread bool                // perNode is not what spread shows
	moving   map[string]struct{} // volumes that migrate
}

// NewLedger makes a ledger that knows nothing, and admits nothing, until the
// first Replace and the first ReplaceNodes.
func NewLedger(o Options) *Ledger {
	l := &Ledger{
		skew: o.ClockSkew, name: rand.Text()[:12], changed: make(chan struct{}, 1),
		volumes: map[string]*volume{}, byUID: map[string]string{}, nodes: map[string]known{},
		perNode: map[string]int{}, pending: map[string]int{}, moving: map[string]struct{}{}, fading: map[place]time.Time{}, freed: map[string]struct{}{},
	}
	if l.skew <= 0 {
		l.skew = defaultClockSkew
	}
	l.count.Store(unknown)
	return l
}

// Standalone makes the ledger of a controller without Kubernetes. It has no
// authority to be rebuilt from: it knows only what this process admitted, so it
// counts nothing, and a restart forgets.
func Standalone() *Ledger {
	l := NewLedger(Options{})
	l.standalone, l.known, l.nodesKnown = true, true, true
	return l
}

// Replace makes the ledger exactly what the authority listed. Intents survive
// where the list still holds a VolumeAttachment for them.
func (l *Ledger) Replace(list []Attachment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivals++
	now := make([]held, 0, len(list))
	for _, a := range list {
		h := l.remember(a)
		h.early = h.early || !l.asked && h.waits()
		now = append(now, h)
	}
	old := l.volumes
	if len(l.moving) > 0 {
		l.signal()
	}
	l.volumes, l.byUID, l.attached = make(map[string]*volume, len(list)), make(map[string]string, len(list)), 0
	l.perNode, l.pending, l.respread, l.moving = map[string]int{}, map[string]int{}, true, map[string]struct{}{}
	for handle, v := range old {
		if len(v.uses) > 0 {
			l.at(handle).uses = v.uses
		}
	}
	for _, h := range now {
		l.put(h)
	}
	for handle, v := range old {
		l.inherit(handle, v.intents)
	}
	for handle, v := range old {
		for _, u := range v.uses {
			l.fade(handle, u.node)
		}
	}
	l.known, l.asked = true, true
	l.publish()
}

// Upsert applies one added or changed VolumeAttachment.
func (l *Ledger) Upsert(a Attachment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivals++
	l.put(l.remember(a))
	l.publish()
}

// Remove applies that the VolumeAttachment is gone; an unknown one is no news.
func (l *Ledger) Remove(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(uid)
	l.publish()
}

// Publish decides whether the volume may go to the node. On nil the admission
// is recorded until Unpublish, Abandon or the end of the VolumeAttachment.
// Asked again for what it admitted, it admits again, as long as no clock is
// further off than Options.ClockSkew, and a migration's time is not over. What it
// grants is for the VolumeAttachment to keep; of one that is attached already that is
// what it keeps, whatever is asked now.
func (l *Ledger) Publish(handle, node string, mode Mode, now time.Time) (Grant, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ask(handle, node)
	if err := l.decide(handle, node, mode, now); err != nil {
		return 0, err
	}
	var granted Grant
	l.change(handle, node, func(v *volume) {
		granted = v.grant(node, mode)
		if m, told := granted.Mode(); told {
			mode = m
		}
		v.intend(intent{node: node, mode: mode, since: now, first: v.unused(node)})
		if !l.standalone {
			v.possess(node)
		}
	})
	return granted, nil
}

// ask: a node is asked for, so nothing that it was granted before is on its way.
func (l *Ledger) ask(handle, node string) { look(l.volumes, handle).asked(node) }

// Abandon takes an admission back: the publish failed after it, for certain, and
// no earlier one was answered with a yes.
func (l *Ledger) Abandon(handle, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(handle, node, func(v *volume) { v.undo(node) })
}

// Unpublish ends an admission, on every node when node is empty. It succeeds
// for what it does not know. A VolumeAttachment that is still there goes on
// being in the way of others, but gives its own node no right any more.
func (l *Ledger) Unpublish(volume, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended++
	if l.standalone && look(l.volumes, volume).frees(node) {
		l.freed[volume] = struct{}{}
	}
	look(l.volumes, volume).spend(node, l.ended)
	l.release(volume, node)
}

// Known says whether all that decisions rest on was listed.
func (l *Ledger) Known() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known && l.nodesKnown
}

// Nodes names the nodes on which the volume is attached, sorted. Without
// Kubernetes these are the nodes that this process admitted.
func (l *Ledger) Nodes(volume string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return look(l.volumes, volume).nodes(func(h held) bool { return h.Attached }, l.standalone)
}

// Volumes is the number of volumes with at least one attached VolumeAttachment.
// It reads one atomic word: safe and cheap inside a scrape.
func (l *Ledger) Volumes() (n int, known bool) {
	c := l.count.Load()
	return int(max(c, 0)), c != unknown
}

// PerNode is the number of attached volumes of each node that has any. It reads
// one atomic word: safe and cheap inside a scrape. The map must not be changed.
func (l *Ledger) PerNode() (spread map[string]int, known bool) {
	if p := l.spread.Load(); p != nil {
		return *p, true
	}
	return nil, false
}

// Attachments copies the VolumeAttachments, by volume and node: for background
// loops.
func (l *Ledger) Attachments() []Attachment {
	l.mu.Lock()
	list := make([]Attachment, 0, len(l.byUID))
	for _, v := range l.volumes {
		for _, h := range v.held {
			list = append(list, h.Attachment)
		}
	}
	l.mu.Unlock()
	slices.SortFunc(list, func(a, b Attachment) int {
		return cmp.Or(strings.Compare(a.Volume, b.Volume), strings.Compare(a.Node, b.Node), strings.Compare(a.UID, b.UID))
	})
	return list
}

// decide is the rule of the package comment; it changes nothing.
func (l *Ledger) decide(volume, node string, mode Mode, now time.Time) error {
	if !l.known || !l.nodesKnown {
		return fmt.Errorf("volume %s to node %s: %w", volume, node, ErrUnknown)
	}
	v := look(l.volumes, volume)
	own, seen := v.right(node)
	if !seen && !l.standalone {
		return l.notSeen(volume, node, v.spent(node))
	}
	if !own.Attached && l.deaf(now) {
		return fmt.Errorf("volume %s to node %s: %w: the watch of Nodes says nothing since %s, and kubelets may have said something",
			volume, node, ErrUnknown, l.heard.UTC().Format(time.RFC3339))
	}
	if h, early := v.early(node); early && !own.Attached {
		return fmt.Errorf("volume %s to node %s: %w: whether VolumeAttachment %s of node %s was granted before this process began; "+
			"ask again when that one was asked for", volume, node, ErrUnknown, h.Name, h.Node)
	}
	mode = v.admits(v.agree(mode))
	for _, rivals := range v.rivals(own, node, l.skew) {
		if inTheWay := v.refuses(mode, rivals); len(inTheWay) > 0 {
			return conflict(volume, node, inTheWay)
		}
	}
	if late := v.expired(own, now); late != nil && mode == MultiNode {
		late.Volume = volume
		return late
	}
	return l.room(volume, node)
}

// notSeen asks to ask again. When an unpublish is the reason, the answer carries
// its mark: it comes back in the VolumeAttachment that asked.
func (l *Ledger) notSeen(volume, node string, unpublish int) error {
	if unpublish > 0 {
		return fmt.Errorf("volume %s to node %s: %w: the one that is seen was detached %s: ask again",
			volume, node, ErrNotSeen, l.mark(unpublish))
	}
	return fmt.Errorf("volume %s to node %s: %w: ask again; "+
		"if it never comes, the driver's node id is not the name of the Kubernetes node", volume, node, ErrNotSeen)
}

// mark names an unpublish; no other one, of this process or another, has it.
func (l *Ledger) mark(unpublish int) string { return fmt.Sprintf("[%s/%d]", l.name, unpublish) }

// at is the volume's entry, made when missing.
func (l *Ledger) at(handle string) *volume {
	v, ok := l.volumes[handle]
	if !ok {
		v = &volume{}
		l.volumes[handle] = v
	}
	return v
}

// remember joins what the API server says with what this ledger knew of the
// VolumeAttachment, under whichever volume.
func (l *Ledger) remember(a Attachment) held {
	h := held{Attachment: a, arrival: l.arrivals}
	v := look(l.volumes, l.byUID[a.UID])
	if i := v.find(a.UID); i >= 0 {
		old := v.held[i]
		h.arrival, h.spent = old.arrival, old.spent
		h.before = old.Attached && old.Volume == a.Volume && old.Node == a.Node
		h.early = old.early && h.waits() && a.AttachError == old.AttachError && a.AttachErrorAt.Equal(old.AttachErrorAt)
	}
	if h.spent > 0 && h.outlived(l.mark(h.spent)) {
		h.spent = 0
	}
	return h
}

// put adds or replaces one VolumeAttachment.
func (l *Ledger) put(h held) {
	if handle, ok := l.byUID[h.UID]; ok && (handle != h.Volume || look(l.volumes, handle).nodeOf(h.UID) != h.Node) {
		l.drop(h.UID) // its PersistentVolume was resolved since: the stand-in was never on the node
		l.change(handle, h.Node, func(v *volume) { v.unsaid(h.Node) })
	}
	l.byUID[h.UID] = h.Volume
	l.change(h.Volume, h.Node, func(v *volume) { v.put(h) })
}

// drop removes one VolumeAttachment, and the admission that rested on it.
func (l *Ledger) drop(uid string) {
	handle, ok := l.byUID[uid]
	if !ok {
		return
	}
	delete(l.byUID, uid)
	node := look(l.volumes, handle).nodeOf(uid)
	l.change(handle, node, func(v *volume) { v.drop(uid) })
	l.fade(handle, node)
}

// release ends the admission of the node, of all nodes when it is empty.
func (l *Ledger) release(handle, node string) {
	nodes := []string{node}
	if node == "" {
		nodes = look(l.volumes, handle).nodes(func(held) bool { return false }, true)
	}
	for _, node := range nodes {
		l.change(handle, node, func(v *volume) { v.release(node) })
	}
}

// inherit takes over the admissions that still have a VolumeAttachment.
func (l *Ledger) inherit(handle string, intents []intent) {
	for _, i := range intents {
		if look(l.volumes, handle).has(i.node) {
			l.change(handle, i.node, func(v *volume) { v.intents = append(v.intents, i) })
		}
	}
}

// change lets one volume change, at one node, and keeps the sums right.
func (l *Ledger) change(handle, node string, by func(*volume)) {
	v := l.at(handle)
	attached, on, pending, moves := v.attached(), v.attachedOn(node), v.pending(node), v.moves()
	by(v)
	l.attached += step(attached, v.attached())
	if s := step(on, v.attachedOn(node)); s != 0 {
		l.respread = true
		add(l.perNode, node, s)
	}
	if s := step(pending, v.pending(node)); s != 0 {
		add(l.pending, node, s)
	}
	delete(l.moving, handle)
	if v.moves() {
		l.moving[handle] = struct{}{}
		moves = true
	}
	if moves {
		l.signal()
	}
	l.forget(handle)
}

// step is by how much a count of what is so changes.
func step(before, after bool) int {
	switch {
	case after && !before:
		return 1
	case before && !after:
		return -1
	default:
		return 0
	}
}

// forget frees the entry of a volume that nobody has.
func (l *Ledger) forget(handle string) {
	if v, ok := l.volumes[handle]; ok && len(v.held)+len(v.intents)+len(v.uses) == 0 {
		delete(l.volumes, handle)
	}
}

// publish lets scrapes see the numbers: a word each, never torn, never early.
func (l *Ledger) publish() {
	if !l.known || l.standalone {
		return
	}
	l.count.Store(int64(l.attached))
	if l.respread {
		l.respread = false
		spread := maps.Clone(l.perNode)
		l.spread.Store(&spread)
	}
}

// sortedSet sorts and removes duplicates in place.
func sortedSet(nodes []string) []string {
	slices.Sort(nodes)
	return slices.Compact(nodes)
}
