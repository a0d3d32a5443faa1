package kube_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/metrics"
)

// The case this project started from, against client-go's fake API server.
func TestSeedCaseOnTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.three()
		c.down(errors.New("the API server is not up yet"))
		unsynced, stop := c.run()
		wantUnknown(t, unsynced)
		stop()
		c.down(nil)

		first, stop := c.run()
		wantCount(t, first, 3)
		target := c.attachment("pv-3", "a", false) // a migration begins
		wantCount(t, first, 3)
		target.Status.Attached = true
		c.update(target)
		wantNodes(t, first, "rds1/v3", "a", "b")
		wantCount(t, first, 3)
		stop()

		second, stop := c.run()
		defer stop()
		wantCount(t, second, 3)
		wantNodes(t, second, "rds1/v3", "a", "b")
		c.deleteAttachment("csi-pv-3-b")
		wantNodes(t, second, "rds1/v3", "a")
		wantCount(t, second, 3)
		c.deleteAttachment("csi-pv-3-a")
		wantCount(t, second, 2)
	})
}

// The same through to the scrape: each instance has a ledger and a registry of
// its own, and only the API server outlives it.
func TestSeedCaseFromTheAPIToTheScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const name = "rds_csi_nvme_connections_active"
		c := newCluster(t)
		c.three()
		for instance := 1; instance <= 2; instance++ {
			c.down(errors.New("the API server is slow to come up"))
			l, stop := c.run()
			registry, err := metrics.NewRegistry(metrics.Controller, "test")
			c.must(err)
			c.must(metrics.Attachments(registry, l.Volumes))
			if n, err := testutil.GatherAndCount(registry, name); n != 0 || err != nil {
				t.Errorf("instance %d, unsynced: %s is there %d times, %v", instance, name, n, err)
			}
			c.down(nil)
			<-time.After(time.Minute)
			want := "# HELP " + name + " Volumes with at least one attached VolumeAttachment; a migrating volume counts once. " +
				"Absent while the attachments are not known.\n# TYPE " + name + " gauge\n" + name + " 3\n"
			if err := testutil.GatherAndCompare(registry, strings.NewReader(want), name); err != nil {
				t.Errorf("instance %d: %v", instance, err)
			}
			if instance == 1 {
				c.attachment("pv-1", "b", true) // a migration; what follows must count it once as well
				synctest.Wait()
				if err := testutil.GatherAndCompare(registry, strings.NewReader(want), name); err != nil {
					t.Errorf("during a migration: %v", err)
				}
			}
			stop()
		}
	})
}

// B21, D14: an API server that is down when the process starts is no reason to
// end; nothing is admitted until it has answered.
func TestAPIServerDownAtStart_B21_D14(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.three()
		c.down(errors.New("connection reset"))
		l, stop := c.run()
		defer stop()
		<-time.After(10 * time.Minute)
		wantUnknown(t, l)
		if _, err := l.Publish("rds1/v1", "a", attach.SingleNode, time.Now()); !errors.Is(err, attach.ErrUnknown) {
			t.Errorf("Publish while nothing is known = %v", err)
		}
		c.down(nil)
		<-time.After(10 * time.Second)
		wantCount(t, l, 3)
		for text, want := range map[string]int{"cannot read from the API server": 4, "reading from the API server again": 4} {
			if n := c.logs.count(text); n != want {
				t.Errorf("%q was logged %d times, want %d:\n%v", text, n, want, c.logs.lines)
			}
		}
	})
}

// Half of the truth is none: a handle may still be missing.
func TestUnknownUntilBothAreRead(t *testing.T) {
	for _, resource := range []string{"persistentvolumes", "volumeattachments"} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.three()
			c.forbid(resource)
			l, stop := c.run()
			defer stop()
			<-time.After(time.Minute)
			wantUnknown(t, l)
			c.volume("pv-4", "rds1/v4")
			c.attachment("pv-4", "a", true)
			wantUnknown(t, l)
			c.forbid("")
			<-time.After(time.Minute)
			wantCount(t, l, 4)
			wantNodes(t, l, "rds1/v4", "a")
		})
	}
}

// The answer of a lagging API server must not show a new process the past.
func TestFirstListIsAConsistentRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		_, stop := c.run()
		stop()
		if len(c.lists) != 4 {
			t.Fatalf("%d lists, want 4", len(c.lists))
		}
		for _, o := range c.lists {
			if o.ResourceVersion != "" || o.ResourceVersionMatch != "" {
				t.Errorf("listed at version %q (%s), want the newest", o.ResourceVersion, o.ResourceVersionMatch)
			}
		}
	})
}

func TestOnlyOursCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		foreign := c.newAttachment("pv-x", "a")
		foreign.Spec.Attacher, foreign.Status.Attached = "other.csi.example.com", true
		c.create(foreign)
		l, stop := c.run()
		defer stop()
		wantCount(t, l, 0)
		foreign = c.newAttachment("pv-y", "a")
		foreign.Spec.Attacher, foreign.Status.Attached = "other.csi.example.com", true
		c.create(foreign)
		wantCount(t, l, 0)
		c.deleteAttachment("csi-pv-x-a")
		wantCount(t, l, 0)
	})
}

// Handles of the existing driver are bare slots; two spellings are one volume.
func TestTwoSpellingsAreOneVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.volume("old", "pvc-1")
		c.volume("new", "rds1/pvc-1")
		c.attachment("old", "a", true)
		l, stop := c.run()
		defer stop()
		c.attachment("new", "b", false)
		wantNodes(t, l, "rds1/pvc-1", "a")
		var conflict *attach.ConflictError
		if _, err := l.Publish("rds1/pvc-1", "b", attach.SingleNode, time.Now()); !errors.As(err, &conflict) || conflict.Holder != "a" {
			t.Errorf("Publish of the second spelling = %v, want a conflict with a", err)
		}
	})
}

func TestVolumeSeenAfterItsAttachment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.attachment("pv-1", "a", true)
		l, stop := c.run()
		defer stop()
		late := c.attachment("pv-2", "a", false)
		late.Labels = map[string]string{"changed": "yes"}
		c.update(late)
		wantCount(t, l, 1) // counted, though nobody knows as what
		if _, err := l.Publish("rds1/v2", "a", attach.SingleNode, time.Now()); !errors.Is(err, attach.ErrNotSeen) {
			t.Errorf("Publish before the PersistentVolume is seen = %v", err)
		}
		if n := c.logs.count("without a known PersistentVolume"); n != 2 {
			t.Errorf("reported %d times, want once for each of two", n)
		}
		c.volume("pv-1", "rds1/v1")
		c.volume("pv-2", "rds1/v2")
		wantNodes(t, l, "rds1/v1", "a")
		wantCount(t, l, 1)
		if _, err := l.Publish("rds1/v2", "a", attach.SingleNode, time.Now()); err != nil {
			t.Errorf("Publish after the PersistentVolume is seen = %v", err)
		}
	})
}

func TestVolumeGoneKeepsItsHandle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.volume("pv-1", "rds1/v1")
		va := c.attachment("pv-1", "a", true)
		l, stop := c.run()
		defer stop()
		c.deleteVolume("pv-1")
		wantNodes(t, l, "rds1/v1", "a")
		va.Labels = map[string]string{"changed": "yes"}
		c.update(va)
		wantNodes(t, l, "rds1/v1", "a")
		c.end(gone())
		<-time.After(time.Minute)
		wantNodes(t, l, "rds1/v1", "a")
		wantCount(t, l, 1)
		c.deleteAttachment(va.Name)
		wantCount(t, l, 0)
	})
}

// The PersistentVolume was deleted by force while a node has the volume. A new
// process never sees it, and must protect the volume all the same.
func TestVolumeGoneBeforeTheRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		va := c.newAttachment("pv-gone", "a")
		va.Status.Attached = true
		va.Status.AttachmentMetadata = map[string]string{"nqn": "nqn.2000-02.com.mikrotik:v1"}
		va = c.create(va)
		late := c.attachment("pv-late", "b", false) // neither attached nor known yet
		l, stop := c.run()
		defer stop()
		wantInUse(t, l, "rds1/v1", "a")
		wantCount(t, l, 1)
		c.attachment("pv-gone", "c", false)
		wantInUse(t, l, "rds1/v1", "a")

		va.Status.AttachmentMetadata = nil // as the attacher does when it detaches
		c.update(va)
		wantInUse(t, l, "rds1/v1", "a")
		late.Status.AttachmentMetadata = map[string]string{"nqn": "nqn.2000-02.com.mikrotik:v2"}
		c.update(late)
		wantInUse(t, l, "rds1/v2", "b")
		c.volume("pv-late", "rds2/v2") // what the PersistentVolume says goes before
		wantInUse(t, l, "rds1/v2")
		wantInUse(t, l, "rds2/v2", "b")
	})
}

