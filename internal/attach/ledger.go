package attach

import (
	"crypto/rand"
	"fmt"
	"slices"
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
	name       string       // of this ledger, unlike that of any other process
	count      atomic.Int64 // volumes with an attached VolumeAttachment, or unknown

	mu       sync.Mutex
	known    bool
	arrivals int // events and lists so far
	ended    int // unpublishes so far
	volumes  map[string]*volume
	byUID    map[string]string // UID of a VolumeAttachment -> its volume
	attached int
}

// NewLedger makes a ledger that knows nothing, and admits nothing, until the
// first Replace.
func NewLedger(o Options) *Ledger {
	l := &Ledger{skew: o.ClockSkew, name: rand.Text()[:12], volumes: map[string]*volume{}, byUID: map[string]string{}}
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
	l.standalone, l.known = true, true
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
		now = append(now, l.remember(a))
	}
	old := l.volumes
	l.volumes, l.byUID, l.attached = make(map[string]*volume, len(list)), make(map[string]string, len(list)), 0
	for _, h := range now {
		l.put(h)
	}
	for handle, v := range old {
		look(l.volumes, handle).inherit(v.intents)
	}
	l.known = true
	l.publishCount()
}

// Upsert applies one added or changed VolumeAttachment.
func (l *Ledger) Upsert(a Attachment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arrivals++
	l.put(l.remember(a))
	l.publishCount()
}

// Remove applies that the VolumeAttachment is gone; an unknown one is no news.
func (l *Ledger) Remove(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(uid)
	l.publishCount()
}

// Publish decides whether the volume may go to the node. On nil the admission
// is recorded until Unpublish, Abandon or the end of the VolumeAttachment.
// Asked again for what it admitted, it admits again, as long as no clock is
// further off than Options.ClockSkew.
func (l *Ledger) Publish(volume, node string, mode Mode) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.decide(volume, node, mode); err != nil {
		return err
	}
	l.at(volume).intend(node)
	return nil
}

// Abandon takes an admission back: the publish failed after it, for certain.
func (l *Ledger) Abandon(volume, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.release(volume, node)
}

// Unpublish ends an admission, on every node when node is empty. It succeeds
// for what it does not know. A VolumeAttachment that is still there goes on
// being in the way of others, but gives its own node no right any more.
func (l *Ledger) Unpublish(volume, node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended++
	look(l.volumes, volume).spend(node, l.ended)
	l.release(volume, node)
}

// InUse names the nodes that have the volume or may get it: those with a
// VolumeAttachment, attached or not, and those admitted. The volume may be
// deleted when there is none.
func (l *Ledger) InUse(volume string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known {
		return nil, fmt.Errorf("volume %s: %w", volume, ErrUnknown)
	}
	return look(l.volumes, volume).nodes(func(held) bool { return true }, true), nil
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

// decide is the rule of the package comment; it changes nothing.
func (l *Ledger) decide(volume, node string, mode Mode) error {
	if !l.known {
		return fmt.Errorf("volume %s to node %s: %w", volume, node, ErrUnknown)
	}
	v := look(l.volumes, volume)
	own, seen := v.right(node)
	if !seen && !l.standalone {
		return l.notSeen(volume, node, v.spent(node))
	}
	if rivals := v.ahead(own, l.skew); len(rivals) >= mode.limit() {
		return conflict(volume, node, rivals)
	}
	if rivals := v.holders(node); len(rivals) >= mode.limit() {
		return conflict(volume, node, rivals)
	}
	return nil
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
		h.arrival, h.spent = v.held[i].arrival, v.held[i].spent
	}
	if h.spent > 0 && h.outlived(l.mark(h.spent)) {
		h.spent = 0
	}
	return h
}

// put adds or replaces one VolumeAttachment.
func (l *Ledger) put(h held) {
	if handle, ok := l.byUID[h.UID]; ok && handle != h.Volume {
		l.drop(h.UID) // its PersistentVolume was resolved since
	}
	l.byUID[h.UID] = h.Volume
	v := l.at(h.Volume)
	before := v.attached()
	v.put(h)
	l.recount(before, v.attached())
}

// drop removes one VolumeAttachment, and the admission that rested on it.
func (l *Ledger) drop(uid string) {
	handle, ok := l.byUID[uid]
	if !ok {
		return
	}
	delete(l.byUID, uid)
	v := l.volumes[handle]
	before := v.attached()
	v.drop(uid)
	l.recount(before, v.attached())
	l.forget(handle)
}

func (l *Ledger) release(handle, node string) {
	look(l.volumes, handle).release(node)
	l.forget(handle)
}

// forget frees the entry of a volume that nobody has.
func (l *Ledger) forget(handle string) {
	if v, ok := l.volumes[handle]; ok && len(v.held) == 0 && len(v.intents) == 0 {
		delete(l.volumes, handle)
	}
}

func (l *Ledger) recount(before, after bool) {
	switch {
	case after && !before:
		l.attached++
	case before && !after:
		l.attached--
	}
}

// publishCount lets scrapes see the number: one word, never torn, never early.
func (l *Ledger) publishCount() {
	if l.known && !l.standalone {
		l.count.Store(int64(l.attached))
	}
}

// sortedSet sorts and removes duplicates in place.
func sortedSet(nodes []string) []string {
	slices.Sort(nodes)
	return slices.Compact(nodes)
}
