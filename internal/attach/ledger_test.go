package attach_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// at is a creation timestamp, in seconds after some midnight.
func at(second int) time.Time {
	return time.Date(2026, 11, 1, 0, 0, second, 0, time.UTC)
}

func attached(uid, volume, node string, second int) attach.Attachment {
	a := waiting(uid, volume, node, second)
	a.Attached = true
	return a
}

func waiting(uid, volume, node string, second int) attach.Attachment {
	return attach.Attachment{UID: uid, Name: "va-" + uid, Volume: volume, Node: node, Created: at(second)}
}

// multi is of a PersistentVolume with raw block and ReadWriteMany.
func multi(a attach.Attachment) attach.Attachment {
	a.Mode = attach.MultiNode
	return a
}

func deleting(a attach.Attachment) attach.Attachment {
	a.Deleting = true
	return a
}

// rebuilt is a ledger of a process that has read the list, and knows that nobody
// before it was asked for what waits there.
func rebuilt(list ...attach.Attachment) *attach.Ledger {
	l := attach.NewLedger(attach.Options{})
	l.ReplaceNodes(nil)
	l.Replace(nil)
	l.Replace(list)
	return l
}

func wantCount(t *testing.T, l *attach.Ledger, want int) {
	t.Helper()
	if n, known := l.Volumes(); n != want || !known {
		t.Errorf("Volumes() = %d, known %t; want %d, known true", n, known, want)
	}
}

// class reduces an answer to what the driver makes a code of.
func class(_ attach.Grant, err error) string {
	var c *attach.ConflictError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &c):
		return "conflict with " + c.Holder
	case errors.Is(err, attach.ErrNotSeen):
		return "not seen"
	case errors.Is(err, attach.ErrUnknown):
		return "unknown"
	default:
		return err.Error()
	}
}

func wantPublish(t *testing.T, l *attach.Ledger, volume, node string, mode attach.Mode, want string) {
	t.Helper()
	if got := class(l.Publish(volume, node, mode, at(240))); got != want {
		t.Errorf("Publish(%s, %s) = %s, want %s", volume, node, got, want)
	}
}

// The case the project started from, in its four parts.

func TestSeedCaseThreeVolumeAttachmentsCountThree(t *testing.T) {
	l := rebuilt(attached("1", "v1", "a", 0), attached("2", "v2", "a", 0), attached("3", "v3", "b", 0))
	wantCount(t, l, 3)
}

func TestSeedCaseNewInstanceRebuiltCountsThreeAgain(t *testing.T) {
	list := []attach.Attachment{attached("1", "v1", "a", 0), attached("2", "v2", "a", 0), attached("3", "v3", "b", 0)}
	first := attach.NewLedger(attach.Options{})
	first.Replace(nil)
	for _, a := range list {
		first.Upsert(a)
	}
	wantCount(t, first, 3)
	wantCount(t, rebuilt(list...), 3)
}

func TestSeedCaseMigrationCountsThreeNotFour(t *testing.T) {
	l := rebuilt(attached("1", "v1", "a", 0), attached("2", "v2", "a", 0), attached("3", "v3", "b", 0))
	l.Upsert(waiting("4", "v3", "a", 60))
	wantCount(t, l, 3)
	l.Upsert(attached("4", "v3", "a", 60))
	wantCount(t, l, 3)
	l.Remove("3")
	wantCount(t, l, 3)
	l.Remove("4")
	wantCount(t, l, 2)
}

func TestSeedCaseUnsyncedIsUnknownNotZero(t *testing.T) {
	l := attach.NewLedger(attach.Options{})
	l.Upsert(attached("1", "v1", "a", 0))
	if n, known := l.Volumes(); known {
		t.Errorf("Volumes() = %d, known, before the first Replace", n)
	}
	wantPublish(t, l, "v1", "a", attach.SingleNode, "unknown")
	if _, err := l.InUse("v1"); !errors.Is(err, attach.ErrUnknown) {
		t.Errorf("InUse before the first Replace: %v", err)
	}
	l.Replace(nil)
	wantCount(t, l, 0)
}

