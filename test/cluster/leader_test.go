//go:build cluster

package main

import (
	"testing"
	"time"
)

// Two replicas. Whoever leads says the number and decides; the other says nothing; whatever ends the leader, the next
// one knows what was attached, and at no time do both say a number.
func TestLeaderHandOver(t *testing.T) {
	i := newInstallation(t, unsupervised)
	volumes, nodes, first := i.attachSixteen()
	one, two := i.replica, i.newReplica("-two")
	two.startController()
	two.startSidecars()
	two.awaitNote("standby, controller leads")
	second := two.scrape()
	second.await(t, absent)
	mark := first.mark()

	one.die()
	second.await(t, "16")
	moved := i.attach(volumes[0], nodes[1]) // the new leader knows who has it
	i.awaitRefused(moved, nodes[1], nodes[0])
	second.only(t, 0, "16") // its first word is right
	moving := second.mark()
	i.detach(attachmentName(volumes[0], nodes[0]))
	i.awaitAttached(moved)
	second.await(t, "16")

	one.startController()
	one.startSidecars()
	one.awaitNote("standby, controller-two leads")
	two.controller.Stop() // releases the Lease: no need to wait until it has run out
	for _, s := range two.sidecars {
		s.end()
	}
	first.await(t, "16")

	first.only(t, mark, "16")
	second.only(t, moving, "16", "15")
	notBoth(t, first.from(mark), second.from(0))
}

// A leader that is frozen (a machine that swaps, a virtual machine that is moved) until another one leads says no
// number when it thaws, and ends.
func TestFrozenLeader(t *testing.T) {
	i := newInstallation(t, unsupervised)
	_, _, first := i.attachSixteen()
	first.silentAfter(5 * time.Second)
	one, two := i.replica, i.newReplica("-two")
	two.startController()
	two.awaitReady()
	second := two.scrape()
	second.await(t, absent)
	mark := first.mark()

	i.must(one.controller.Pause())
	second.await(t, "16")
	i.must(one.controller.Resume())
	select {
	case <-one.controller.Done():
	case <-time.After(patience):
		t.Error("the old leader goes on")
	}
	notBoth(t, first.from(mark), second.from(0))
	first.only(t, mark, "16", silent)
	second.only(t, 0, "16")
}

// notBoth asserts that no scrape of one gave a number between two of the other that did.
func notBoth(t *testing.T, a, b []stretch) {
	t.Helper()
	for _, x := range a {
		for _, y := range b {
			if number(x) && number(y) && x.first.Before(y.last) && y.first.Before(x.last) {
				t.Errorf("both say a number: one %v, the other %v", x, y)
			}
		}
	}
}

func number(s stretch) bool { return s.said != absent && s.said != refused && s.said != silent }
