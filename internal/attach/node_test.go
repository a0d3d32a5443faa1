package attach_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// says is a Node whose kubelet has these volumes in use.
func says(node string, volumes ...string) attach.Node {
	return attach.Node{Name: node, UID: "uid-" + node, InUse: volumes}
}

func outOfService(n attach.Node) attach.Node {
	n.OutOfService = true
	return n
}

func madeAgain(n attach.Node) attach.Node {
	n.UID += "-2"
	return n
}

// Nothing is admitted on half of the truth, whichever half it is; the number needs
// no Nodes.
func TestUnknownUntilNodesAreListed(t *testing.T) {
	l := attach.NewLedger(attach.Options{})
	l.Replace([]attach.Attachment{waiting("1", "v", "a", 0), attached("2", "w", "a", 0)})
	wantCount(t, l, 1)
	wantPublish(t, l, "v", "a", attach.SingleNode, "unknown")
	if _, err := l.InUse("x"); !errors.Is(err, attach.ErrUnknown) || l.Known() {
		t.Errorf("InUse = %v, known %t, before the Nodes were listed", err, l.Known())
	}
	l.ReplaceNodes(nil)
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
	if !l.Known() {
		t.Error("not known after both lists")
	}
	other := attach.NewLedger(attach.Options{})
	other.ReplaceNodes(nil)
	wantPublish(t, other, "v", "a", attach.SingleNode, "unknown")
}

// A VolumeAttachment that went by force or by hand leaves kubelet's word, which
// goes when kubelet has unmounted, or by the administrator's.
func TestKubeletsWordKeepsTheSecondWriterOut(t *testing.T) {
	tests := map[string]struct {
		then func(*attach.Ledger)
		want string
	}{
		"nothing changes":          {func(*attach.Ledger) {}, "conflict with a"},
		"it says so again":         {func(l *attach.Ledger) { l.UpsertNode(says("a", "v", "w")) }, "conflict with a"},
		"relisted":                 {func(l *attach.Ledger) { l.ReplaceNodes([]attach.Node{says("a", "v")}) }, "conflict with a"},
		"attachments relisted":     {func(l *attach.Ledger) { l.Replace([]attach.Attachment{waiting("2", "v", "b", 60)}) }, "conflict with a"},
		"unpublished":              {func(l *attach.Ledger) { l.Unpublish("v", "a") }, "conflict with a"},
		"unpublished everywhere":   {func(l *attach.Ledger) { l.Unpublish("v", "") }, "not seen"},
		"unmounted":                {func(l *attach.Ledger) { l.UpsertNode(says("a", "w")) }, "ok"},
		"unmounted, by a relist":   {func(l *attach.Ledger) { l.ReplaceNodes([]attach.Node{says("a")}) }, "ok"},
		"the machine is off":       {func(l *attach.Ledger) { l.UpsertNode(outOfService(says("a", "v"))) }, "ok"},
		"the taint is gone again":  {func(l *attach.Ledger) { l.UpsertNode(outOfService(says("a", "v"))); l.UpsertNode(says("a", "v")) }, "conflict with a"},
		"the node is gone":         {func(l *attach.Ledger) { l.RemoveNode("a") }, "ok"},
		"gone by a relist":         {func(l *attach.Ledger) { l.ReplaceNodes([]attach.Node{says("b")}) }, "ok"},
		"made again, word and all": {func(l *attach.Ledger) { l.UpsertNode(madeAgain(says("a", "v"))) }, "conflict with a"},
		"made again, word later": {func(l *attach.Ledger) {
			l.RemoveNode("a")
			l.UpsertNode(madeAgain(says("a")))
			l.UpsertNode(madeAgain(says("a", "v", "w")))
		}, "conflict with a"},
		"made again, and speaks of another": {func(l *attach.Ledger) {
			l.UpsertNode(madeAgain(says("a", "w")))
			l.UpsertNode(madeAgain(says("a", "v", "w"))) // a pod that waits
		}, "ok"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := rebuilt(attached("1", "v", "a", 0))
			l.ReplaceNodes([]attach.Node{says("a", "v"), says("b")})
			l.Remove("1")
			l.Upsert(waiting("2", "v", "b", 60))
			tt.then(l)
			wantPublish(t, l, "v", "b", attach.SingleNode, tt.want)
		})
	}
}

