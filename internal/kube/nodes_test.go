package kube_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	k8stesting "k8s.io/client-go/testing"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// node makes a Node whose kubelet has these in use, as kubelets write it.
func (c *cluster) node(name string, inUse ...string) *corev1.Node {
	c.t.Helper()
	c.clock++
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(time.Date(2026, 11, 1, 0, c.clock, 0, 0, time.UTC)),
	}}
	n, err := c.api.CoreV1().Nodes().Create(c.t.Context(), inUseOf(n, inUse...), metav1.CreateOptions{})
	c.must(err)
	return n
}

func inUseOf(n *corev1.Node, inUse ...string) *corev1.Node {
	n = n.DeepCopy()
	n.Status.VolumesInUse = nil
	for _, word := range inUse {
		n.Status.VolumesInUse = append(n.Status.VolumesInUse, corev1.UniqueVolumeName(word))
	}
	return n
}

func ours(handle string) string { return "kubernetes.io/csi/" + driver + "^" + handle }

func (c *cluster) updateNode(n *corev1.Node) {
	c.t.Helper()
	_, err := c.api.CoreV1().Nodes().Update(c.t.Context(), n, metav1.UpdateOptions{})
	c.must(err)
	synctest.Wait()
}

func wantConflict(t *testing.T, l *attach.Ledger, volume, node, holder string) {
	t.Helper()
	synctest.Wait()
	var conflict *attach.ConflictError
	_, err := l.Publish(volume, node, attach.MultiNode, time.Now())
	if errors.As(err, &conflict) && conflict.Holder == holder || err == nil && holder == "" {
		return
	}
	t.Errorf("Publish(%s, %s) = %v, want a conflict with %q", volume, node, err, holder)
}

// A finalizer was removed by hand: kubelet still has the volume, says its Node.
func TestKubeletsWordOnTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.volume("pv-1", "v1") // bare, as the existing driver wrote it
		c.attachment("pv-1", "a", true)
		a := c.node("a", "kubernetes.io/csi/other.csi.example.com^v1", ours("rds1/v2"), ours("v1"), "kubernetes.io/nfs/x")
		c.node("b", "kubernetes.io/csi/"+driver+".other^v1")
		for range 2 { // a restart says the same
			l, stop := c.run()
			if uid, ok := l.NodeUID("a"); uid != "uid-a" || !ok {
				t.Errorf("NodeUID = %q, %t", uid, ok)
			}
			want := []attach.Node{
				{Name: "a", UID: "uid-a", InUse: []string{"rds1/v1", "rds1/v2"}, Created: a.CreationTimestamp.Time},
				{Name: "b", UID: "uid-b", Created: a.CreationTimestamp.Add(time.Minute)},
			}
			if diff := cmp.Diff(want, l.KnownNodes()); diff != "" {
				t.Errorf("nodes (-want +got):\n%s", diff)
			}
			stop()
		}
		l, stop := c.run()
		defer stop()
		c.deleteAttachment("csi-pv-1-a")
		c.attachment("pv-1", "b", false)
		wantConflict(t, l, "rds1/v1", "b", "a")

		off := a.DeepCopy()
		off.Spec.Taints = []corev1.Taint{{Key: "other", Effect: corev1.TaintEffectNoExecute}}
		c.updateNode(off)
		wantConflict(t, l, "rds1/v1", "b", "a")
		off.Spec.Taints = append(off.Spec.Taints, corev1.Taint{Key: "node.kubernetes.io/out-of-service", Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute})
		c.updateNode(off)
		wantInUse(t, l, "rds1/v1", "b")
		c.updateNode(a)
		wantInUse(t, l, "rds1/v1", "a", "b")
		wantConflict(t, l, "rds1/v1", "b", "a")
		c.updateNode(inUseOf(a, ours("rds1/v2")))
		wantConflict(t, l, "rds1/v1", "b", "")
	})
}

