//go:build cluster

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// reconciled sets how the driver and the attacher look after what is attached: the one looks every few seconds, and forgets
// what it found when it could not for three times as long.
func reconciled(grace, attacher string) func(*installation, values) {
	return func(i *installation, v values) {
		v["config"].(map[string]any)["reconcile"] = map[string]any{"interval": "5s", "grace": grace}
		i.flags = map[string][]string{"csi-attacher": {"--reconcile-sync=" + attacher}}
	}
}

// Kubernetes' attacher asks ListVolumes which nodes have which volumes. Of an attached volume that is not exported the
// answer is none, so it publishes it again, and that exports it: all without the driver's own repair, which waits an hour
// here, and without anybody having seen the volume detached.
func TestAttacherExportsAgain(t *testing.T) {
	t.Parallel()
	i := newInstallation(t, reconciled("1h", "5s"))
	volume := i.claims(1)[0]
	held := i.attach(volume, i.node("node"))
	i.awaitAttached(held)
	f := i.follow()
	f.from(t, gauge, "1")

	i.console("rds", `/disk set [find slot="`+slotOf(volume)+`"] nvme-tcp-export=no`)
	i.awaitExported(volume)
	i.awaitEvent("PersistentVolumeClaim", volume.Spec.ClaimRef.Name, corev1.EventTypeNormal, "VolumeRepaired", "export")
	f.await(t, gauge, "1")
	f.only(t, gauge, "1")
	f.only(t, repairs("ok"), "0")
	f.only(t, drift("export_lost"), "0")
	if was := i.detachedFor(held); was {
		t.Errorf("%s was not attached for a while", held)
	}
}

// Detach of what is not there any more: the Node, and then the disk item. Kubernetes gets its VolumeAttachment back each
// time, and the gauge goes down.
func TestDetachOfWhatVanished(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	node, other := i.node("node"), i.node("other")
	volumes := i.claims(2)
	lost, gone := i.attach(volumes[0], node), i.attach(volumes[1], other)
	i.awaitAttached(lost, gone)
	f := i.follow()
	f.from(t, gauge, "2")

	i.dropNode(node)
	i.detach(lost)
	i.awaitGone(lost)
	f.await(t, gauge, "1")
	i.awaitAttached(i.attach(volumes[0], other)) // it is free
	f.await(t, gauge, "2")

	i.console("rds", `/disk remove [find slot="`+slotOf(volumes[1])+`"]`)
	i.detach(gone)
	i.awaitGone(gone)
	f.await(t, gauge, "1")
	if said := f.numbers(gauge); !slices.Equal(said, []string{"2", "1", "2", "1"}) {
		t.Errorf("the gauge said %v", said)
	}
}

// The administrator says that a machine is off while the controller is not there: Kubernetes asks to detach, nobody
// answers, and the next controller does, for it knows who has the volume.
func TestOutOfServiceDuringRestart(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	first, second := i.node("first"), i.node("second")
	claim := i.makeClaim(i.class).Name
	volume := i.bound(claim)
	i.runPod("one", first, claim)
	held := i.awaitAttachmentOf(volume, first)
	i.awaitAttached(held)
	i.inUse(first, volume)
	f := i.follow()
	f.await(t, gauge, "1")

	i.controller.Kill()
	i.setReady(first, corev1.ConditionFalse)
	i.outOfService(first)
	i.killPod("one")
	i.runPod("two", second, claim)
	seen.until(t, "Kubernetes asks to detach", func() error {
		a, err := seen.attachments.Get(held)
		if err == nil && a.DeletionTimestamp == nil {
			err = fmt.Errorf("%s is wanted still", held)
		}
		return err
	})
	i.startController()
	i.awaitGone(held)
	i.awaitAttached(i.awaitAttachmentOf(volume, second))
	f.await(t, gauge, "1")
	f.only(t, gauge, "0", "1")
}

func slotOf(v *corev1.PersistentVolume) string {
	_, slot, _ := strings.Cut(v.Spec.CSI.VolumeHandle, "/")
	return slot
}

