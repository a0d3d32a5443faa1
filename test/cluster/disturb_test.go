//go:build cluster

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// A volume that migrates has two attachments and counts once; it may migrate any number of times; a third node is
// refused; and a kill in the middle changes none of it.
func TestGaugeDuringMigration(t *testing.T) {
	i := newInstallation(t)
	nodes := []string{i.node("a"), i.node("b"), i.node("c")}
	volumes := i.claims(sixteen - 1)
	moving := i.bound(i.makeClaim(i.class+"-moving", raw, shared).Name)
	s := i.scrape()
	made := []string{i.attach(moving, nodes[0])}
	for k, v := range volumes {
		made = append(made, i.attach(v, nodes[k%len(nodes)]))
	}
	i.awaitAttached(made...)
	s.await(t, "16")
	mark := s.mark()
	for round := range 3 {
		from, to, third := nodes[round%3], nodes[(round+1)%3], nodes[(round+2)%3]
		i.awaitAttached(i.attach(moving, to))
		i.restart()
		s.await(t, "16")
		refused := i.attach(moving, third)
		i.awaitRefused(refused, third, from, to)
		i.detach(refused)
		i.awaitGone(refused)
		i.detach(attachmentName(moving, from))
		i.awaitGone(attachmentName(moving, from))
		s.await(t, "16")
	}
	s.only(t, mark, "16")
}

// Fifty volumes come and go at once beside sixteen that stay, with a kill in the middle.
func TestGaugeDuringManyPairs(t *testing.T) {
	const pairs = 50
	i := newInstallation(t)
	_, nodes, s := i.attachSixteen()
	var coming []string
	volumes := i.claimsNamed("pair", pairs)
	for round := range 2 {
		coming = coming[:0]
		for k, v := range volumes {
			coming = append(coming, i.attach(v, nodes[k%len(nodes)]))
		}
		killed, detached := false, map[string]bool{}
		seen.until(t, "all pairs are attached and detached again", func() error {
			left := 0
			for _, name := range coming {
				a, err := seen.attachments.Get(name)
				switch {
				case apierrors.IsNotFound(err) && detached[name]:
					continue
				case err == nil && a.Status.Attached && !detached[name]:
					i.detach(name)
					detached[name] = true
				}
				left++
			}
			if !killed && len(detached) > pairs/2 {
				killed = true
				i.restart()
			}
			if left > 0 {
				return fmt.Errorf("round %d: %w: %d", round, errStill, left)
			}
			return nil
		})
		if !killed {
			t.Error("the kill did not fall into the round")
		}
	}
	s.await(t, "16")
}

// A controller that starts while the API server is away says nothing, decides nothing, stays, and knows as soon as
// the API server is back.
func TestAPIServerDownAtStart(t *testing.T) {
	i := newInstallation(t)
	_, _, s := i.attachSixteen()
	mark := s.mark()
	i.api.Down()
	i.restart()
	s.await(t, absent)
	s.awaitMore(t, 40)
	if err := i.controller.Err(); err != nil {
		t.Fatalf("it did not wait: %v", err)
	}
	if last := s.from(0); last[len(last)-1].said != absent {
		t.Errorf("it says %s while nothing tells it", last[len(last)-1].said)
	}
	i.api.Up()
	s.await(t, "16")
	s.only(t, mark, "16")
}

// While the API server itself is away, or does not answer, the controller goes on with what it knows; a restart in
// that time knows nothing until the API server is back.
func TestAPIServerGoneForAWhile(t *testing.T) {
	i := newInstallation(t)
	_, _, s := i.attachSixteen()
	mark := s.mark()
	i.must(plane.APIServer().Pause())
	s.awaitMore(t, 20)
	i.must(plane.APIServer().Resume())
	s.await(t, "16")

	plane.StopAPIServer()
	s.awaitMore(t, 20)
	if says(s.from(mark), absent) || says(s.from(mark), refused) {
		t.Errorf("the number was lost although the controller ran all the time: %v", s.from(mark))
	}
	i.restart()
	s.await(t, absent)
	i.must(plane.StartAPIServer(t.Context()))
	s.await(t, "16")
	s.only(t, mark, "16")
}

