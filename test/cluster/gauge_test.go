//go:build cluster

package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// sixteen volumes on four nodes, attached by external-attacher, and a scraper that has seen them.
const sixteen = 16

func (i *installation) attachSixteen() (volumes []*corev1.PersistentVolume, nodes []string, s *scraper) {
	i.t.Helper()
	for k := range 4 {
		nodes = append(nodes, i.node(fmt.Sprint("node", k)))
	}
	volumes = i.claims(sixteen)
	s = scrape(i.t, i.address)
	var made []string
	for k, v := range volumes {
		made = append(made, i.attach(v, nodes[k%len(nodes)]))
	}
	i.awaitAttached(made...)
	s.await(i.t, "16")
	return volumes, nodes, s
}

// soon is a random moment: the process is at another place in its start, or in its work, each time.
func soon(most time.Duration) <-chan time.Time {
	return time.After(time.Duration(rand.Int64N(int64(most))))
}

// restart kills the controller without a warning and starts it again.
func (r *replica) restart() {
	r.of.t.Helper()
	r.controller.Kill()
	r.startController()
}

// The case this project started from: however the controller ends, and whenever, the gauge says nothing or the truth.
func TestGaugeSurvivesKills(t *testing.T) {
	i := newInstallation(t)
	_, _, s := i.attachSixteen()
	mark := s.mark()
	for round := range 10 {
		<-soon(time.Second)
		i.restart()
		if round%2 == 0 { // in the odd rounds it is killed again, wherever it is by then
			s.await(t, "16")
		}
	}
	s.await(t, "16")
	s.only(t, mark, "16")
	if !says(s.from(mark), refused) {
		t.Errorf("no scrape fell into any of the restarts: nothing was tested: %v", s.from(mark))
	}
}

// says whether a record has a stretch of that.
func says(record []stretch, what string) bool {
	for _, stretch := range record {
		if stretch.said == what {
			return true
		}
	}
	return false
}

// Detached ones leave the number one by one, and a restart in between brings none back.
func TestGaugeGoesDown(t *testing.T) {
	i := newInstallation(t)
	node := i.node("node")
	volumes := i.claims(3)
	s := scrape(t, i.address)
	var made []string
	for _, v := range volumes {
		made = append(made, i.attach(v, node))
	}
	i.awaitAttached(made...)
	s.await(t, "3")
	for left := 2; left >= 0; left-- {
		mark := s.mark()
		i.detach(made[left])
		i.awaitGone(made[left])
		s.await(t, fmt.Sprint(left))
		i.restart()
		s.await(t, fmt.Sprint(left))
		s.only(t, mark, fmt.Sprint(left), fmt.Sprint(left+1))
	}
}
