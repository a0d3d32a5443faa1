package attach_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// limited is a ledger of which node a can hold so many volumes.
func limited(limit int, list ...attach.Attachment) *attach.Ledger {
	l := rebuilt(list...)
	l.ReplaceLimits(map[string]int{"a": limit})
	return l
}

// asks makes a VolumeAttachment that waits, and asks for it.
func asks(l *attach.Ledger, volume, node string) error {
	l.Upsert(waiting(volume+"@"+node, volume, node, 0))
	_, err := l.Publish(volume, node, attach.SingleNode, at(60))
	return err
}

// What a node has counts until it is gone, once, and what it has it is given again.
func TestNodeHasItsNumber(t *testing.T) {
	for name, c := range map[string]struct {
		limit int
		then  func(*attach.Ledger)
		want  string // what a new volume is answered
	}{
		"room for one more":            {3, func(*attach.Ledger) {}, ""},
		"attached":                     {2, func(*attach.Ledger) {}, "2 of 2"},
		"no room for any":              {0, func(l *attach.Ledger) { l.Replace(nil) }, "0 of 0"},
		"admitted":                     {3, func(l *attach.Ledger) { _ = asks(l, "v3", "a") }, "3 of 3"},
		"admitted to another node":     {3, func(l *attach.Ledger) { _ = asks(l, "v3", "b") }, ""},
		"admitted and attached since":  {4, func(l *attach.Ledger) { _ = asks(l, "v3", "a"); l.Upsert(attached("v3@a", "v3", "a", 0)) }, ""},
		"waits, and was not asked for": {3, func(l *attach.Ledger) { l.Upsert(waiting("3", "v3", "a", 0)) }, ""},
		"two objects for one volume":   {3, func(l *attach.Ledger) { l.Upsert(attached("1-again", "v1", "a", 1)) }, ""},
		"detached":                     {2, func(l *attach.Ledger) { l.Remove("1") }, ""},
		"being detached":               {2, func(l *attach.Ledger) { l.Upsert(deleting(attached("1", "v1", "a", 0))); l.Unpublish("v1", "a") }, "2 of 2"},
		"abandoned":                    {3, func(l *attach.Ledger) { _ = asks(l, "v3", "a"); l.Abandon("v3", "a") }, ""},
		"unpublished":                  {3, func(l *attach.Ledger) { _ = asks(l, "v3", "a"); l.Unpublish("v3", "a") }, ""},
		"unpublished everywhere":       {3, func(l *attach.Ledger) { _ = asks(l, "v3", "a"); l.Unpublish("v3", "") }, ""},
		"admitted, and taken back":     {3, func(l *attach.Ledger) { _ = asks(l, "v3", "a"); l.Remove("v3@a") }, ""},
		"admitted, and listed anew": {3, func(l *attach.Ledger) {
			_ = asks(l, "v3", "a")
			l.Replace(append(two(), waiting("v3@a", "v3", "a", 0)))
		}, "3 of 3"},
		"admitted, and listed no more": {3, func(l *attach.Ledger) { _ = asks(l, "v3", "a"); l.Replace(two()) }, ""},
		"the number goes down":         {3, func(l *attach.Ledger) { l.UpsertLimit("a", 1) }, "2 of 1"},
		"the number goes up":           {2, func(l *attach.Ledger) { l.UpsertLimit("a", 3) }, ""},
		"the number is gone":           {2, func(l *attach.Ledger) { l.RemoveLimit("a") }, ""},
		"the number is listed no more": {2, func(l *attach.Ledger) { l.ReplaceLimits(map[string]int{"b": 0}) }, ""},
		"the number came later":        {2, func(l *attach.Ledger) { l.ReplaceLimits(nil); l.UpsertLimit("a", 2) }, "2 of 2"},
	} {
		t.Run(name, func(t *testing.T) {
			l := limited(c.limit, two()...)
			c.then(l)
			err, got := asks(l, "new", "a"), ""
			var full *attach.FullError
			switch {
			case errors.As(err, &full):
				got = fmt.Sprintf("%d of %d", full.Has, full.Limit)
			case err != nil:
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// two volumes are attached to node a.
func two() []attach.Attachment {
	return []attach.Attachment{attached("1", "v1", "a", 0), attached("2", "v2", "a", 0)}
}

// A repeat is never refused, whatever the number is now.
func TestFullNodeIsGivenAgainWhatItHas(t *testing.T) {
	l := limited(2, attached("1", "v1", "a", 0))
	for range 2 {
		if err := asks(l, "v2", "a"); err != nil {
			t.Fatal(err)
		}
	}
	l.UpsertLimit("a", 0)
	wantPublish(t, l, "v1", "a", attach.SingleNode, "ok")
	wantPublish(t, l, "v2", "a", attach.SingleNode, "ok")
}

// Who waits is told of the other node first: room alone would not help him.
func TestConflictIsToldBeforeTheNumber(t *testing.T) {
	l := limited(0, attached("1", "v1", "b", 0), waiting("2", "v1", "a", 60))
	wantPublish(t, l, "v1", "a", attach.SingleNode, "conflict with b")
}

// A dozen pods that begin at once get exactly what there is room for, also beside detaches on the same node.
func TestManyAtOnceDoNotGetOverTheNumber(t *testing.T) {
	const limit, more = 20, 5
	l := limited(limit)
	all := make([]string, limit+more)
	for i := range all {
		all[i] = fmt.Sprint("v", i)
		l.Upsert(waiting(all[i], all[i], "a", 0))
	}
	admitted := together(t, l, all)
	if len(admitted) != limit {
		t.Fatalf("%d are admitted, want %d", len(admitted), limit)
	}
	var rest []string
	for _, volume := range all {
		if !admitted[volume] {
			rest = append(rest, volume)
		}
	}
	left := 0
	for volume := range admitted {
		if left++; left > 2 {
			break
		}
		l.Unpublish(volume, "a")
		l.Remove(volume)
	}
	if again := together(t, l, rest); len(again) != 2 {
		t.Errorf("%d are admitted after two have left", len(again))
	}
}

// together asks for all of the volumes on node a at once, for each of them twice.
func together(t *testing.T, l *attach.Ledger, volumes []string) (admitted map[string]bool) {
	t.Helper()
	var mu sync.Mutex
	var callers sync.WaitGroup
	start := make(chan struct{})
	admitted = map[string]bool{}
	for _, volume := range append(volumes, volumes...) {
		callers.Go(func() {
			<-start
			_, err := l.Publish(volume, "a", attach.SingleNode, at(60))
			var full *attach.FullError
			if err != nil && !errors.As(err, &full) {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			admitted[volume] = admitted[volume] || err == nil
		})
	}
	close(start)
	callers.Wait()
	for volume, yes := range admitted {
		if !yes {
			delete(admitted, volume)
		}
	}
	return admitted
}

func TestFullErrorSaysWhatToDo(t *testing.T) {
	err := &attach.FullError{Volume: "rds1/pvc-1", Node: "worker-1", Has: 217, Limit: 216}
	for _, want := range []string{"volume rds1/pvc-1", "node worker-1", "217 volumes", "CSINode", "have 216", "another node", "node.maxVolumes"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	err.Node = strings.Repeat("x", 253)
	if text := err.Error(); len(text) > 700 || !strings.HasSuffix(text, "restart the node plugin there") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}
