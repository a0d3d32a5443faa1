package attach_test

import (
	"errors"
	"testing"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// A volume is called unused when nobody can have it; one thing that says otherwise is enough.
func TestUnused(t *testing.T) {
	known := func(nodes ...attach.Node) func(list ...attach.Attachment) *attach.Ledger {
		return func(list ...attach.Attachment) *attach.Ledger {
			l := attach.NewLedger(attach.Options{})
			l.Replace(list)
			l.ReplaceNodes(nodes)
			return l
		}
	}
	own := waiting("1", "v", "a", 0)
	publish := func(l *attach.Ledger) { wantPublish(t, l, "v", "a", attach.SingleNode, "ok") }
	for name, tt := range map[string]struct {
		ledger *attach.Ledger
		then   func(*attach.Ledger)
		want   bool
	}{
		"nobody asks":                         {known()(), nil, true},
		"the node asks":                       {known(says("a"))(own), nil, true},
		"its pod waits":                       {known(says("a"))(own), func(l *attach.Ledger) { l.UpsertNode(says("a", "v")) }, true},
		"a pod waits elsewhere":               {known(says("a"), says("b"))(own), func(l *attach.Ledger) { l.UpsertNode(says("b", "v")) }, true},
		"another volume":                      {known(says("a", "w"))(own, attached("2", "w", "a", 0)), nil, true},
		"the machine is off":                  {known(outOfService(says("b", "v")))(own), nil, true},
		"unmounted and detached":              {known(says("a", "v"))(attached("0", "v", "a", 0)), func(l *attach.Ledger) { l.UpsertNode(says("a")); l.Remove("0"); l.Upsert(own) }, true},
		"failed for certain":                  {known(says("a"))(own), func(l *attach.Ledger) { publish(l); l.Abandon("v", "a") }, true},
		"failed, and its pod waits":           {known(says("a", "w"))(own), func(l *attach.Ledger) { publish(l); l.UpsertNode(says("a", "v")); l.Abandon("v", "a") }, true},
		"failed, its pod waited before":       {known(says("a"))(own), func(l *attach.Ledger) { l.UpsertNode(says("a", "v")); publish(l); l.Abandon("v", "a") }, true},
		"nothing is known":                    {attach.NewLedger(attach.Options{}), nil, false},
		"it is attached":                      {known(says("a"))(attached("1", "v", "a", 0)), nil, false},
		"it is attached, and unmounted":       {known(says("a", "v"))(attached("1", "v", "a", 0)), func(l *attach.Ledger) { l.UpsertNode(says("a")) }, false},
		"failed, and it may be mounted":       {known(says("a", "v"))(own), func(l *attach.Ledger) { publish(l); l.Abandon("v", "a") }, false},
		"another asks":                        {known()(own, waiting("2", "v", "b", 0)), nil, false},
		"another has it":                      {known()(own, attached("2", "v", "b", 0)), nil, false},
		"admitted":                            {known()(own), publish, false},
		"admitted, and its pod waits":         {known(says("a"))(own), func(l *attach.Ledger) { publish(l); l.UpsertNode(says("a", "v")) }, false},
		"said before this process began":      {known(says("a", "v"))(own), nil, false},
		"said elsewhere before":               {known(says("b", "v"))(own), nil, false},
		"detached by force":                   {known(says("b", "v"))(attached("2", "v", "b", 0)), func(l *attach.Ledger) { l.Remove("2"); l.Upsert(own) }, false},
		"its word may be under way":           {known(says("b"))(attached("2", "v", "b", 0)), func(l *attach.Ledger) { l.Remove("2"); l.Upsert(own) }, false},
		"the node itself is off, and said it": {known(outOfService(says("a", "v")))(own), nil, false},
		"failed, and its Node was made again": {known(says("a"))(own), func(l *attach.Ledger) {
			publish(l)
			l.RemoveNode("a")
			l.UpsertNode(says("a", "v"))
			l.Abandon("v", "a")
		}, false},
		"failed, and its Node was made again and silent": {known(says("a"))(own), func(l *attach.Ledger) {
			publish(l)
			l.RemoveNode("a")
			l.UpsertNode(says("a"))
			l.Abandon("v", "a")
		}, true},
		"failed, and another decided meanwhile": {known(says("a"))(own), func(l *attach.Ledger) {
			publish(l)
			l.Doubt()
			l.Abandon("v", "a")
			l.ReplaceNodes([]attach.Node{says("a")})
		}, false},
		"failed again, after a yes": {known(says("a", "w"))(own), func(l *attach.Ledger) {
			publish(l)
			l.UpsertNode(says("a", "v"))
			l.Upsert(attached("1", "v", "a", 0))
			l.Abandon("v", "a")
			l.Remove("1")
			l.Upsert(own)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.then != nil {
				tt.then(tt.ledger)
			}
			if got := tt.ledger.Unused("v", "a"); got != tt.want {
				t.Errorf("unused: %t", got)
			}
		})
	}
}

// Without Kubernetes those who were admitted speak, once it is certain that a process before this one admitted nobody who is there still.
func TestUnusedStandalone(t *testing.T) {
	for name, tt := range map[string]struct {
		then func(*attach.Ledger)
		want bool
	}{
		"a process begins":       {func(*attach.Ledger) {}, false},
		"taken from all":         {func(l *attach.Ledger) { l.Unpublish("v", "") }, true},
		"taken from one":         {func(l *attach.Ledger) { l.Unpublish("v", "a") }, false},
		"another one is taken":   {func(l *attach.Ledger) { l.Unpublish("w", "") }, false},
		"admitted":               {func(l *attach.Ledger) { wantPublish(t, l, "v", "b", attach.SingleNode, "ok") }, false},
		"admitted, and failed":   {func(l *attach.Ledger) { wantPublish(t, l, "v", "b", attach.SingleNode, "ok"); l.Abandon("v", "b") }, false},
		"admitted, and taken":    {func(l *attach.Ledger) { wantPublish(t, l, "v", "b", attach.SingleNode, "ok"); l.Unpublish("v", "b") }, true},
		"another is taken":       {func(l *attach.Ledger) { wantPublish(t, l, "v", "b", attach.SingleNode, "ok"); l.Unpublish("v", "c") }, false},
		"taken from one of many": {func(l *attach.Ledger) { wantPublish(t, l, "v", "b", attach.MultiNode, "ok"); l.Unpublish("v", "b") }, false},
		"taken from one reader":  {func(l *attach.Ledger) { wantPublish(t, l, "v", "b", attach.Readers, "ok"); l.Unpublish("v", "b") }, false},
		"taken, and admitted":    {func(l *attach.Ledger) { l.Unpublish("v", ""); wantPublish(t, l, "v", "b", attach.SingleNode, "ok") }, false},
		"taken from all, and one": {func(l *attach.Ledger) {
			l.Unpublish("v", "")
			wantPublish(t, l, "v", "b", attach.MultiNode, "ok")
			l.Unpublish("v", "b")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := attach.Standalone()
			tt.then(l)
			if got := l.Unused("v", "a"); got != tt.want {
				t.Errorf("unused: %t", got)
			}
		})
	}
}

// What a Node that is made again says first keeps others out, also when a publish to it was under way that fails.
func TestFailedPublishLeavesFirstWords(t *testing.T) {
	l := attach.NewLedger(attach.Options{})
	l.Replace([]attach.Attachment{waiting("1", "v", "a", 0)})
	l.ReplaceNodes([]attach.Node{says("a"), says("b")})
	wantPublish(t, l, "v", "a", attach.SingleNode, "ok")
	l.RemoveNode("a")
	l.UpsertNode(says("a", "v"))
	l.Abandon("v", "a")
	l.Remove("1")
	l.Upsert(waiting("2", "v", "b", 60))
	_, err := l.Publish("v", "b", attach.SingleNode, at(60))
	if conflict := (*attach.ConflictError)(nil); !errors.As(err, &conflict) || conflict.Holder != "a" {
		t.Errorf("%v", err)
	}
}