func TestPublishSingleNode(t *testing.T) {
	tests := map[string]struct {
		list []attach.Attachment
		want string
	}{
		"alone":                            {[]attach.Attachment{waiting("1", "v", "b", 100)}, "ok"},
		"no attachment at all":             {nil, "not seen"},
		"only another node's":              {[]attach.Attachment{attached("1", "v", "a", 0)}, "not seen"},
		"another volume's":                 {[]attach.Attachment{waiting("1", "w", "b", 100)}, "not seen"},
		"own is being deleted":             {[]attach.Attachment{deleting(waiting("1", "v", "b", 100))}, "not seen"},
		"repeated after attached":          {[]attach.Attachment{attached("1", "v", "b", 100)}, "ok"},
		"other attached and older":         {[]attach.Attachment{attached("0", "v", "a", 0), waiting("1", "v", "b", 100)}, "conflict with a"},
		"other attached and younger":       {[]attach.Attachment{attached("0", "v", "a", 900), waiting("1", "v", "b", 100)}, "conflict with a"},
		"other attached, being deleted":    {[]attach.Attachment{deleting(attached("0", "v", "a", 0)), waiting("1", "v", "b", 100)}, "conflict with a"},
		"other waiting and older":          {[]attach.Attachment{waiting("0", "v", "a", 0), waiting("1", "v", "b", 100)}, "conflict with a"},
		"other waiting, older, deleting":   {[]attach.Attachment{deleting(waiting("0", "v", "a", 0)), waiting("1", "v", "b", 100)}, "conflict with a"},
		"other waiting, same second":       {[]attach.Attachment{waiting("0", "v", "a", 100), waiting("1", "v", "b", 100)}, "conflict with a"},
		"other younger within clock skew":  {[]attach.Attachment{waiting("0", "v", "a", 110), waiting("1", "v", "b", 100)}, "conflict with a"},
		"other younger beyond clock skew":  {[]attach.Attachment{waiting("0", "v", "a", 111), waiting("1", "v", "b", 100)}, "ok"},
		"own attached, other older waits":  {[]attach.Attachment{waiting("0", "v", "a", 0), attached("1", "v", "b", 100)}, "ok"},
		"both attached (by hand)":          {[]attach.Attachment{attached("0", "v", "a", 0), attached("1", "v", "b", 100)}, "conflict with a"},
		"own twice (by hand), other young": {[]attach.Attachment{waiting("0", "v", "b", 0), waiting("1", "v", "b", 100), waiting("2", "v", "a", 50)}, "conflict with a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantPublish(t, rebuilt(tt.list...), "v", "b", attach.SingleNode, tt.want)
		})
	}
}

func TestPublishMultiNodeStopsAtTwo(t *testing.T) {
	l := rebuilt(multi(attached("1", "v", "a", 0)), multi(waiting("2", "v", "b", 100)), multi(waiting("3", "v", "c", 200)))
	wantPublish(t, l, "v", "b", attach.MultiNode, "ok")
	wantPublish(t, l, "v", "c", attach.MultiNode, "conflict with a, b")
	wantPublish(t, l, "v", "b", attach.SingleNode, "conflict with a")
	l.Unpublish("v", "a")
	wantPublish(t, l, "v", "c", attach.MultiNode, "conflict with a, b")
	l.Remove("1")
	wantPublish(t, l, "v", "c", attach.MultiNode, "ok")
}

// B3: the existing driver opened the fence for 30 s after any detach, and let a
// third node in while the second was live.
func TestNoGraceAfterDetach_B3(t *testing.T) {
	l := rebuilt(attached("1", "v", "a", 0))
	l.Upsert(deleting(attached("1", "v", "a", 0)))
	l.Unpublish("v", "a")
	l.Upsert(waiting("2", "v", "b", 60))
	wantPublish(t, l, "v", "b", attach.SingleNode, "conflict with a")
	l.Remove("1")
	wantPublish(t, l, "v", "b", attach.SingleNode, "ok")
	l.Upsert(waiting("3", "v", "c", 61))
	wantPublish(t, l, "v", "c", attach.SingleNode, "conflict with b")
	l.Upsert(attached("2", "v", "b", 60))
	wantPublish(t, l, "v", "c", attach.SingleNode, "conflict with b")
}

// B3: its fence was memory only, so a failed list left it open. Here the answer
// of a restarted process is the same, with every intent lost.
func TestRestartAfterLostReplyRefusesTheSame_B3(t *testing.T) {
	first := rebuilt(waiting("1", "v", "a", 0))
	wantPublish(t, first, "v", "a", attach.SingleNode, "ok") // and the reply is lost
	first.Upsert(waiting("2", "v", "b", 1))
	wantPublish(t, first, "v", "b", attach.SingleNode, "conflict with a")
	second := rebuilt(waiting("1", "v", "a", 0), waiting("2", "v", "b", 1))
	wantPublish(t, second, "v", "b", attach.SingleNode, "conflict with a")
}

// B18: an unpublish without a node left the record, and the next attach was refused.
func TestUnpublishWithoutNodeMeansAll_B18(t *testing.T) {
	l := attach.Standalone()
	wantPublish(t, l, "v", "a", attach.MultiNode, "ok")
	wantPublish(t, l, "v", "b", attach.MultiNode, "ok")
	l.Unpublish("v", "")
	wantPublish(t, l, "v", "c", attach.SingleNode, "ok")
}

