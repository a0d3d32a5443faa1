package attach_test

import (
	"fmt"
	"testing"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// Words are worth as much as the watch that brings them. A was admitted, has mounted
// the volume, and was detached by force, while only the watch of Nodes was dead.
func TestADeadWatchOfNodesAdmitsNobody(t *testing.T) {
	l := attach.NewLedger(attach.Options{})
	l.ReplaceNodes([]attach.Node{says("a"), says("b")})
	l.NodesHeard(at(0))
	l.Replace([]attach.Attachment{waiting("1", "v", "a", 0)})
	publish := func(node string, second int, want string) {
		t.Helper()
		if got := class(l.Publish("v", node, attach.SingleNode, at(second))); got != want {
			t.Errorf("Publish to %s at second %d = %s, want %s", node, second, got, want)
		}
	}
	publish("a", 180, "ok")
	publish("a", 181, "unknown")
	l.Upsert(attached("1", "v", "a", 0))
	publish("a", 181, "ok") // what is done is not refused: no word matters to it
	l.Unpublish("v", "a")
	l.Remove("1")
	l.Upsert(waiting("2", "v", "b", 600))
	publish("b", 600, "unknown")
	wantCount(t, l, 0) // the number needs no Nodes
	if !l.Known() {
		t.Error("deaf is not the same as never listed")
	}
	l.UpsertNode(says("a", "v"))
	l.NodesHeard(at(700))
	publish("b", 700, "conflict with a")
	l.UpsertNode(says("a"))
	l.NodesHeard(at(800))
	publish("b", 981, "unknown")
	l.NodesHeard(at(900)) // a bookmark
	publish("b", 981, "ok")
}

// That a node had a volume is forgotten when no VolumeAttachment and no kubelet
// speaks of it, but not while a word may be under way.
func TestWhatANodeHadIsForgotten(t *testing.T) {
	gone := map[string]func(*attach.Ledger){
		"removed":  func(l *attach.Ledger) { l.Remove("1") },
		"relisted": func(l *attach.Ledger) { l.Replace([]attach.Attachment{waiting("2", "v", "b", 600)}) },
	}
	tests := map[string]struct {
		then func(*attach.Ledger)
		want string
	}{
		"heard at once, and a word that was late":    {func(l *attach.Ledger) { l.NodesHeard(at(610)); l.UpsertNode(says("a", "v")) }, "conflict with a"},
		"heard late, and a word that was late":       {func(l *attach.Ledger) { l.NodesHeard(at(1000)); l.UpsertNode(says("a", "v")) }, "conflict with a"},
		"heard soon again, and a word that was late": {func(l *attach.Ledger) { l.NodesHeard(at(610)); l.NodesHeard(at(790)); l.UpsertNode(says("a", "v")) }, "conflict with a"},
		"heard long enough, and then a pod waits":    {func(l *attach.Ledger) { l.NodesHeard(at(610)); l.NodesHeard(at(791)); l.UpsertNode(says("a", "v")) }, "ok"},
		"attached again meanwhile, and gone once more": {func(l *attach.Ledger) {
			l.NodesHeard(at(610))
			l.Upsert(attached("3", "v", "a", 700))
			l.Remove("3")
			l.NodesHeard(at(791))
			l.UpsertNode(says("a", "v"))
		}, "conflict with a"},
		"a word came meanwhile": {func(l *attach.Ledger) {
			l.NodesHeard(at(610))
			l.UpsertNode(says("a", "v"))
			l.NodesHeard(at(791))
			l.NodesHeard(at(1000))
		}, "conflict with a"},
	}
	for how, goes := range gone {
		for name, tt := range tests {
			t.Run(how+", "+name, func(t *testing.T) {
				l := attach.NewLedger(attach.Options{})
				l.ReplaceNodes([]attach.Node{says("a"), says("b")})
				l.Replace([]attach.Attachment{attached("1", "v", "a", 0)})
				l.NodesHeard(at(590))
				goes(l)
				l.Upsert(waiting("2", "v", "b", 600))
				tt.then(l)
				wantPublish(t, l, "v", "b", attach.SingleNode, tt.want)
			})
		}
	}
}

// Whatever comes and goes, nothing is left of it.
func TestNothingIsLeft(t *testing.T) {
	l := attach.NewLedger(attach.Options{})
	l.ReplaceNodes([]attach.Node{says("a"), says("b")})
	l.Replace(nil)
	before := l.Size()
	for i := range 100 {
		uid, volume := fmt.Sprint(i), fmt.Sprint("v", i)
		l.Upsert(waiting(uid, volume, "a", i))
		if _, err := l.Publish(volume, "a", attach.SingleNode, at(i)); err != nil {
			t.Fatal(err)
		}
		switch i % 4 {
		case 0:
			l.Upsert(attached(uid, volume, "a", i))
		case 1:
			l.UpsertNode(says("a", volume))
			l.Upsert(attached(uid, volume, "a", i))
			l.UpsertNode(says("a"))
		case 2:
			l.Unpublish(volume, "a")
		}
		l.Remove(uid)
		l.NodesHeard(at(i))
	}
	l.NodesHeard(at(99 + 181))
	if after := l.Size(); after != before {
		t.Errorf("%d entries were kept before, %d are now", before, after)
	}
}
