package attach_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// granted keeps what it was granted, as soon as it is attached.
func granted(a attach.Attachment, m attach.Mode) attach.Attachment {
	if a.Attached {
		a.Granted = attach.GrantOf(m)
	}
	return a
}

// saying is of a PersistentVolume that says so now.
func saying(m attach.Mode, a attach.Attachment) attach.Attachment {
	a.Mode = m
	return a
}

// Somebody changes the access modes of a PersistentVolume while it is attached to a. What a was granted counts, and
// in the stricter direction what the PersistentVolume says now.
func TestChangedAccessModes(t *testing.T) {
	const one, two, read = attach.SingleNode, attach.MultiNode, attach.Readers
	was := attach.GrantOf
	for name, tt := range map[string]struct {
		granted attach.Grant
		now     attach.Mode
		asked   attach.Mode
		want    string
	}{
		"a writer, then for readers":              {was(one), read, read, "conflict with a"},
		"a writer, then for migrations":           {was(one), two, two, "conflict with a"},
		"a virtual machine, then for readers":     {was(two), read, read, "conflict with a"},
		"a virtual machine, then for one node":    {was(two), one, one, "conflict with a"},
		"a reader, then for one node":             {was(read), one, one, "conflict with a"},
		"a reader, then for migrations":           {was(read), two, two, "conflict with a"},
		"a virtual machine, as before":            {was(two), two, two, "ok"},
		"a reader, as before":                     {was(read), read, read, "ok"},
		"nobody told, and it is for migrations":   {0, two, two, "ok"},
		"nobody told, and it is for readers":      {0, read, read, "conflict with a"},
		"nobody told, and it is for one node":     {0, one, one, "conflict with a"},
		"a writer, and a caller that is not seen": {was(one), one, read, "conflict with a"},
	} {
		t.Run(name, func(t *testing.T) {
			a := attached("1", "v", "a", 0)
			a.Granted = tt.granted
			list := []attach.Attachment{saying(tt.now, a), saying(tt.now, waiting("2", "v", "b", 100))}
			wantPublish(t, rebuilt(list...), "v", "b", tt.asked, tt.want)
			seen := rebuilt(saying(one, a), saying(one, list[1])) // and changed before its eyes
			for _, a := range list {
				seen.Upsert(a)
			}
			wantPublish(t, seen, "v", "b", tt.asked, tt.want)
		})
	}
}

// A repeated publish changes nothing, and the record of what was mounted least of all.
func TestGrantStands(t *testing.T) {
	wantGrant := func(l *attach.Ledger, asked attach.Mode, want string) {
		t.Helper()
		if got, err := l.Publish("v", "a", asked, at(240)); err != nil || got.String() != want {
			t.Errorf("granted %q, %v; want %q", got, err, want)
		}
	}
	l := rebuilt(saying(attach.SingleNode, waiting("1", "v", "a", 0)))
	wantGrant(l, attach.SingleNode, "SingleNode")
	l.Upsert(saying(attach.Readers, waiting("1", "v", "a", 0))) // the reply may be under way
	wantGrant(l, attach.Readers, "SingleNode")
	l.Upsert(saying(attach.Readers, granted(attached("1", "v", "a", 0), attach.SingleNode)))
	wantGrant(l, attach.Readers, "SingleNode")
	l.Unpublish("v", "a")
	l.Remove("1")
	l.Upsert(saying(attach.Readers, waiting("2", "v", "a", 300)))
	wantGrant(l, attach.Readers, "Readers")

	l = rebuilt(saying(attach.Readers, attached("1", "v", "a", 0)))
	wantGrant(l, attach.Readers, "") // nobody told, and it is not made up
	wantGrant(l, attach.Readers, "")

	l = attach.Standalone()
	wantGrant(l, attach.MultiNode, "MultiNode")
	wantGrant(l, attach.Readers, "MultiNode")
}

// What this process granted, and no VolumeAttachment tells yet, counts as well.
func TestChangedBeforeItIsAttached(t *testing.T) {
	a, b := waiting("1", "v", "a", 0), waiting("2", "v", "b", 100)
	l := rebuilt(a)
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
	l.Upsert(saying(attach.Readers, a))
	l.Upsert(saying(attach.Readers, b))
	wantPublish(t, l, "v", "b", attach.Readers, "conflict with a")
	l.Upsert(saying(attach.Readers, granted(attached("1", "v", "a", 0), attach.SingleNode)))
	wantPublish(t, l, "v", "b", attach.Readers, "conflict with a")
	l.Unpublish("v", "a")
	l.Remove("1")
	wantPublish(t, l, "v", "b", attach.Readers, "ok")
}