// awaitExported waits until the RDS says that it exports a volume.
func (i *installation) awaitExported(v *corev1.PersistentVolume) {
	i.t.Helper()
	i.poll("volume "+v.Name+" is exported", i.controller, func(context.Context) error {
		if said := i.ask("rds", `:put [/disk get [find slot="`+slotOf(v)+`"] nvme-tcp-export]`); said != "true" && said != "yes" {
			return fmt.Errorf("nvme-tcp-export is %q", said)
		}
		return nil
	})
}

// detachedFor says whether a VolumeAttachment that had been attached was seen as not attached.
func (i *installation) detachedFor(attachment string) (was bool) {
	seen.mu.Lock()
	defer seen.mu.Unlock()
	before := false
	for _, m := range seen.history {
		if m.name == attachment {
			was = was || before && !m.attached
			before = m.attached
		}
	}
	return was
}

func drift(kind string) string { return fmt.Sprintf(`rds_csi_attachment_drift{kind=%q}`, kind) }
func repairs(result string) string {
	return fmt.Sprintf(`rds_csi_repairs_total{kind="export_lost",result=%q}`, result)
}

// follower scrapes the controller all the time, and keeps of every series of the driver what it said, without repeats.
type follower struct {
	mu      sync.Mutex
	record  map[string][]string
	scrapes int
	changed chan struct{} // closed, and made anew, at every scrape
}

// follow begins; it ends with the test.
func (r *replica) follow() *follower {
	ctx, stop := context.WithCancel(context.Background())
	f := &follower{record: map[string][]string{}, changed: make(chan struct{})}
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(scrapeEvery)
		defer tick.Stop()
		for {
			f.note(get(ctx, "http://"+r.address+"/metrics"))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	r.of.t.Cleanup(func() { stop(); ended.Wait() })
	return f
}

func (f *follower) note(status int, body string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := map[string]string{}
	for line := range strings.Lines(body) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "rds_csi_") {
			now[name] = value
		}
	}
	missing := absent
	if err != nil || status != http.StatusOK {
		missing, now = refused, nil
	}
	for name := range f.record {
		if _, said := now[name]; !said {
			f.add(name, missing)
		}
	}
	for name, value := range now {
		f.add(name, value)
	}
	f.scrapes++
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *follower) add(name, said string) {
	if all := f.record[name]; len(all) == 0 || all[len(all)-1] != said {
		f.record[name] = append(all, said)
	}
}

// numbers are what a series said, without the times at which nothing was said.
func (f *follower) numbers(series string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := slices.DeleteFunc(slices.Clone(f.record[series]), func(one string) bool { return one == absent || one == refused })
	return slices.Compact(said)
}

// await waits for a scrape that begins from now on, and in which the series says so.
func (f *follower) await(t *testing.T, series, want string) {
	t.Helper()
	f.mu.Lock()
	from := f.scrapes + 1 // one may be under way
	f.mu.Unlock()
	f.until(t, series+" is "+want, func() error {
		said := append([]string{absent}, f.record[series]...)
		if f.scrapes <= from || said[len(said)-1] != want {
			return fmt.Errorf("it said %v", said)
		}
		return nil
	})
}

// from waits for that too, and forgets what the series said before: the controller hears of an attach a little later than
// the tests.
func (f *follower) from(t *testing.T, series, want string) {
	t.Helper()
	f.await(t, series, want)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record[series] = []string{want}
}

// until asks at every scrape, with the record at hand.
func (f *follower) until(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		f.mu.Lock()
		changed, err := f.changed, check()
		f.mu.Unlock()
		if err == nil {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
	}
}

// only asserts on all numbers that a series ever said, and that there was one.
func (f *follower) only(t *testing.T, series string, allowed ...string) {
	t.Helper()
	said := f.numbers(series)
	other := func(one string) bool { return !slices.Contains(allowed, one) }
	if len(said) == 0 || slices.ContainsFunc(said, other) {
		t.Errorf("%s said %v, allowed are %v", series, said, allowed)
	}
}
