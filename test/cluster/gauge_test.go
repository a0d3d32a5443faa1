//go:build cluster

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/rds-csi/rds-csi/test/prometheus"
)

// sixteen volumes on four nodes, attached by external-attacher, and a scraper that has seen them.
const sixteen = 16

func (i *installation) attachSixteen() (volumes []*corev1.PersistentVolume, nodes []string, s *scraper) {
	i.t.Helper()
	for k := range 4 {
		nodes = append(nodes, i.node(fmt.Sprint("node", k)))
	}
	volumes = i.claims(sixteen)
	s = i.scrape()
	var made []string
	for k, v := range volumes {
		made = append(made, i.attach(v, nodes[k%len(nodes)]))
	}
	i.awaitAttached(made...)
	s.await(i.t, "16")
	return volumes, nodes, s
}

// soon is a random moment: the process is at another place in its start, or in its work, each time. The log of a test that
// fails has it.
func soon(t *testing.T, most time.Duration) <-chan time.Time {
	t.Helper()
	wait := time.Duration(rand.Int64N(int64(most)))
	t.Logf("in %s", wait)
	return time.After(wait)
}

// restart kills the controller without a warning and starts it again.
func (r *replica) restart() {
	r.of.t.Helper()
	r.controller.Kill()
	r.startController()
}

// amid does something to each of n, and restarts the controller at a random moment in the middle of it.
func (i *installation) amid(n int, do func(k int)) {
	i.t.Helper()
	at := 1 + rand.IntN(n-1)
	i.t.Logf("a kill after %d of %d", at, n)
	for k := range n {
		if k == at {
			<-soon(i.t, 30*time.Millisecond) // what was asked for last is under way, or just done
			i.restart()
		}
		do(k)
	}
}

func isAttached(name string) bool {
	a, err := seen.attachments.Get(name)
	return err == nil && a.Status.Attached
}

func isGone(name string) bool {
	_, err := seen.attachments.Get(name)
	return apierrors.IsNotFound(err)
}

// The case this project started from: however the controller ends, and whenever, the gauge says nothing or the truth, to
// us and to a real Prometheus.
func TestGaugeSurvivesKills(t *testing.T) {
	i := newInstallation(t)
	_, _, s := i.attachSixteen()
	recorded := watched(t, i.address)
	mark := s.mark()
	for round := range 10 {
		<-soon(t, time.Second)
		i.restart()
		if round%2 == 0 { // in the odd rounds it is killed again, wherever it is by then
			s.await(t, "16")
		}
	}
	s.await(t, "16")
	// All of these may fall between two scrapes. This one is over when Prometheus has recorded it.
	i.controller.Kill()
	recorded.await(t, `up{job="controller"} == 0`, one)
	s.await(t, refused)
	i.startController()
	s.await(t, "16")
	s.only(t, mark, "16")
	recorded.only(t, sixteen)
}

// watcher is a real Prometheus with the chart's alerts.
type watcher struct {
	server *prometheus.Server
	since  time.Time
}

func watched(t *testing.T, address string) watcher {
	t.Helper()
	s, err := prometheus.Start(context.WithoutCancel(t.Context()), prometheus.Config{
		// Its limit for an answer is as long: on a busy machine 50 ms are too little for one.
		Dir: t.TempDir(), Interval: 4 * scrapeEvery, Jobs: map[string][]string{"controller": {address}},
		Rules: []string{filepath.Join(root, "charts", "rds-csi", "files", "alerts.yaml")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := watcher{server: s, since: time.Now()}
	w.await(t, gauge, one)
	return w
}

func one(got []prometheus.Sample) bool { return len(got) == 1 }

func (w watcher) await(t *testing.T, expr string, wanted func([]prometheus.Sample) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := w.server.Await(ctx, expr, wanted); err != nil {
		t.Fatal(err)
	}
}

// only asserts on all that Prometheus has kept: no other number.
func (w watcher) only(t *testing.T, want float64) {
	t.Helper()
	w.await(t, gauge, func(got []prometheus.Sample) bool { return one(got) && got[0].Value == want })
	w.await(t, "count_over_time("+gauge+"[1h]) >= 5", one)
	kept, err := w.server.Samples(t.Context(), gauge, time.Since(w.since)+time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, sample := range kept {
		if sample.Value != want {
			t.Errorf("Prometheus has %s at %s", sample, sample.Time.Format(time.StampMilli))
		}
	}
	rules, err := w.server.Rules(t.Context())
	for _, r := range rules {
		if r.Health != "ok" {
			t.Errorf("alert %s is %s: %s", r.Name, r.Health, r.LastError)
		}
	}
	if err != nil || len(rules) == 0 {
		t.Errorf("%d rules: %v", len(rules), err)
	}
	t.Logf("Prometheus: %d samples", len(kept))
}

// Detached ones leave the number one by one, and a restart in between brings none back.
func TestGaugeGoesDown(t *testing.T) {
	i := newInstallation(t)
	node := i.node("node")
	volumes := i.claims(3)
	s := i.scrape()
	var made []string
	for _, v := range volumes {
		made = append(made, i.attach(v, node))
	}
	i.awaitAttached(made...)
	s.await(t, "3")
	for left := 2; left >= 0; left-- {
		mark, before, after := s.mark(), fmt.Sprint(left+1), fmt.Sprint(left)
		i.detach(made[left])
		i.awaitGone(made[left])
		s.await(t, after)
		s.only(t, mark, before, after)
		mark = s.mark()
		i.restart()
		s.await(t, after)
		s.only(t, mark, after)
	}
}