// The Node object is deleted and made again while its machine goes on.
func TestNodeMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.volume("pv-1", "rds1/v1")
		va := c.newAttachment("pv-1", "a")
		va.Status.Attached, va.Status.AttachmentMetadata = true, map[string]string{"nodeUID": "uid-a"}
		va = c.create(va)
		a := c.node("a", ours("rds1/v1"))
		l, stop := c.run()
		defer stop()
		c.must(c.api.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}))
		synctest.Wait()
		if uid, ok := l.NodeUID("a"); ok {
			t.Errorf("NodeUID of a Node that is gone = %q", uid)
		}
		wantInUse(t, l, "rds1/v1", "a") // by its VolumeAttachment
		wantCount(t, l, 1)
		again := inUseOf(a)
		again.UID = "uid-a-2"
		_, err := c.api.CoreV1().Nodes().Create(t.Context(), again, metav1.CreateOptions{})
		c.must(err)
		synctest.Wait()
		uid, _ := l.NodeUID("a")
		if got := l.Attachments(); uid != "uid-a-2" || len(got) != 1 || got[0].NodeUID != "uid-a" {
			t.Errorf("published to another Node than %q: %+v", uid, got)
		}
		c.deleteAttachment(va.Name)
		c.attachment("pv-1", "b", false)
		again.Status.VolumesInUse = a.Status.VolumesInUse // kubelet has found its mounts
		c.updateNode(again)
		wantConflict(t, l, "rds1/v1", "b", "a")
	})
}

// Without the Nodes nothing is admitted, and the number is there all the same.
func TestNodesCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.three()
		c.node("a", ours("rds1/v1"))
		c.forbid("nodes")
		l, stop := c.run()
		wantCount(t, l, 3)
		if _, err := l.Publish("rds1/v1", "a", attach.SingleNode, time.Now()); !errors.Is(err, attach.ErrUnknown) || l.Known() {
			t.Errorf("Publish = %v, known %t", err, l.Known())
		}
		c.forbid("")
		<-time.After(time.Minute)
		wantConflict(t, l, "rds1/v1", "a", "")
		stop()
	})
}

// A cut watch loses what nodes said meanwhile; the list that follows has it.
func TestNodesAfterACutWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.volume("pv-1", "rds1/v1")
		c.attachment("pv-1", "a", true)
		a := c.node("a")
		c.node("z")
		l, stop := c.run()
		defer stop()
		c.down(errors.New("connection refused"))
		c.end(gone())
		c.updateNode(inUseOf(a, ours("rds1/v1")))
		c.must(c.api.CoreV1().Nodes().Delete(t.Context(), "z", metav1.DeleteOptions{}))
		c.deleteAttachment("csi-pv-1-a")
		c.attachment("pv-1", "b", false)
		c.down(nil)
		<-time.After(time.Minute)
		if got := l.KnownNodes(); len(got) != 1 || !slices.Equal(got[0].InUse, []string{"rds1/v1"}) {
			t.Errorf("nodes after a relist: %+v", got)
		}
		wantConflict(t, l, "rds1/v1", "b", "a") // it was attached when last seen
	})
}

