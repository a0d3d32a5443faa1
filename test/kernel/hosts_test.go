//go:build kernel

package kernel

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// refusedFor: another node is in the way, and the error names the volume and both.
func refusedFor(t *testing.T, c *claim, node, other string) {
	t.Helper()
	err := c.attach(node)
	var conflict *attach.ConflictError
	if !errors.As(err, &conflict) || !strings.Contains(err.Error(), c.id()) || !strings.Contains(err.Error(), node) || !strings.Contains(err.Error(), other) {
		t.Errorf("%s to %s, which %s has: %v", c.id(), node, other, err)
	}
}

// A file system is on one node; on the next it is found as it was left, and back again.
func TestFilesystemGoesToTheOtherHostAndBack(t *testing.T) {
	b := newSecond(t)
	s := newScene(t, btrfs(t), cowPool, nil)
	c := s.create("moves", 64*mib, capability(oneWriter, "ext4"), nil)
	there := c.on(b)
	c.up()
	first := fill(t, c.directory, 300<<10, "a", "b")
	refusedFor(t, there, nodeB, nodeA)
	c.down()

	there.up()
	b.verify(there.directory, first)
	second := b.fill(there.directory, 200<<10, "b", "c") // one of them over the first host's
	refusedFor(t, c, nodeA, nodeB)
	there.down()

	c.up()
	second["a"] = first["a"]
	second.verify(t, c.directory)
	c.down()
	c.fsck()
	c.remove()
	s.empty(cowPool)
}

// A node loses power with volumes mounted and written to. Kubernetes detaches them by force; nobody gets them on its kubelet's
// last word, until the administrator says that the machine is off. Then the next node has everything that was synced.
func TestNodeLosesPowerAndItsVolumesMove(t *testing.T) {
	b := newSecond(t)
	ledger := attach.NewLedger(attach.Options{})
	ledger.Replace(nil)
	ledger.ReplaceNodes([]attach.Node{{Name: nodeA, UID: "uid-a"}, {Name: nodeB, UID: "uid-b"}})
	s := newSceneOf(t, ledger, btrfs(t), cowPool, nil)
	replay := map[string]string{"ext4": "recovery complete", "xfs": "Ending recovery"}
	claims, synced := map[string]*claim{}, map[string]contents{}
	dead := attach.Node{Name: nodeB, UID: "uid-b"}
	began := time.Now()
	for fstype := range replay {
		c := s.create("power-"+fstype, 300*mib, capability(oneWriter, fstype), nil)
		dead.InUse = append(dead.InUse, c.id())
		ledger.UpsertNode(dead)
		asked(c, nodeB, began, false)
		there := c.on(b)
		there.up()
		asked(c, nodeB, began, true)
		claims[fstype], synced[fstype] = c, b.fill(there.directory+"/synced", 300<<10, "a", "b", "c")
		b.run(Command{Args: []string{"dd", "if=/dev/zero", "of=" + there.directory + "/busy", "bs=64k", "count=1000", "oflag=dsync"}, Stay: true})
	}
	b.powerOff()

	for _, c := range claims {
		asked(c, nodeA, began.Add(10*time.Minute), false)
		refusedFor(t, c, nodeA, nodeB)
		c.detach(nodeB)
		ledger.Remove(nodeB + c.id())
		refusedFor(t, c, nodeA, nodeB)
	}
	dead.OutOfService = true
	ledger.UpsertNode(dead)
	newSecond(t) // on again, so it was off: nothing of it writes any more
	for fstype, c := range claims {
		said := kernelLog(t)
		c.up()
		if log := said(); !strings.Contains(log, replay[fstype]) {
			t.Errorf("%s was not in use when the power went, so this proved nothing:\n%s", fstype, log)
		}
		synced[fstype].verify(t, c.directory+"/synced")
		c.down()
		ledger.Remove(nodeA + c.id())
		asked(c, nodeA, began.Add(20*time.Minute), false)
		c.fsck()
		ledger.Remove(nodeA + c.id())
		c.remove()
	}
	s.empty(cowPool)
}

// asked is a VolumeAttachment as the ledger hears of it.
func asked(c *claim, node string, created time.Time, attached bool) {
	c.s.ledger.Upsert(attach.Attachment{UID: node + c.id(), Name: "csi-" + node, Volume: c.id(), Node: node, Created: created, Attached: attached})
}
