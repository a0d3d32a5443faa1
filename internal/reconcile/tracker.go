package reconcile

import (
	"sync/atomic"
	"time"
)

// occurrence is a finding from the look that first had it to the one that has it
// no longer.
type occurrence struct {
	Finding
	first    time.Time   // of the looks that all have it
	met      bool        // the first look of its authority had it: since when it is true nobody knows
	counts   bool        // it has lasted for longer than the grace time
	onNode   bool        // its Node was told
	repaired atomic.Bool // a repair was carried out, well or not; set by the one who repairs
}

// tracker remembers since when each finding is there. It is memory only: its
// authority are the looks, and a new one is right after the grace time. Until then
// it knows of what it does not know the number.
type tracker struct {
	grace time.Duration
	open  map[subject]*occurrence
	since map[string]time.Time // by authority: its first look since it was silent, or since the beginning
}

func newTracker(grace time.Duration) *tracker {
	return &tracker{grace: grace, open: map[subject]*occurrence{}, since: map[string]time.Time{}}
}

// update takes what is true now, by the last look of each authority that is not
// silent, and returns what begins to count with it.
func (t *tracker) update(found []Finding, looks map[string]time.Time) (begun []*occurrence) {
	t.listen(looks)
	now := make(map[subject]*occurrence, len(found))
	for _, f := range found {
		o, known := t.open[f.subject()]
		if !known {
			o = &occurrence{first: f.Seen, met: !f.Seen.After(t.since[f.authority()])}
		}
		o.Finding = f
		now[f.subject()] = o
		if !o.counts && (f.Kind.atOnce() || f.Seen.Sub(o.first) >= t.grace) {
			o.counts = true
			begun = append(begun, o)
		}
	}
	t.open = now
	return begun
}

// listen notes whose first look this is, also after silence: what it has may have
// been true, and counted, long before.
func (t *tracker) listen(looks map[string]time.Time) {
	since := make(map[string]time.Time, len(looks))
	for authority, at := range looks {
		if first, heard := t.since[authority]; heard {
			at = first
		}
		since[authority] = at
	}
	t.since = since
}

// forget begins anew: nobody has looked for a while.
func (t *tracker) forget() {
	clear(t.open)
	clear(t.since)
}

// count is how many findings of those that are asked for count, and whether that is
// all there is to say: not while one that was met does not count yet.
func (t *tracker) count(of func(Finding) bool) (n int, known bool) {
	known = true
	for _, o := range t.open {
		switch {
		case !of(o.Finding):
		case o.counts:
			n++
		case o.met:
			known = false
		}
	}
	return n, known
}