// A process that is asked from now on does not know what the one before it granted to those who wait. That it was not
// received is told by the attacher: it asks again, writes down why it does not, or detaches.
func TestWhatAnEarlierProcessMayHaveGranted(t *testing.T) {
	const read = attach.Readers
	a, b := saying(read, waiting("1", "v", "a", 0)), saying(read, waiting("2", "v", "b", 100))
	failed := a
	failed.AttachError, failed.AttachErrorAt = "node a is gone", at(200)
	again := failed
	again.AttachErrorAt = at(201)
	for name, tt := range map[string]struct {
		first attach.Attachment
		then  func(*attach.Ledger)
		want  string
	}{
		"nothing more is heard":           {a, func(*attach.Ledger) {}, "unknown"},
		"it is seen again":                {a, func(l *attach.Ledger) { l.Upsert(a); l.Replace([]attach.Attachment{a, b}) }, "unknown"},
		"it is asked for":                 {a, func(l *attach.Ledger) { wantPublish(t, l, "v", "a", read, "unknown") }, "ok"},
		"another process was asked since": {a, func(l *attach.Ledger) { l.Doubt(); l.Replace([]attach.Attachment{a, b}) }, "unknown"},
		"asked for, and then another was": {a, func(l *attach.Ledger) {
			wantPublish(t, l, "v", "a", read, "unknown")
			l.Doubt()
			l.Replace([]attach.Attachment{a, b})
		}, "unknown"},
		"it could not be asked for":       {a, func(l *attach.Ledger) { l.Upsert(failed) }, "ok"},
		"nor now, as before":              {failed, func(l *attach.Ledger) { l.Upsert(again) }, "ok"},
		"that is what was written before": {failed, func(l *attach.Ledger) { l.Upsert(failed) }, "unknown"},
		"it is being deleted":             {a, func(l *attach.Ledger) { l.Upsert(deleting(a)) }, "ok"},
		"it was before":                   {deleting(a), func(*attach.Ledger) {}, "ok"},
		"a late detach":                   {a, func(l *attach.Ledger) { l.Unpublish("v", "a") }, "unknown"},
		"asked for, and a late detach": {a, func(l *attach.Ledger) {
			l.Remove("2")
			wantPublish(t, l, "v", "a", read, "ok")
			l.Upsert(b)
			l.Unpublish("v", "a") // meant for one before it: the yes may arrive all the same
		}, "unknown"},
		"it is gone":             {a, func(l *attach.Ledger) { l.Remove("1") }, "ok"},
		"it was granted to read": {a, func(l *attach.Ledger) { l.Upsert(reads(attached("1", "v", "a", 0))) }, "ok"},
		"it was granted to write": {a, func(l *attach.Ledger) {
			l.Upsert(saying(read, granted(attached("1", "v", "a", 0), attach.SingleNode)))
		}, "conflict with a"},
	} {
		t.Run(name, func(t *testing.T) {
			l := attach.NewLedger(attach.Options{})
			l.ReplaceNodes(nil)
			l.Replace([]attach.Attachment{tt.first, b})
			tt.then(l)
			wantPublish(t, l, "v", "b", read, tt.want)
		})
	}
}

// What is attached is repeated, whatever is not known of others.
func TestRepeatBesideWhatAnEarlierProcessMayHaveGranted(t *testing.T) {
	l := attach.NewLedger(attach.Options{})
	l.ReplaceNodes(nil)
	l.Replace([]attach.Attachment{attached("1", "v", "a", 0), waiting("2", "v", "b", 100)})
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
}

func TestGrantIsKeptAsText(t *testing.T) {
	for _, m := range []attach.Mode{attach.SingleNode, attach.MultiNode, attach.Readers} {
		g, ok := attach.ParseGrant(attach.GrantOf(m).String())
		if got, told := g.Mode(); !ok || !told || got != m {
			t.Errorf("%s is read as %v, %t, %t", m, got, told, ok)
		}
	}
	if g, ok := attach.ParseGrant(attach.Grant(0).String()); !ok || g != 0 {
		t.Errorf("what tells nothing tells %v, %t", g, ok)
	}
	if g, ok := attach.ParseGrant("readers"); ok || g != attach.GrantOf(attach.SingleNode) {
		t.Errorf("what is not understood tells %v, %t", g, ok)
	}
}

// The administrator who changed it reads why it does not help.
func TestConflictSaysWhatWasGranted(t *testing.T) {
	for want, a := range map[string]attach.Attachment{
		"node a (VolumeAttachment va-1 is attached as SingleNode, whatever its PersistentVolume says now)": granted(attached("1", "v", "a", 0), attach.SingleNode),
		"node a (VolumeAttachment va-1 is attached and does not tell that it only reads)":                  attached("1", "v", "a", 0),
	} {
		l := rebuilt(saying(attach.Readers, a), saying(attach.Readers, waiting("2", "v", "b", 100)))
		_, err := l.Publish("v", "b", attach.Readers, at(240))
		if conflict := (*attach.ConflictError)(nil); !errors.As(err, &conflict) || !strings.Contains(err.Error(), want) {
			t.Error(err)
		}
	}
}