// kubelet names a volume as soon as a pod waits for it, before anything is
// attached. Two pods that wait on two nodes must not keep each other out.
func TestAWishIsInNobodysWay(t *testing.T) {
	tests := map[string]struct {
		before []attach.Attachment
		come   func(*attach.Ledger)
		want   string
	}{
		"never attached":             {nil, func(l *attach.Ledger) { l.UpsertNode(says("a", "v")) }, "ok"},
		"attached when it is said":   {[]attach.Attachment{attached("1", "v", "a", 0)}, func(l *attach.Ledger) { l.UpsertNode(says("a", "v")); l.Remove("1") }, "conflict with a"},
		"attached before it is said": {[]attach.Attachment{attached("1", "v", "a", 0)}, func(l *attach.Ledger) { l.Remove("1"); l.UpsertNode(says("a", "v")) }, "conflict with a"},
		"attached after it is said": {[]attach.Attachment{waiting("1", "v", "a", 0)}, func(l *attach.Ledger) {
			l.UpsertNode(says("a", "v"))
			l.Upsert(attached("1", "v", "a", 0))
			l.Remove("1")
		}, "conflict with a"},
		"waited for, and never attached": {[]attach.Attachment{waiting("1", "v", "a", 0)}, func(l *attach.Ledger) { l.UpsertNode(says("a", "v")); l.Remove("1") }, "ok"},
		"attached, unmounted, wanted again": {[]attach.Attachment{attached("1", "v", "a", 0)}, func(l *attach.Ledger) {
			l.UpsertNode(says("a", "v"))
			l.UpsertNode(says("a"))
			l.Remove("1")
			l.UpsertNode(says("a", "v"))
		}, "ok"},
		"unmounted, mounted again while attached": {[]attach.Attachment{attached("1", "v", "a", 0)}, func(l *attach.Ledger) {
			l.UpsertNode(says("a", "v"))
			l.UpsertNode(says("a"))
			l.UpsertNode(says("a", "v"))
			l.Remove("1")
		}, "conflict with a"},
		"the first words of a new node": {nil, func(l *attach.Ledger) { l.UpsertNode(says("c")); l.UpsertNode(says("c", "v")) }, "conflict with c"},
		"its later words": {nil, func(l *attach.Ledger) {
			l.UpsertNode(says("c"))
			l.UpsertNode(says("c", "w"))
			l.UpsertNode(says("c", "v", "w"))
		}, "ok"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := attach.NewLedger(attach.Options{})
			l.ReplaceNodes([]attach.Node{says("a"), says("b")})
			l.Replace(tt.before)
			tt.come(l)
			l.Upsert(waiting("2", "v", "b", 60))
			wantPublish(t, l, "v", "b", attach.SingleNode, tt.want)
		})
	}
}

// The watches were cut while a node was attached, mounted, and detached by force:
// that it was admitted is all that this process knows of it.
func TestAdmittedAndThenCutOff(t *testing.T) {
	for _, nodesFirst := range []bool{true, false} {
		l := attach.NewLedger(attach.Options{})
		l.ReplaceNodes([]attach.Node{says("a"), says("b")})
		l.Replace([]attach.Attachment{waiting("1", "v", "a", 0)})
		wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
		l.Unpublish("v", "a") // asked for by the forced detach
		if nodesFirst {
			l.ReplaceNodes([]attach.Node{says("a", "v"), says("b")})
		}
		l.Replace([]attach.Attachment{waiting("2", "v", "b", 600)})
		if !nodesFirst {
			l.ReplaceNodes([]attach.Node{says("a", "v"), says("b")})
		}
		wantPublish(t, l, "v", "b", attach.SingleNode, "conflict with a")
	}
}

// Admitted, and the watches are fine: what comes next is no wish.
func TestWordOfAnAdmittedNode(t *testing.T) {
	l := attach.NewLedger(attach.Options{})
	l.ReplaceNodes([]attach.Node{says("a"), says("b")})
	l.Replace([]attach.Attachment{waiting("1", "v", "a", 0)})
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
	l.UpsertNode(says("a", "v"))
	l.UpsertNode(says("a")) // the pod went
	l.UpsertNode(says("a", "v"))
	l.Remove("1")
	l.Upsert(waiting("2", "v", "b", 600))
	wantPublish(t, l, "v", "b", attach.SingleNode, "conflict with a")
}

// A restart does not know what came first, and takes every word for a mount.
func TestRestartTakesWordsForMounts(t *testing.T) {
	l := rebuilt(waiting("2", "v", "b", 60))
	l.ReplaceNodes([]attach.Node{says("a", "v"), says("b", "v")})
	wantPublish(t, l, "v", "b", attach.SingleNode, "conflict with a")
}