func wantInUse(t *testing.T, l *attach.Ledger, volume string, want ...string) {
	t.Helper()
	synctest.Wait()
	uses, err := l.InUse(volume)
	if same := slices.EqualFunc(uses, want, func(u attach.Use, node string) bool { return u.Node == node }); !same || err != nil {
		t.Errorf("InUse(%s) = %v, %v; want %v", volume, uses, err, want)
	}
}

// The attacher's record of a refusal reaches the ledger: it heals a detach that
// came too late.
func TestAttachErrorReachesTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.volume("pv-1", "rds1/v1")
		va := c.attachment("pv-1", "a", false)
		l, stop := c.run()
		defer stop()
		l.Unpublish("rds1/v1", "a")
		_, refused := l.Publish("rds1/v1", "a", attach.SingleNode, time.Now())
		if !errors.Is(refused, attach.ErrNotSeen) {
			t.Fatalf("Publish after a late Unpublish = %v", refused)
		}
		va.Status.AttachError = &storagev1.VolumeError{Message: refused.Error()}
		c.update(va)
		synctest.Wait()
		if _, err := l.Publish("rds1/v1", "a", attach.SingleNode, time.Now()); err != nil {
			t.Errorf("Publish after the attacher wrote the refusal down = %v", err)
		}
	})
}

func TestInlineVolumeSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		va := c.newAttachment("unused", "a")
		spec := persistentVolume("unused", "pvc-inline").Spec
		va.Spec.Source = storagev1.VolumeAttachmentSource{InlineVolumeSpec: &spec}
		va.Status.Attached = true
		c.create(va)
		l, stop := c.run()
		defer stop()
		wantNodes(t, l, "rds1/pvc-inline", "a")
		c.volume("pv-1", "rds1/v1")
		c.end(gone())
		<-time.After(time.Minute)
		wantNodes(t, l, "rds1/pvc-inline", "a")
	})
}

// A Node that is deleted and made again gets VolumeAttachments of the same name.
// The old one's admission must not pass to the new one, seen or not seen to go.
func TestNameComesBackWithAnotherUID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.volume("pv-1", "rds1/v1")
		c.attachment("pv-1", "a", true)
		l, stop := c.run()
		defer stop()

		c.deleteAttachment("csi-pv-1-a")
		c.attachment("pv-1", "a", false)
		wantCount(t, l, 0)

		<-time.After(time.Minute) // a watch that has lived is taken up again without a list
		c.end(nil)
		c.deleteAttachment("csi-pv-1-a")
		c.attachment("pv-1", "a", true)
		<-time.After(time.Minute)
		wantNodes(t, l, "rds1/v1", "a")
		wantCount(t, l, 1)
		c.deleteAttachment("csi-pv-1-a")
		wantCount(t, l, 0)
		if nodes, err := l.InUse("rds1/v1"); len(nodes) > 0 || err != nil {
			t.Errorf("InUse = %v, %v; the predecessor is still there", nodes, err)
		}
	})
}

func TestDeletionMarkAndCreationTimeReachTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.volume("pv-1", "rds1/v1")
		first := c.attachment("pv-1", "a", false)
		c.attachment("pv-1", "b", false)
		l, stop := c.run()
		defer stop()
		var conflict *attach.ConflictError
		if _, err := l.Publish("rds1/v1", "b", attach.SingleNode, time.Now()); !errors.Is(err, attach.ErrUnknown) {
			t.Errorf("the later one = %v, and who asked for the first one before?", err)
		}
		if _, err := l.Publish("rds1/v1", "a", attach.SingleNode, time.Now()); err != nil {
			t.Errorf("the first one = %v", err)
		}
		if _, err := l.Publish("rds1/v1", "b", attach.SingleNode, time.Now()); !errors.As(err, &conflict) {
			t.Errorf("the later one = %v, want a conflict", err)
		}
		now := metav1.Now()
		first.DeletionTimestamp = &now
		c.update(first)
		synctest.Wait()
		if _, err := l.Publish("rds1/v1", "a", attach.SingleNode, time.Now()); !errors.Is(err, attach.ErrNotSeen) {
			t.Errorf("the first one, being deleted = %v", err)
		}
	})
}

