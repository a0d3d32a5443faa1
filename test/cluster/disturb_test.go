//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// A volume that migrates has two attachments and counts once; it may migrate any number of times; a third node is
// refused; and a kill changes none of it, wherever the second attachment or the end of the first one is by then.
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
		second := i.attach(moving, to)
		<-soon(t, 100*time.Millisecond)
		i.restart()
		i.awaitAttached(second)
		s.await(t, "16")
		refused := i.attach(moving, third)
		i.awaitRefused(refused, third, from, to)
		i.detach(refused)
		i.awaitGone(refused)
		i.detach(attachmentName(moving, from))
		<-soon(t, 100*time.Millisecond)
		i.restart()
		i.awaitGone(attachmentName(moving, from))
		s.await(t, "16")
	}
	s.only(t, mark, "16")
}

// Fifty volumes come beside sixteen that stay, and go, all at once, with a kill in the middle of each; and then each goes
// as soon as it has come. That each number was one that the API server had is what every test asserts (verify).
func TestGaugeDuringManyPairs(t *testing.T) {
	const pairs = 50
	i := newInstallation(t)
	_, nodes, s := i.attachSixteen()
	volumes := i.claimsNamed("pair", pairs)
	coming := make([]string, pairs)
	come := func(k int) { coming[k] = i.attach(volumes[k], nodes[k%len(nodes)]) }
	i.amid(pairs, come)
	i.awaitAttached(coming...)
	s.await(t, "66")
	i.amid(pairs, func(k int) { i.detach(coming[k]) })
	i.awaitGone(coming...)
	s.await(t, "16")

	detached := map[string]bool{}
	detach := func(name string) (gone bool) {
		if isAttached(name) && !detached[name] {
			i.detach(name)
			detached[name] = true
		}
		return detached[name] && isGone(name)
	}
	i.amid(pairs, func(k int) {
		come(k)
		for _, name := range coming[:k] {
			detach(name)
		}
	})
	seen.until(t, "all pairs are attached and detached again", func() error {
		left := 0
		for _, name := range coming {
			if !detach(name) {
				left++
			}
		}
		if left > 0 {
			return fmt.Errorf("%w: %d", errStill, left)
		}
		return nil
	})
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

// While the API server itself is away, or does not answer, the controller goes on with what it knows for as long as its
// Lease is good. Then it ends itself: another one may lead. Started again, it knows nothing until the API server is back.
func TestAPIServerGoneForAWhile(t *testing.T) {
	const outage, lease = 25 * time.Second, 15 * time.Second // lease: leaseDuration in internal/kube
	i := newInstallation(t, unsupervised)
	_, _, s := i.attachSixteen()
	mark := s.mark()
	i.awaitRenewed()
	i.must(plane.APIServer().Pause())
	s.forAWhile()
	i.must(plane.APIServer().Resume())
	s.await(t, "16")

	i.awaitRenewed()
	down := time.Now()
	plane.APIServer().Kill() // asked to end it would answer on for a while
	s.forAWhile()
	if record := s.from(mark); says(record, absent) || says(record, refused) {
		t.Errorf("the number was lost although the controller ran all the time: %v", record)
	}
	i.awaitLeadershipLost()
	i.startController()
	s.await(t, absent)
	for time.Since(down) < outage {
		s.awaitMore(t, 10)
	}
	for _, stretch := range s.from(mark) {
		if number(stretch) && stretch.asked.After(down.Add(lease)) {
			t.Errorf("a number when another one may lead, or nothing is known: %v", stretch)
		}
	}
	i.must(plane.StartAPIServer(t.Context()))
	s.await(t, "16")
	s.only(t, mark, "16")
}

// awaitLeadershipLost waits until the controller has ended itself.
func (r *replica) awaitLeadershipLost() {
	t := r.of.t
	t.Helper()
	select {
	case <-r.controller.Done():
	case <-time.After(patience):
		t.Fatal("the controller goes on without its Lease")
	}
	log, err := os.ReadFile(r.controller.Log)
	r.of.must(err)
	if !strings.Contains(string(log), "leadership lost") {
		t.Errorf("%v, and not because of the Lease", r.controller.Err())
	}
}

// Half a second for every piece of data, in each direction: lists come late, and the gauge with them.
func TestSlowAPIServer(t *testing.T) {
	i := newInstallation(t)
	volumes, nodes, s := i.attachSixteen()
	mark := s.mark()
	i.api.Slow(500 * time.Millisecond)
	i.restart()
	<-soon(t, 5*time.Second) // it takes that long to know
	i.restart()
	s.await(t, absent)
	s.await(t, "16")
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
	s.lag = patience
	i.forgetfulAPIServer()
	s.await(t, "16")
	i.awaitRenewed() // it lasts through what follows
	mark := s.mark()
	i.api.Down()
	gone := make([]string, 3) // the attacher works on: it has its own way to the API server
	for k := range gone {
		gone[k] = attachmentName(volumes[k], nodes[k%len(nodes)])
		i.detach(gone[k])
	}
	i.awaitGone(gone...)
	i.must(plane.Compact(t.Context()))
	s.only(t, mark, "16")
	mark = s.mark()
	since := time.Now()
	i.api.Up()
	s.await(t, "13")
	s.only(t, mark, "16", "13")
	i.mustHaveBeenGone(since)

	mark = s.mark()
	i.awaitAttached(i.attach(volumes[0], nodes[1])) // and it decides again
	s.await(t, "14")
	s.only(t, mark, "13", "14")
}

// forgetfulAPIServer starts the API server anew, for this test, without its memory of past events of VolumeAttachments: what
// etcd has compacted is gone then. A restart alone empties that memory as well, but would have to fall into the time for
// which the controller, cut off, is good by its Lease.
func (i *installation) forgetfulAPIServer() {
	i.t.Helper()
	again := func(flags ...string) {
		plane.APIServer().Kill() // asked to end it would answer on for a while
		i.must(plane.StartAPIServer(background(), flags...))
	}
	i.t.Cleanup(func() { again() })
	again("--watch-cache-sizes=volumeattachments.storage.k8s.io#0")
}

// awaitRenewed waits until the leader renews its Lease from now on.
func (i *installation) awaitRenewed() {
	i.t.Helper()
	since := time.Now()
	i.poll("the Lease is renewed", i.controller, func(ctx context.Context) error {
		lease, err := plane.Admin.CoordinationV1().Leases(i.namespace).Get(ctx, i.driver+"-controller", metav1.GetOptions{})
		if err == nil && (lease.Spec.RenewTime == nil || !lease.Spec.RenewTime.After(since)) {
			err = fmt.Errorf("not since %s", lease.Spec.RenewTime)
		}
		return err
	})
}

// mustHaveBeenGone asserts that the controller wanted to go on from a version that is gone, and then listed the
// VolumeAttachments anew.
//
// A watch from such a version is answered 200, and the 410 comes as its only event, which an audit log has at no level. So
// it is put together: the log has the controller's watch with its version, and has it only because it has ended; whoever
// asks for that version is told 410; and the next thing is a list. Had the cut alone made it list, there were no such
// watch before the list.
func (i *installation) mustHaveBeenGone(since time.Time) {
	i.t.Helper()
	version := ""
	i.poll("the controller has tried to go on and then listed the VolumeAttachments", plane.APIServer(), func(context.Context) (err error) {
		version, err = i.listedAfter(since) // the log may have a request later than its answer was read
		return err
	})
	i.mustBeGone(version)
}

var errNotListed = errors.New("it has not")

// listedAfter is the version from which the controller wanted to go on before it listed the VolumeAttachments.
func (i *installation) listedAfter(since time.Time) (version string, err error) {
	i.t.Helper()
	all, err := plane.Requests()
	i.must(err)
	var asked []string
	for _, r := range all {
		ours := strings.HasSuffix(r.User, ":"+i.chart.account) && strings.HasPrefix(r.Agent, "rds-csi")
		if !ours || !r.Received.After(since) || r.Resource != "volumeattachments" {
			continue
		}
		asked = append(asked, fmt.Sprintf("%s: %s (%d)", r.Received.Format(time.StampMilli), r.URI, r.Code))
		uri, err := url.Parse(r.URI)
		i.must(err)
		switch {
		case r.Verb == "watch" && version == "":
			version = uri.Query().Get("resourceVersion")
		case r.Verb == "list" && version != "" && r.Code == http.StatusOK:
			return version, nil
		}
	}
	return "", fmt.Errorf("%w: %v", errNotListed, asked)
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