// Only the watch of Nodes is dead, without a word: a connection that nobody closed.
// Meanwhile a node is admitted, mounts the volume, and is detached by force.
func TestADeadWatchOfNodesAdmitsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		nodes := watch.NewRaceFreeFake()
		c.api.PrependWatchReactor("nodes", func(k8stesting.Action) (bool, watch.Interface, error) { return true, nodes, nil })
		c.volume("pv-1", "rds1/v1")
		a := c.node("a")
		c.node("b")
		l, stop := c.run()
		defer stop()
		c.attachment("pv-1", "a", false)
		synctest.Wait()
		if _, err := l.Publish("rds1/v1", "a", attach.SingleNode, time.Now()); err != nil {
			t.Fatal(err)
		}
		said := inUseOf(a, ours("rds1/v1"))
		said.ResourceVersion = "7"
		c.updateNode(said) // and nobody hears it
		<-time.After(time.Minute)
		l.Unpublish("rds1/v1", "a")
		c.deleteAttachment("csi-pv-1-a")
		c.attachment("pv-1", "b", false)
		<-time.After(3 * time.Minute)
		if _, err := l.Publish("rds1/v1", "b", attach.SingleNode, time.Now()); !errors.Is(err, attach.ErrUnknown) {
			t.Errorf("Publish = %v", err)
		}
		wantCount(t, l, 0)
		nodes.Modify(said) // the connection lives again
		wantConflict(t, l, "rds1/v1", "b", "a")
		<-time.After(2 * time.Minute)
		nodes.Action(watch.Bookmark, &corev1.Node{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "9"}})
		<-time.After(2 * time.Minute)
		wantConflict(t, l, "rds1/v1", "b", "a") // a bookmark is a word as well
	})
}

// When each watch was last heard of, events and lists included; silence does not
// count.
func TestLastContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.three()
		a := c.node("a")
		c.forbid("nodes")
		client := c.client()
		began := time.Now()
		stop := c.runClient(client, attach.NewLedger(attach.Options{}))
		defer stop()
		at := client.LastContact()
		if _, there := at["nodes"]; there || len(at) != 3 || at["volumeattachments"].Before(began) || at["persistentvolumes"].Before(began) {
			t.Errorf("LastContact = %v; the Nodes were not listed", at)
		}
		c.forbid("")
		<-time.After(time.Minute)
		at = client.LastContact()
		if len(at) != 4 || at["csinodes"].Before(began) {
			t.Fatalf("LastContact = %v", at)
		}
		<-time.After(10 * time.Second)
		a.Labels = map[string]string{"changed": "yes"}
		a.ResourceVersion = "7"
		c.updateNode(a)
		now := client.LastContact()
		if now["nodes"] != time.Now() || now["persistentvolumes"] != at["persistentvolumes"] {
			t.Errorf("at %v, after an event: %v", time.Now(), now)
		}
		<-time.After(10 * time.Second)
		c.bookmark("volumeattachments")
		synctest.Wait()
		if then := client.LastContact(); then["volumeattachments"] != time.Now() || then["nodes"] != now["nodes"] {
			t.Errorf("at %v, after a bookmark: %v", time.Now(), then)
		}
	})
}

// heartbeats are what a kubelet writes when nothing of ours changes.
func TestHeartbeatsDoNotReachTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		a := c.node("a", ours("rds1/v1"), ours("rds1/v2"))
		counted := &counting{Ledger: attach.NewLedger(attach.Options{})}
		stop := c.runClient(c.client(), counted)
		defer stop()
		for i := range 10 {
			a = a.DeepCopy()
			a.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.NewTime(time.Unix(int64(i), 0))}}
			a.Status.VolumesInUse = append(a.Status.VolumesInUse, corev1.UniqueVolumeName("kubernetes.io/nfs/"+strings.Repeat("x", i)))
			c.updateNode(a)
		}
		if counted.upserts != 0 {
			t.Errorf("%d of 10 heartbeats reached the ledger", counted.upserts)
		}
		for i, changed := range []*corev1.Node{inUseOf(a, ours("rds1/v1")), inUseOf(a, ours("rds1/v1"), ours("rds1/v3")), inUseOf(a, ours("rds1/v2"), ours("rds1/v3"))} {
			c.updateNode(changed)
			if counted.upserts != i+1 {
				t.Errorf("change %d: %d upserts", i, counted.upserts)
			}
		}
	})
}

// counting counts what the nodes feed says; only its goroutine writes.
type counting struct {
	*attach.Ledger
	upserts int
}

func (c *counting) UpsertNode(n attach.Node) { c.upserts++; c.Ledger.UpsertNode(n) }
