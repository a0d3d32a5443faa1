package attach_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// A word proves what this process saw of it.
func TestWords(t *testing.T) {
	l := attach.NewLedger(attach.Options{})
	l.ReplaceNodes([]attach.Node{says("a", "first", "on"), outOfService(says("b", "first"))})
	l.Replace([]attach.Attachment{attached("1", "on", "a", 0), waiting("2", "asked", "a", 0), attached("3", "later", "b", 0)})
	wantPublish(t, l, "asked", "a", attach.SingleNode, "ok")
	l.UpsertNode(says("a", "first", "on", "asked", "wish"))
	l.UpsertNode(outOfService(says("b", "first", "later")))
	want := []attach.Word{
		{Node: "a", Volume: "asked", Proof: attach.Has},
		{Node: "a", Volume: "first", Proof: attach.MayHave},
		{Node: "a", Volume: "on", Proof: attach.Has},
		{Node: "a", Volume: "wish", Proof: attach.Waits},
		{Node: "b", Volume: "first", Proof: attach.MayHave},
		{Node: "b", Volume: "later", Proof: attach.Has},
	}
	if diff := cmp.Diff(want, l.Words()); diff != "" {
		t.Errorf("Words (-want +got):\n%s", diff)
	}
	l.UpsertNode(says("a"))
	l.RemoveNode("b")
	if got := l.Words(); len(got) > 0 {
		t.Errorf("nobody says anything, and Words = %v", got)
	}
}
