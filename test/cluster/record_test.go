//go:build cluster

package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// The record of what the API server held, and what every scrape of every test is held to. A number may be late, since it
// comes from a watch. It may not be one that was never true, one from before another that was said already, or, of a
// process that was started again, one from before its predecessor ended.

// How far the driver's watch may be from the tests' own on a machine with too much to do, and after the API server was
// restarted, when each of the two connects again after a pause of its own: milliseconds otherwise. A number may be that late
// or early here; it must be one of those that the API server had, in their order, and after a restart none from before. Where
// the moment matters, a test waits for it or allows one number only.
const (
	behind = 20 * time.Second
	ahead  = 10 * time.Second
)

// moment is one state of a VolumeAttachment, and when the tests saw it: the API server had it before.
type moment struct {
	at                   time.Time
	name, uid            string
	driver, volume, node string // volume: of the PersistentVolume
	attached             bool
	nodes                int // that may have the volume at once
}

func (v *view) momentOf(a *storagev1.VolumeAttachment, gone bool) moment {
	m := moment{
		at: time.Now(), name: a.Name, uid: string(a.UID), driver: a.Spec.Attacher, node: a.Spec.NodeName,
		attached: a.Status.Attached && !gone, nodes: math.MaxInt,
	}
	if name := a.Spec.Source.PersistentVolumeName; name != nil {
		m.volume = *name
	}
	if pv, err := v.volumes.Get(m.volume); err == nil {
		m.nodes = nodesFor(pv.Spec.AccessModes)
	}
	return m
}

func nodesFor(modes []corev1.PersistentVolumeAccessMode) int {
	switch {
	case slices.Contains(modes, corev1.ReadWriteMany):
		return 2
	case len(modes) == 1 && modes[0] == corev1.ReadOnlyMany:
		return math.MaxInt
	default:
		return 1
	}
}

// of is what happened to one driver's VolumeAttachments so far.
func (v *view) of(driver string) (all []moment) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.history {
		if m.driver == driver {
			all = append(all, m)
		}
	}
	return all
}

// held is what is attached, by the name of the VolumeAttachment.
type held map[string]moment

// apply is what follows from a moment; new says whether something is attached by it that was not.
func (h held) apply(m moment) (added bool) {
	before, had := h[m.name]
	if !m.attached {
		delete(h, m.name)
		return false
	}
	h[m.name] = m
	return !had || before.uid != m.uid
}

// perNode is how many volumes each node has.
func (h held) perNode() map[string]int {
	pairs := map[[2]string]bool{}
	for _, m := range h {
		pairs[[2]string{m.volume, m.node}] = true
	}
	spread := map[string]int{}
	for pair := range pairs {
		spread[pair[1]]++
	}
	return spread
}

func (h held) volumes() int {
	all := map[string]bool{}
	for _, m := range h {
		all[m.volume] = true
	}
	return len(all)
}

