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
	counts   bool        // it has lasted for longer than the grace time
	repaired atomic.Bool // a repair was carried out, well or not; set by the one who repairs
}

// tracker remembers since when each finding is there. It is memory only: its
// authority are the looks, and a new one is right after the grace time.
type tracker struct {
	grace time.Duration
	open  map[subject]*occurrence
}

func newTracker(grace time.Duration) *tracker {
	return &tracker{grace: grace, open: map[subject]*occurrence{}}
}

// update takes what is true now, and returns what begins to count with it.
func (t *tracker) update(found []Finding) (begun []*occurrence) {
	now := make(map[subject]*occurrence, len(found))
	for _, f := range found {
		o, known := t.open[f.subject()]
		if !known {
			o = &occurrence{first: f.Seen}
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

// counting is the number of findings of each kind that count.
func (t *tracker) counting() map[Kind]int {
	n := map[Kind]int{}
	for _, o := range t.open {
		if o.counts {
			n[o.Kind]++
		}
	}
	return n
}