// 410 Gone: what was missed, deletions above all, is found by a new list.
func TestRelistAfterGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.three()
		l, stop := c.run()
		defer stop()
		wantCount(t, l, 3)
		c.down(errors.New("partitioned"))
		c.end(gone())
		c.deleteAttachment("csi-pv-1-a")
		c.deleteAttachment("csi-pv-2-a")
		c.volume("pv-4", "rds1/v4")
		c.attachment("pv-4", "c", true)
		<-time.After(3 * time.Minute)
		wantCount(t, l, 3) // what was true when the API server was last heard of
		c.down(nil)
		<-time.After(30 * time.Second)
		wantCount(t, l, 2)
		wantNodes(t, l, "rds1/v1")
		wantNodes(t, l, "rds1/v4", "c")
	})
}

// No line per event: a busy cluster must not fill the log.
func TestEventsAreNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		_, stop := c.run()
		for i := range 20 {
			n := strconv.Itoa(i)
			c.volume("pv-"+n, "rds1/v"+n)
			synctest.Wait()
			c.attachment("pv-"+n, "a", true)
			c.deleteAttachment("csi-pv-" + n + "-a")
			synctest.Wait()
		}
		c.end(gone())
		<-time.After(time.Minute)
		stop()
		if lines := c.logs.lines; len(lines) > 0 {
			t.Errorf("logged:\n%v", lines)
		}
	})
}

// Whatever happens in between, the ledger ends up equal to the API server.
func TestLedgerEqualsTheAPIServer(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			l, stop := c.run()
			defer stop()
			r := rand.New(rand.NewPCG(seed, 1))
			for range 60 {
				c.anything(r)
			}
			c.down(nil)
			<-time.After(time.Minute)
			c.end(gone()) // the fake forgets deletions while a watch is cut, a real server does not
			<-time.After(time.Minute)
			synctest.Wait()
			c.compare(l, seed)
		})
	}
}

// anything changes something, or breaks something.
func (c *cluster) anything(r *rand.Rand) {
	ctx := c.t.Context()
	pv, node := "pv-"+strconv.Itoa(r.IntN(4)), string(rune('a'+r.IntN(3)))
	attachments, volumes := c.api.StorageV1().VolumeAttachments(), c.api.CoreV1().PersistentVolumes()
	va, missing := attachments.Get(ctx, "csi-"+pv+"-"+node, metav1.GetOptions{})
	_, noVolume := volumes.Get(ctx, pv, metav1.GetOptions{})
	switch r.IntN(8) {
	case 0, 1, 2:
		if missing != nil {
			c.attachment(pv, node, r.IntN(2) == 0)
			return
		}
		va.Status.Attached = !va.Status.Attached
		c.update(va)
	case 3:
		if missing == nil {
			c.deleteAttachment(va.Name)
		}
	case 4:
		if noVolume != nil {
			c.volume(pv, "rds1/"+pv)
		}
	case 5:
		c.down([]error{nil, errors.New("down")}[r.IntN(2)])
	case 6:
		c.end([]*metav1.Status{nil, gone()}[r.IntN(2)])
	case 7:
		<-time.After(time.Duration(r.IntN(20)) * time.Second)
	}
}

// compare counts again what the API server holds.
func (c *cluster) compare(l *attach.Ledger, seed uint64) {
	c.t.Helper()
	ctx := c.t.Context()
	list, err := c.api.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	c.must(err)
	volumes, err := c.api.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	c.must(err)
	want := map[string][]string{}
	for _, va := range list.Items {
		if va.Status.Attached {
			pv := *va.Spec.Source.PersistentVolumeName
			handle := "persistentvolume:" + pv
			if slices.ContainsFunc(volumes.Items, func(v corev1.PersistentVolume) bool { return v.Name == pv }) {
				handle = "rds1/" + pv
			}
			want[handle] = append(want[handle], va.Spec.NodeName)
		}
	}
	if n, known := l.Volumes(); n != len(want) || !known {
		c.t.Errorf("seed %d: Volumes() = %d, known %t; the API server has %d", seed, n, known, len(want))
	}
	for handle, nodes := range want {
		slices.Sort(nodes)
		if got := l.Nodes(handle); !slices.Equal(got, nodes) {
			c.t.Errorf("seed %d: Nodes(%s) = %v; the API server has %v", seed, handle, got, nodes)
		}
	}
}