func (h held) nodesOf(volume string) []string {
	all := map[string]bool{}
	for _, m := range h {
		if m.volume == volume {
			all[m.node] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// tooMany says which volumes were ever attached to more nodes at once than may have them.
func (v *view) tooMany(driver string) error {
	var faults []error
	now := held{}
	for _, m := range v.of(driver) {
		if !now.apply(m) {
			continue
		}
		if nodes := now.nodesOf(m.volume); len(nodes) > m.nodes {
			faults = append(faults, fmt.Errorf("volume %s was on %v at %s", m.volume, nodes, m.at.Format(time.StampMilli)))
		}
	}
	return errors.Join(faults...)
}

// truth is what a scrape should show, from a moment on.
type truth struct {
	at             time.Time
	number, spread string
}

func (v *view) truths(driver string) []truth {
	now := held{}
	all := []truth{{number: "0"}}
	for _, m := range v.of(driver) {
		now.apply(m)
		next := truth{m.at, fmt.Sprint(now.volumes()), spreadOf(now.perNode())}
		if last := all[len(all)-1]; last.number != next.number || last.spread != next.spread {
			all = append(all, next)
		}
	}
	return all
}

// spreadOf is a way to write the volumes of each node that makes equal ones equal.
func spreadOf(perNode map[string]int) string {
	words := make([]string, 0, len(perNode))
	for node, n := range perNode {
		words = append(words, fmt.Sprintf("%s=%d", node, n))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// series is one way to look at a record: what a scrape showed, if it did, and what it should have.
type series struct {
	what  string
	shown func(stretch) (string, bool)
	is    func(truth) string
}

// looks are the number, the volumes of each node (whose sum is the number, but for volumes that migrate), and, where
// nothing changed between two scrapes, both at once: they are two words, and a scrape may fall between them.
func looks() []series {
	nodes := func(s stretch) bool { return s.spread != "" || s.said == "0" }
	return []series{
		{gauge, func(s stretch) (string, bool) { return s.said, number(s) }, func(t truth) string { return t.number }},
		{perNode, func(s stretch) (string, bool) { return s.spread, nodes(s) }, func(t truth) string { return t.spread }},
		{
			gauge + " beside " + perNode,
			func(s stretch) (string, bool) {
				return s.said + ": " + s.spread, number(s) && nodes(s) && s.scrapes > 1
			},
			func(t truth) string { return t.number + ": " + t.spread },
		},
	}
}

// faults are the scrapes that showed what was not true. lag is how late a number may be.
func faults(record []stretch, truths []truth, lag time.Duration) error {
	var all []error
	for _, s := range looks() {
		all = append(all, s.faults(record, truths, lag))
	}
	return errors.Join(all...)
}

func (s series) faults(record []stretch, truths []truth, lag time.Duration) error {
	known := func(at time.Time) (n int) { // the last truth of which is known that it was one by then
		for n+1 < len(truths) && !truths[n+1].at.After(at) {
			n++
		}
		return n
	}
	at := 0 // what is shown must not be older than this
	for k, r := range record {
		if k > 0 && r.begins(record[k-1]) {
			at = max(at, known(record[k-1].asked))
		}
		said, shown := s.shown(r)
		if !shown {
			continue
		}
		from, to := known(r.first.Add(ahead)), known(r.last.Add(ahead))
		first, last := s.find(truths, said, at, max(at, from)), s.find(truths, said, max(at, to), at)
		switch {
		case first < 0:
			return fmt.Errorf("%s was %q from %s to %s, and that was not so then, or not any more: %v", s.what, said,
				r.first.Format(time.StampMilli), r.last.Format(time.StampMilli), s.all(truths[at:max(at, from)+1]))
		case last+1 < len(truths) && truths[last+1].at.Before(r.asked.Add(-lag)):
			return fmt.Errorf("%s was still %q at %s, and that was not so since %s", s.what, said,
				r.asked.Format(time.StampMilli), truths[last+1].at.Format(time.StampMilli))
		}
		at = first
	}
	return nil
}

// find is the first truth of a range (the last one, when it is the other way round) that shows so; -1: none does.
func (s series) find(truths []truth, shows string, from, to int) int {
	step := 1
	if from > to {
		step = -1
	}
	for n := from; n != to+step; n += step {
		if s.is(truths[n]) == shows {
			return n
		}
	}
	return -1
}

func (s series) all(truths []truth) (shown []string) {
	for _, t := range truths {
		shown = append(shown, fmt.Sprintf("%s: %q", t.at.Format(time.StampMilli), s.is(t)))
	}
	return shown
}

// verify holds the whole record of a scraper to what the API server had. What the driver saw before the tests' own
// watch is waited for.
func (s *scraper) verify(t *testing.T) {
	t.Helper()
	deadline := time.NewTimer(ahead)
	defer deadline.Stop()
	for {
		changed := seen.change()
		record := s.from(0)
		err := faults(record, seen.truths(s.driver), s.lag)
		if !says(record, silent) {
			err = errors.Join(err, holes(record, s.over))
		}
		if err == nil {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Errorf("%v; the whole record:\n%v", err, record)
			return
		}
	}
}
