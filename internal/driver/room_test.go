package driver_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// attacher is as much of Kubernetes as attaches: it makes the VolumeAttachment, asks, and writes down a yes.
type attacher struct {
	*scene
}

// newAttacher is of a cluster in which node-a can hold so many volumes.
func newAttacher(t *testing.T, limit int) attacher {
	ledger := attach.NewLedger(attach.Options{})
	ledger.ReplaceNodes(nil)
	ledger.Replace(nil)
	ledger.ReplaceLimits(map[string]int{"node-a": limit})
	return attacher{newScene(t, ledger)}
}

func (a attacher) wish(name, node string) attach.Attachment {
	wish := attach.Attachment{
		UID: "uid-" + name, Name: "csi-" + name, Volume: a.create(name).GetVolumeId(), Node: node, Created: time.Unix(1_700_000_000, 0),
	}
	a.ledger.Upsert(wish)
	return wish
}

func (a attacher) ask(wish attach.Attachment) error {
	_, err := a.ControllerPublishVolume(a.t.Context(), publishRequest(wish.Volume, wish.Node))
	return err
}

func (a attacher) attach(name, node string) error {
	wish := a.wish(name, node)
	err := a.ask(wish)
	if wish.Attached = err == nil; wish.Attached {
		a.ledger.Upsert(wish)
	}
	return err
}

// A node gets as many volumes as its CSINode says; what it has it keeps.
func TestAttachLimit(t *testing.T) {
	a := newAttacher(t, 2)
	told := 0
	a.Refused = func(string, string) { told++ }
	wants(t, a.attach("pvc-1", "node-a"), codes.OK)
	wants(t, a.attach("pvc-2", "node-a"), codes.OK)
	wants(t, a.attach("pvc-3", "node-a"), codes.ResourceExhausted, "pvc-", "node-a", "2 volumes", "CSINode", "have 2", "another node", "node.maxVolumes")
	wants(t, a.attach("pvc-2", "node-a"), codes.OK)
	wants(t, a.attach("pvc-4", "node-b"), codes.OK)
	a.ledger.Remove("uid-pvc-1")
	wants(t, a.attach("pvc-3", "node-a"), codes.OK)
	if told > 0 {
		t.Errorf("%d events: it passes by itself when a pod goes, and the pod has one already", told)
	}
}

// What the RDS could not export takes no room.
func TestFailedExportTakesNoRoom(t *testing.T) {
	a := newAttacher(t, 1)
	first, second := a.wish("pvc-1", "node-a"), a.wish("pvc-2", "node-a")
	a.rds.Fail(appliancetest.Export, appliance.ErrUnavailable)
	wants(t, a.ask(first), codes.Unavailable)
	wants(t, a.ask(second), codes.OK)
	wants(t, a.ask(first), codes.ResourceExhausted)
}

// The pods of a node that comes back begin all at once. As many of their volumes get in as there is room for, before any of
// them is confirmed as attached.
func TestAttachLimitHoldsWhenAllComeAtOnce(t *testing.T) {
	const limit, more = 12, 5
	a := newAttacher(t, limit)
	var wishes []attach.Attachment
	for i := range limit + more {
		wishes = append(wishes, a.wish(fmt.Sprint("pvc-", i), "node-a"))
	}
	got := make([]codes.Code, len(wishes))
	var callers sync.WaitGroup
	start := make(chan struct{})
	for i, wish := range wishes {
		callers.Go(func() {
			<-start
			got[i] = driver.Code(a.ask(wish))
		})
	}
	close(start)
	callers.Wait()
	count := map[codes.Code]int{}
	for _, code := range got {
		count[code]++
	}
	if count[codes.OK] != limit || count[codes.ResourceExhausted] != more {
		t.Errorf("answers %v, want %d and %d", count, limit, more)
	}
}
