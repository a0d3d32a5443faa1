package kube_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// csiNode says that a node has several drivers, and how many volumes of each it can hold.
func csiNode(name string, drivers ...storagev1.CSINodeDriver) *storagev1.CSINode {
	return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSINodeSpec{Drivers: drivers}}
}

// holds is a driver with a number; without one below 0.
func holds(driver string, volumes int32) storagev1.CSINodeDriver {
	d := storagev1.CSINodeDriver{Name: driver, NodeID: "a"}
	if volumes >= 0 {
		d.Allocatable = &storagev1.VolumeNodeResources{Count: &volumes}
	}
	return d
}

func (c *cluster) addCSINode(n *storagev1.CSINode) {
	c.t.Helper()
	_, err := c.api.StorageV1().CSINodes().Create(c.t.Context(), n, metav1.CreateOptions{})
	c.must(err)
}

func (c *cluster) updateCSINode(n *storagev1.CSINode) {
	c.t.Helper()
	_, err := c.api.StorageV1().CSINodes().Update(c.t.Context(), n, metav1.UpdateOptions{})
	c.must(err)
}

// wantLimit asks for one volume more on node a, which has three, and takes it back. A limit below 0 is none.
func wantLimit(t *testing.T, l *attach.Ledger, want int) {
	t.Helper()
	synctest.Wait()
	_, err := l.Publish("rds1/more", "a", attach.SingleNode, time.Now())
	l.Abandon("rds1/more", "a")
	var full *attach.FullError
	switch {
	case want < 0 && err != nil:
		t.Errorf("not limited, and %v", err)
	case want >= 0 && (!errors.As(err, &full) || full.Limit != want):
		t.Errorf("limited to %d, and got %v", want, err)
	}
}

// fullCluster has three volumes attached to node a, and one that waits for it.
func fullCluster(t *testing.T) *cluster {
	c := newCluster(t)
	for _, n := range []string{"1", "2", "3", "more"} {
		c.volume("pv-"+n, "rds1/"+n)
		c.attachment("pv-"+n, "a", n != "more")
	}
	return c
}

// What the CSINode says of this driver is the limit, from the moment at which it says so.
func TestLimitIsWhatTheCSINodeSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fullCluster(t)
		l, stop := c.run()
		defer stop()
		wantLimit(t, l, -1) // no CSINode
		c.addCSINode(csiNode("a", holds("other.csi", 1)))
		wantLimit(t, l, -1) // another driver's
		c.updateCSINode(csiNode("a", holds("other.csi", 1), holds(driver, -1)))
		wantLimit(t, l, -1) // no number
		c.updateCSINode(csiNode("a", holds("other.csi", 100), holds(driver, 3)))
		wantLimit(t, l, 3)
		c.updateCSINode(csiNode("a", holds(driver, 4)))
		wantLimit(t, l, -1)
		c.updateCSINode(csiNode("a", holds(driver, 0)))
		wantLimit(t, l, 0)
		c.updateCSINode(csiNode("a")) // kubelet, when the plugin is gone
		wantLimit(t, l, -1)
		c.updateCSINode(csiNode("a", holds(driver, 2)))
		wantLimit(t, l, 2)
		c.must(c.api.StorageV1().CSINodes().Delete(t.Context(), "a", metav1.DeleteOptions{}))
		wantLimit(t, l, -1)
	})
}

// What changed while nobody watched is in the next list, and what is not in it is gone.
func TestLimitsAreListedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fullCluster(t)
		c.addCSINode(csiNode("a", holds(driver, 3)))
		l, stop := c.run()
		defer stop()
		wantLimit(t, l, 3)
		c.down(errors.New("away"))
		c.end(gone())
		c.updateCSINode(csiNode("a", holds(driver, 1)))
		wantLimit(t, l, 3)
		c.down(nil)
		<-time.After(time.Minute)
		wantLimit(t, l, 1)

		c.down(errors.New("away"))
		c.end(gone())
		c.must(c.api.StorageV1().CSINodes().Delete(t.Context(), "a", metav1.DeleteOptions{}))
		c.down(nil)
		<-time.After(time.Minute)
		wantLimit(t, l, -1)
	})
}

// An image that is newer than the chart's role may not read CSINodes: everything else works, and nothing is limited, until it may.
func TestWithoutCSINodesNothingIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fullCluster(t)
		c.addCSINode(csiNode("a", holds(driver, 1)))
		c.forbid("csinodes")
		l, stop := c.run()
		defer stop()
		wantCount(t, l, 3)
		wantLimit(t, l, -1)
		if c.logs.count("CSINodes") == 0 {
			t.Error("nobody is told that CSINodes cannot be read")
		}
		c.forbid("")
		<-time.After(time.Minute)
		wantLimit(t, l, 1)
	})
}