// Half a second for every piece of data, in each direction: lists come late, and the gauge with them.
func TestSlowAPIServer(t *testing.T) {
	i := newInstallation(t)
	volumes, nodes, s := i.attachSixteen()
	mark := s.mark()
	i.api.Slow(500 * time.Millisecond)
	for range 2 {
		i.restart()
		s.await(t, absent)
		s.await(t, "16")
	}
	s.only(t, mark, "16")
	// What it decides it decides late, not wrongly.
	second := i.attach(volumes[0], nodes[1])
	i.awaitRefused(second, nodes[1], nodes[0])
	s.only(t, mark, "16")
}

// The watch is cut, what happens meanwhile is compacted away, and the controller is told 410 Gone when it wants to go
// on from where it was: it lists again, and the number is right without ever having been wrong.
func TestWatchCutAndCompacted(t *testing.T) {
	i := newInstallation(t)
	volumes, nodes, s := i.attachSixteen()
	mark := s.mark()
	before := i.attachmentVersion(attachmentName(volumes[0], nodes[0]))
	i.api.Down()
	for k := range 3 { // the attacher works on: it has its own way to the API server
		name := attachmentName(volumes[k], nodes[k%len(nodes)])
		i.detach(name)
		i.awaitGone(name)
	}
	i.must(plane.Compact(t.Context()))
	plane.StopAPIServer() // its own memory of past events goes with it
	i.must(plane.StartAPIServer(t.Context()))
	i.mustBeGone(before)
	since := time.Now()
	i.api.Up()
	s.await(t, "13")
	s.only(t, mark, "16", "13")
	i.mustHaveListed(since)

	i.awaitAttached(i.attach(volumes[0], nodes[1])) // and it decides again
	s.await(t, "14")
}

func (i *installation) attachmentVersion(name string) string {
	i.t.Helper()
	a, err := plane.Admin.StorageV1().VolumeAttachments().Get(i.t.Context(), name, metav1.GetOptions{})
	i.must(err)
	return a.ResourceVersion
}

// mustBeGone asserts that the API server answers 410 to whoever wants to go on from that version.
func (i *installation) mustBeGone(version string) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), patience)
	defer cancel()
	events, err := plane.Admin.StorageV1().VolumeAttachments().Watch(ctx, metav1.ListOptions{ResourceVersion: version})
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return
	}
	i.must(err)
	defer events.Stop()
	if e := <-events.ResultChan(); e.Type != watch.Error || !apierrors.IsResourceExpired(apierrors.FromObject(e.Object)) {
		i.t.Fatalf("version %s is not gone: %s %v", version, e.Type, e.Object)
	}
}

// mustHaveListed asserts that the controller has asked for all VolumeAttachments anew.
func (i *installation) mustHaveListed(since time.Time) {
	i.t.Helper()
	all, err := plane.Requests()
	i.must(err)
	for _, r := range all {
		ours := strings.HasSuffix(r.User, ":"+i.chart.account) && strings.HasPrefix(r.Agent, "rds-csi")
		if ours && r.Received.After(since) && r.Verb == "list" && r.Resource == "volumeattachments" && r.Code == 200 {
			return
		}
	}
	i.t.Error("the controller has not listed the VolumeAttachments again")
}

// awaitRefused waits until an attachment was refused in words that name the node that asked and those that have the
// volume, and asserts that it is not attached.
func (i *installation) awaitRefused(attachment, node string, holders ...string) {
	i.t.Helper()
	uid := ""
	seen.until(i.t, attachment+" is refused", func() error {
		a, err := seen.attachments.Get(attachment)
		if err != nil {
			return err
		}
		if uid = string(a.UID); a.Status.Attached {
			i.t.Fatalf("%s is attached: one too many", attachment)
		}
		return refusedFor(a, node, holders...)
	})
	if at := seen.attachedAt(attachment, uid); !at.IsZero() {
		i.t.Errorf("%s was attached at %s", attachment, at.Format(time.StampMilli))
	}
}

func refusedFor(a *storagev1.VolumeAttachment, node string, holders ...string) error {
	switch failure := a.Status.AttachError; {
	case a.Status.Attached:
		return fmt.Errorf("%s is attached", a.Name)
	case failure == nil:
		return fmt.Errorf("%s is not refused yet", a.Name)
	default:
		for _, name := range append(holders, node) {
			if !strings.Contains(failure.Message, name) {
				return fmt.Errorf("%s is refused without naming node %s: %s", a.Name, name, failure.Message)
			}
		}
		return nil
	}
}