// B19, B25: a migration ends in exactly one owner, whichever end is lost first,
// and what counts is the VolumeAttachment, not who was there first.
func TestMigrationEndsInOneOwner_B19_B25(t *testing.T) {
	for gone, stays := range map[string]string{"1": "b", "2": "a"} {
		l := rebuilt(multi(attached("1", "v", "a", 0)), multi(attached("2", "v", "b", 100)))
		l.Remove(gone)
		if diff := cmp.Diff([]string{stays}, l.Nodes("v")); diff != "" {
			t.Errorf("after %s is gone (-want +got):\n%s", gone, diff)
		}
		l.Upsert(multi(waiting("3", "v", "c", 200)))
		wantPublish(t, l, "v", "c", attach.SingleNode, "conflict with "+stays)
		wantPublish(t, l, "v", "c", attach.MultiNode, "ok")
	}
}

func TestIntentBlocksUntilUnpublishedOrGone(t *testing.T) {
	// Young enough for its VolumeAttachment alone not to block.
	young, old := waiting("1", "v", "a", 500), waiting("2", "v", "b", 100)
	tests := map[string]struct {
		end  func(*attach.Ledger)
		want string
	}{
		"still admitted":  {func(*attach.Ledger) {}, "conflict with a"},
		"abandoned":       {func(l *attach.Ledger) { l.Abandon("v", "a") }, "ok"},
		"unpublished":     {func(l *attach.Ledger) { l.Unpublish("v", "a"); l.Upsert(deleting(young)) }, "ok"},
		"detached late":   {func(l *attach.Ledger) { l.Unpublish("v", "a") }, "unknown"}, // for one before it
		"all unpublished": {func(l *attach.Ledger) { l.Unpublish("v", "") }, "not seen"},
		"gone":            {func(l *attach.Ledger) { l.Remove("1") }, "ok"},
		"relisted":        {func(l *attach.Ledger) { l.Replace([]attach.Attachment{young, old}) }, "conflict with a"},
		"gone in relist":  {func(l *attach.Ledger) { l.Replace([]attach.Attachment{old}) }, "ok"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := rebuilt(young)
			wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
			l.Upsert(old)
			tt.end(l)
			wantPublish(t, l, "v", "b", attach.SingleNode, tt.want)
		})
	}
}

// The RDS fails after A was admitted, and Kubernetes, which counts only attached
// VolumeAttachments, makes one for B within the clock skew. A must go on.
func TestAdmittedIsAdmittedAgainWhenARivalTies(t *testing.T) {
	l := rebuilt()
	a, b := waiting("1", "v", "a", 100), waiting("2", "v", "b", 98) // by another clock
	l.Upsert(a)
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok") // then Export answers Unavailable
	l.Upsert(b)
	wantPublish(t, l, "v", "b", attach.SingleNode, "conflict with a")
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
	l.Replace([]attach.Attachment{b, a})
	l.Upsert(a)
	wantPublish(t, l, "v", "b", attach.SingleNode, "conflict with a")
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
	again := rebuilt(b, a) // the order is forgotten: neither may pass for the first
	wantPublish(t, again, "v", "b", attach.SingleNode, "conflict with a")
	wantPublish(t, again, "v", "a", attach.SingleNode, "conflict with b")
}

// A tie without any admission goes to the one that was written first, and the
// order of arrival survives that a volume is resolved late.
func TestArrivalBreaksTies(t *testing.T) {
	l := rebuilt()
	l.Upsert(waiting("1", "persistentvolume:pv", "a", 100))
	l.Upsert(waiting("2", "persistentvolume:pv", "b", 95))
	l.Upsert(waiting("2", "v", "b", 95))
	l.Upsert(waiting("1", "v", "a", 100))
	wantPublish(t, l, "v", "b", attach.SingleNode, "conflict with a")
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
	l.Replace([]attach.Attachment{waiting("3", "w", "a", 100), waiting("4", "w", "b", 100)})
	wantPublish(t, l, "w", "a", attach.SingleNode, "conflict with b")
	wantPublish(t, l, "w", "b", attach.SingleNode, "conflict with a")
	l.Replace([]attach.Attachment{waiting("5", "w", "c", 100), waiting("4", "w", "b", 100)})
	wantPublish(t, l, "w", "c", attach.SingleNode, "conflict with b")
	wantPublish(t, l, "w", "b", attach.SingleNode, "ok")
}