// Who takes over from another process does not know what that one admitted.
func TestDoubtTakesWordsForMounts(t *testing.T) {
	l := attach.NewLedger(attach.Options{})
	l.ReplaceNodes([]attach.Node{says("a"), says("b")})
	l.Replace([]attach.Attachment{waiting("2", "v", "b", 60)})
	l.UpsertNode(says("a", "v"))
	wantPublish(t, l, "v", "b", attach.SingleNode, "ok") // it was a wish
	l.Doubt()
	l.ReplaceNodes([]attach.Node{says("a", "v", "w"), says("b")})
	l.Upsert(waiting("3", "w", "b", 60))
	wantPublish(t, l, "v", "b", attach.SingleNode, "conflict with a")
	wantPublish(t, l, "w", "b", attach.SingleNode, "conflict with a")
	l.UpsertNode(says("a", "x"))
	l.Upsert(waiting("4", "x", "b", 60))
	wantPublish(t, l, "x", "b", attach.SingleNode, "ok") // this one it saw come
}

// A repeat changes nothing: what is attached is not refused for what others say.
func TestAttachedIsNotRefusedForWords(t *testing.T) {
	l := rebuilt(attached("2", "v", "b", 60))
	l.ReplaceNodes([]attach.Node{says("a", "v"), says("b", "v")})
	wantPublish(t, l, "v", "b", attach.SingleNode, "ok")
}

// Of raw block that migrates, a kubelet's word is one of the two.
func TestWordsCountAmongTwo(t *testing.T) {
	l := rebuilt(multi(attached("1", "v", "b", 0)), multi(waiting("2", "v", "c", 60)))
	l.ReplaceNodes([]attach.Node{says("a", "v"), says("b", "v")})
	wantPublish(t, l, "v", "c", attach.MultiNode, "conflict with a, b")
	l.UpsertNode(says("a"))
	wantPublish(t, l, "v", "c", attach.MultiNode, "ok")
}

// Deleting a volume that a kubelet may have mounted waits as well.
func TestInUseCountsWords(t *testing.T) {
	l := rebuilt(waiting("1", "v", "a", 0))
	l.ReplaceNodes([]attach.Node{says("b", "v"), outOfService(says("c", "v"))})
	l.UpsertNode(says("b", "v", "w")) // w: somebody waits
	got, err := l.InUse("v")
	if diff := cmp.Diff([]attach.Use{{Node: "a", Why: attach.Asked}, {Node: "b", Why: attach.MayBeMounted}}, got); diff != "" || err != nil {
		t.Errorf("InUse: %v (-want +got):\n%s", err, diff)
	}
	if got, err := l.InUse("w"); err != nil || len(got) != 1 || got[0] != (attach.Use{Node: "b", Why: attach.Awaited}) || got[0].MayWrite() {
		t.Errorf("InUse of what a pod waits for = %v, %v", got, err)
	}
	l.Remove("1")
	l.RemoveNode("b")
	l.RemoveNode("b") // twice is once
	if got, err := l.InUse("v"); len(got) != 0 || err != nil {
		t.Errorf("InUse = %v, %v; only a machine that is off speaks of it", got, err)
	}
}

func TestNodeUIDAndKnownNodes(t *testing.T) {
	l := rebuilt()
	if uid, ok := l.NodeUID("a"); ok {
		t.Errorf("NodeUID of nobody = %q", uid)
	}
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a, b := says("a", "v"), outOfService(says("b"))
	a.Created = made
	l.ReplaceNodes([]attach.Node{b, a})
	if uid, ok := l.NodeUID("a"); uid != "uid-a" || !ok {
		t.Errorf("NodeUID = %q, %t", uid, ok)
	}
	got := l.KnownNodes()
	b.InUse = nil
	if diff := cmp.Diff([]attach.Node{a, b}, got); diff != "" {
		t.Errorf("KnownNodes (-want +got):\n%s", diff)
	}
	got[0].InUse[0] = "changed"
	if l.KnownNodes()[0].InUse[0] != "v" {
		t.Error("KnownNodes is not a copy")
	}
	l.UpsertNode(madeAgain(a))
	if uid, _ := l.NodeUID("a"); uid != "uid-a-2" {
		t.Errorf("NodeUID of the one made again = %q", uid)
	}
	if _, ok := attach.Standalone().NodeUID("a"); ok {
		t.Error("a ledger without Kubernetes knows a Node")
	}
}
