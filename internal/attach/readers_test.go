package attach_test

import (
	"testing"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// reads is of a PersistentVolume with ReadOnlyMany, and was granted as such.
func reads(a attach.Attachment) attach.Attachment {
	a.Mode = attach.Readers
	return granted(a, attach.Readers)
}

// Any number of nodes may read; a writer is alone, whoever came first and whatever a caller says.
func TestReaders(t *testing.T) {
	const readers, writer, mover = attach.Readers, attach.SingleNode, attach.MultiNode
	two := []attach.Attachment{reads(attached("1", "v", "a", 0)), reads(attached("2", "v", "b", 0))}
	for name, c := range map[string]struct {
		list  []attach.Attachment
		node  string
		asked attach.Mode
		want  string
	}{
		"a third reader":                      {append(two, reads(waiting("3", "v", "c", 100))), "c", readers, "ok"},
		"the first again":                     {two, "a", readers, "ok"},
		"all at the same time":                {[]attach.Attachment{reads(waiting("1", "v", "a", 0)), reads(waiting("2", "v", "b", 0))}, "b", readers, "ok"},
		"a caller that wants to write":        {append(two, reads(waiting("3", "v", "c", 100))), "c", writer, "conflict with a, b"},
		"one that wants to migrate":           {append(two, reads(waiting("3", "v", "c", 100))), "c", mover, "conflict with a, b"},
		"a writer beside readers":             {append(two, waiting("3", "v", "c", 100)), "c", writer, "conflict with a, b"},
		"a writer that says it reads":         {append(two, waiting("3", "v", "c", 100)), "c", readers, "conflict with a, b"},
		"a reader beside a writer":            {[]attach.Attachment{attached("1", "v", "a", 0), reads(waiting("2", "v", "b", 100))}, "b", readers, "conflict with a"},
		"a reader beside a virtual machine":   {[]attach.Attachment{multi(attached("1", "v", "a", 0)), reads(waiting("2", "v", "b", 100))}, "b", readers, "conflict with a"},
		"a virtual machine beside a reader":   {[]attach.Attachment{reads(attached("1", "v", "a", 0)), multi(waiting("2", "v", "b", 100))}, "b", mover, "conflict with a"},
		"a reader before a writer that waits": {[]attach.Attachment{reads(waiting("1", "v", "a", 0)), waiting("2", "v", "b", 100)}, "a", readers, "ok"},
		"a reader after a writer that waits":  {[]attach.Attachment{waiting("1", "v", "a", 0), reads(waiting("2", "v", "b", 100))}, "b", readers, "conflict with a"},
		"alone, and to write":                 {[]attach.Attachment{reads(waiting("1", "v", "a", 0))}, "a", writer, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			l := rebuilt(c.list...)
			wantPublish(t, l, "v", c.node, c.asked, c.want)
			if moves := l.Migrations(); len(moves) != 0 {
				t.Errorf("readers migrate: %v", moves)
			}
		})
	}
}

// Readers do not expire: there is no deadline to them.
func TestReadersHaveTime(t *testing.T) {
	l := rebuilt(reads(attached("1", "v", "a", 0)), reads(waiting("2", "v", "b", 10)))
	if _, err := l.Publish("v", "b", attach.Readers, at(100_000)); err != nil {
		t.Error(err)
	}
}

// A kubelet that has it in use without a VolumeAttachment may write.
func TestReadersAndKubeletsWord(t *testing.T) {
	l := rebuilt(reads(attached("1", "v", "a", 0)), reads(waiting("2", "v", "b", 10)))
	l.ReplaceNodes([]attach.Node{{Name: "a", UID: "a", InUse: []string{"v"}}, {Name: "c", UID: "c", InUse: []string{"v"}}})
	wantPublish(t, l, "v", "b", attach.Readers, "conflict with c")
	l.UpsertNode(attach.Node{Name: "c", UID: "c", InUse: []string{"v"}, OutOfService: true})
	wantPublish(t, l, "v", "b", attach.Readers, "ok")
}

// Pods that wait for it on several nodes name it to their kubelets first. After a
// restart, after a hand-over and on Nodes that are new, all such words count: where
// there is a VolumeAttachment they are readers' words.
func TestReadersDoNotWaitForEachOther(t *testing.T) {
	wait := []attach.Attachment{reads(waiting("1", "v", "a", 0)), reads(waiting("2", "v", "b", 60))}
	for name, l := range map[string]*attach.Ledger{
		"after a restart":   rebuilt(wait...),
		"after a hand-over": rebuilt(wait...),
		"two new nodes":     rebuilt(wait...),
	} {
		t.Run(name, func(t *testing.T) {
			switch name {
			case "after a hand-over":
				l.ReplaceNodes([]attach.Node{says("a"), says("b")})
				l.UpsertNode(says("a", "v"))
				l.Doubt()
				l.Replace(wait)
				l.ReplaceNodes([]attach.Node{says("a", "v"), says("b", "v")})
				wantPublish(t, l, "v", "b", attach.Readers, "unknown") // until both were asked for once
				wantPublish(t, l, "v", "a", attach.Readers, "ok")
			case "two new nodes":
				l.UpsertNode(says("a", "v"))
				l.UpsertNode(says("b", "v"))
			default:
				l.ReplaceNodes([]attach.Node{says("a", "v"), says("b", "v")})
			}
			wantPublish(t, l, "v", "b", attach.Readers, "ok")
			wantPublish(t, l, "v", "a", attach.Readers, "ok")
			wantPublish(t, l, "v", "a", attach.SingleNode, "conflict with b")
			l.Remove("1") // by force: what its kubelet has is in the way
			wantPublish(t, l, "v", "b", attach.Readers, "conflict with a")
		})
	}
}

// When a PersistentVolume goes, nothing says any more that the others only read.
func TestReadersThatLoseTheirWord(t *testing.T) {
	l := rebuilt(reads(attached("1", "v", "a", 0)), reads(waiting("2", "v", "b", 10)))
	l.Upsert(attached("1", "v", "a", 0))
	wantPublish(t, l, "v", "b", attach.Readers, "conflict with a")
	l.Upsert(reads(attached("1", "v", "a", 0)))
	wantPublish(t, l, "v", "b", attach.Readers, "ok")
}

// Without Kubernetes those who were admitted speak for themselves.
func TestReadersWithoutKubernetes(t *testing.T) {
	l := attach.Standalone()
	wantPublish(t, l, "v", "a", attach.Readers, "ok")
	wantPublish(t, l, "v", "b", attach.Readers, "ok")
	wantPublish(t, l, "v", "c", attach.SingleNode, "conflict with a, b")
	wantPublish(t, l, "v", "c", attach.MultiNode, "conflict with a, b")
	l.Unpublish("v", "")
	wantPublish(t, l, "v", "c", attach.SingleNode, "ok")
	wantPublish(t, l, "v", "a", attach.Readers, "conflict with c")
	wantPublish(t, l, "v", "a", attach.MultiNode, "conflict with c")
}

func TestModesAgreeOnWhatBothSay(t *testing.T) {
	all := []attach.Mode{attach.SingleNode, attach.MultiNode, attach.Readers}
	for _, a := range all {
		for _, b := range all {
			want := attach.SingleNode
			if a == b {
				want = a
			}
			if got := a.And(b); got != want {
				t.Errorf("%v and %v: %v, want %v", a, b, got, want)
			}
		}
	}
}