// While the watch lags, the predecessor of the VolumeAttachment that asks may
// still be visible. It must not pass for the one that is meant.
func TestUnpublishedAttachmentGivesNoRightAgain(t *testing.T) {
	l := rebuilt(attached("1", "v", "a", 0))
	l.Unpublish("v", "a") // its deletion is not visible yet
	wantPublish(t, l, "v", "a", attach.SingleNode, "not seen")
	l.Upsert(attached("1", "v", "a", 0)) // a late update changes nothing
	l.Replace([]attach.Attachment{attached("1", "v", "a", 0)})
	wantPublish(t, l, "v", "a", attach.SingleNode, "not seen")
	l.Remove("1")
	l.Upsert(waiting("2", "v", "a", 60))
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
}

// An attacher repeats a detach from a stale cache, when the VolumeAttachment was
// made again and seen. Only what was written after that shows that it lives on.
func TestLateUnpublishSpendsNotForEver(t *testing.T) {
	l := rebuilt(attached("1", "v", "a", 0))
	l.Unpublish("v", "a")
	l.Remove("1")
	made := waiting("2", "v", "a", 60)
	l.Upsert(made)
	l.Unpublish("v", "a") // late, and meant for the first
	_, refused := l.Publish("v", "a", attach.SingleNode, at(0))
	if !errors.Is(refused, attach.ErrNotSeen) {
		t.Fatalf("Publish right after = %v", refused)
	}
	l.Upsert(made) // this may be older than the unpublish
	wantPublish(t, l, "v", "a", attach.SingleNode, "not seen")
	made.AttachError = "rpc error: code = NotFound desc = " + refused.Error()
	l.Upsert(deleting(made))
	wantPublish(t, l, "v", "a", attach.SingleNode, "not seen")
	l.Upsert(made)
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")

	l.Unpublish("v", "a") // a second one is not answered for by the mark of the first
	l.Upsert(made)
	wantPublish(t, l, "v", "a", attach.SingleNode, "not seen")
	next := rebuilt(made) // nor is the same one of another process
	next.Unpublish("v", "nobody")
	next.Unpublish("v", "a")
	next.Upsert(made)
	wantPublish(t, next, "v", "a", attach.SingleNode, "not seen")
}

func TestInUseAndNodes(t *testing.T) {
	l := rebuilt(attached("1", "v", "b", 0), waiting("2", "v", "a", 0), attached("3", "w", "c", 0))
	got, err := l.InUse("v")
	if diff := cmp.Diff([]attach.Use{{Node: "a", Why: attach.Asked}, {Node: "b", Why: attach.Attached}}, got); diff != "" || err != nil {
		t.Errorf("InUse: %v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff([]string{"b"}, l.Nodes("v")); diff != "" {
		t.Errorf("Nodes (-want +got):\n%s", diff)
	}
	l.Remove("1")
	l.Remove("2")
	l.Remove("2") // twice is once
	if got, err := l.InUse("v"); len(got) != 0 || err != nil {
		t.Errorf("InUse of a free volume = %v, %v", got, err)
	}
	if got := l.Nodes("nobody's"); len(got) != 0 {
		t.Errorf("Nodes of an unknown volume = %v", got)
	}
}

// A PersistentVolume may become known after the VolumeAttachment that names it.
func TestAttachmentMovesWhenItsVolumeIsResolved(t *testing.T) {
	l := rebuilt(attached("1", "persistentvolume:pv", "a", 0), attached("2", "v", "b", 0))
	wantCount(t, l, 2)
	l.Upsert(attached("1", "v", "a", 0))
	wantCount(t, l, 1)
	if diff := cmp.Diff([]string{"a", "b"}, l.Nodes("v")); diff != "" {
		t.Errorf("Nodes (-want +got):\n%s", diff)
	}
	if got := l.Nodes("persistentvolume:pv"); len(got) != 0 {
		t.Errorf("the unresolved volume still has %v", got)
	}
}

func TestStandaloneKnowsIntentsAndNoNumber(t *testing.T) {
	l := attach.Standalone()
	wantPublish(t, l, "v", "b", attach.SingleNode, "ok")
	wantPublish(t, l, "v", "b", attach.SingleNode, "ok")
	wantPublish(t, l, "v", "a", attach.SingleNode, "conflict with b")
	if n, known := l.Volumes(); known {
		t.Errorf("Volumes() = %d, known, without an authority", n)
	}
	got, err := l.InUse("v")
	if diff := cmp.Diff([]attach.Use{{Node: "b", Why: attach.Asked}}, got); diff != "" || err != nil {
		t.Errorf("InUse: %v (-want +got):\n%s", err, diff)
	}
	if got := l.Nodes("v"); !slices.Equal(got, []string{"b"}) {
		t.Errorf("Nodes = %v", got)
	}
	l.Unpublish("v", "b")
	l.Unpublish("v", "gone") // a vanished node: kubernetes/kubernetes#72335
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
}
