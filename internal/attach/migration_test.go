package attach_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// within gives a migration its time.
func within(limit time.Duration, a attach.Attachment) attach.Attachment {
	a.MigrationTimeout = limit
	return multi(a)
}

func wantMigrations(t *testing.T, l *attach.Ledger, want ...attach.Migration) {
	t.Helper()
	got := l.Migrations()
	if len(got) == 0 {
		got = nil
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Migrations (-want +got):\n%s", diff)
	}
}

func wantPublishAt(t *testing.T, l *attach.Ledger, node string, second int, want string) {
	t.Helper()
	granted, err := l.Publish("v", node, attach.MultiNode, at(second))
	got := class(granted, err)
	if late := (*attach.MigrationExpiredError)(nil); errors.As(err, &late) {
		got = "expired with " + late.Other
	}
	if got != want {
		t.Errorf("Publish to %s at second %d = %s, want %s", node, second, got, want)
	}
}

// B19: in the existing driver a migration past its limit was never found, since
// the check stood behind the refusal of a third node, and its gauge went to -1
// after a restart. Here both follow from VolumeAttachments: a new process says the
// same, and the number is never off.
func TestExpiredMigration_B19(t *testing.T) {
	list := []attach.Attachment{multi(attached("1", "v", "a", 0)), multi(waiting("2", "v", "b", 100))}
	l := rebuilt(list...)
	wantPublishAt(t, l, "b", 400, "ok") // the last second of five minutes
	wantMigrations(t, l)                // admitted, and not there yet: the next process would not know
	wantPublishAt(t, l, "b", 401, "expired with a")
	wantCount(t, l, 1)

	again := rebuilt(list...)
	wantPublishAt(t, again, "b", 401, "expired with a")
	wantMigrations(t, again)
	wantCount(t, again, 1)

	moving := attach.Migration{Volume: "v", From: "a", To: "b", Began: at(100), Deadline: at(400)}
	list[1].Attached = true
	for _, l := range []*attach.Ledger{l, again, rebuilt(list...)} {
		l.Upsert(list[1])
		wantPublishAt(t, l, "a", 86_400, "ok") // both are there: a repeat changes nothing
		wantPublishAt(t, l, "b", 86_400, "ok")
		wantMigrations(t, l, moving)
		wantCount(t, l, 1)
		l.Remove("1")
		wantMigrations(t, l)
		wantCount(t, l, 1)
	}
}

// B19: which of the two is refused, and since when the time runs.
func TestDeadline_B19(t *testing.T) {
	tests := map[string]struct {
		list   []attach.Attachment
		node   string
		second int
		want   string
	}{
		"in time":                        {[]attach.Attachment{multi(attached("1", "v", "a", 0)), multi(waiting("2", "v", "b", 100))}, "b", 400, "ok"},
		"late":                           {[]attach.Attachment{multi(attached("1", "v", "a", 0)), multi(waiting("2", "v", "b", 100))}, "b", 401, "expired with a"},
		"a short limit":                  {[]attach.Attachment{within(30*time.Second, attached("1", "v", "a", 0)), within(30*time.Second, waiting("2", "v", "b", 100))}, "b", 131, "expired with a"},
		"the shorter of two":             {[]attach.Attachment{within(time.Hour, attached("1", "v", "a", 0)), within(30*time.Second, waiting("2", "v", "b", 100))}, "b", 131, "expired with a"},
		"no limit is five minutes":       {[]attach.Attachment{within(time.Hour, attached("1", "v", "a", 0)), multi(waiting("2", "v", "b", 100))}, "b", 401, "expired with a"},
		"the younger is attached":        {[]attach.Attachment{multi(waiting("1", "v", "a", 0)), multi(attached("2", "v", "b", 100))}, "a", 400, "ok"},
		"the younger is attached, late":  {[]attach.Attachment{multi(waiting("1", "v", "a", 0)), multi(attached("2", "v", "b", 100))}, "a", 401, "expired with b"},
		"the older waits as well, late":  {[]attach.Attachment{multi(waiting("1", "v", "a", 0)), multi(waiting("2", "v", "b", 100))}, "b", 401, "expired with a"},
		"the younger waits: no one else": {[]attach.Attachment{multi(waiting("1", "v", "a", 0)), multi(waiting("2", "v", "b", 100))}, "a", 9000, "ok"},
		"both of one second: one only":   {[]attach.Attachment{multi(waiting("1", "v", "a", 0)), multi(waiting("2", "v", "b", 0))}, "a", 9000, "ok"},
		"and the other not":              {[]attach.Attachment{multi(waiting("1", "v", "a", 0)), multi(waiting("2", "v", "b", 0))}, "b", 9000, "expired with a"},
		"alone":                          {[]attach.Attachment{multi(waiting("1", "v", "a", 0))}, "a", 9000, "ok"},
		"a third, late":                  {[]attach.Attachment{multi(attached("1", "v", "a", 0)), multi(attached("2", "v", "b", 100)), multi(waiting("3", "v", "c", 200))}, "c", 9000, "conflict with a, b"},
		"of one node, no limit":          {[]attach.Attachment{attached("1", "v", "a", 0), multi(waiting("2", "v", "b", 100))}, "b", 9000, "conflict with a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantPublishAt(t, rebuilt(tt.list...), tt.node, tt.second, tt.want)
		})
	}
}

// The mode is the PersistentVolume's word: a caller can narrow it, and not widen.
func TestTheCallerCannotWidenTheMode(t *testing.T) {
	one, two := waiting("2", "v", "b", 100), multi(waiting("2", "v", "b", 100))
	tests := map[string]struct {
		first, second attach.Attachment
		asked         attach.Mode
		want          string
	}{
		"both may":            {multi(attached("1", "v", "a", 0)), two, attach.MultiNode, "ok"},
		"asked as one":        {multi(attached("1", "v", "a", 0)), two, attach.SingleNode, "conflict with a"},
		"neither may":         {attached("1", "v", "a", 0), one, attach.MultiNode, "conflict with a"},
		"only the second may": {attached("1", "v", "a", 0), two, attach.MultiNode, "conflict with a"},
		"only the first may":  {multi(attached("1", "v", "a", 0)), one, attach.MultiNode, "conflict with a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantPublish(t, rebuilt(tt.first, tt.second), "v", "b", tt.asked, tt.want)
		})
	}
}

// B19: after a migration, however it ended, another one works, any number of times.
func TestMigrationsRepeat_B19(t *testing.T) {
	from := multi(attached("0", "v", "a", 0))
	l := rebuilt(from)
	for i := 1; i <= 20; i++ {
		node := []string{"a", "b"}[i%2]
		to := multi(waiting(string(rune('a'+i)), "v", node, 1000*i))
		l.Upsert(to)
		if i%3 == 0 { // cancelled
			wantPublishAt(t, l, node, 1000*i+1, "ok")
			l.Unpublish("v", node)
			l.Remove(to.UID)
			wantMigrations(t, l)
			to.UID += "again"
			l.Upsert(to)
		}
		wantPublishAt(t, l, node, 1000*i+2, "ok")
		to.Attached = true
		l.Upsert(to)
		wantMigrations(t, l, attach.Migration{Volume: "v", From: from.Node, To: node, Began: at(1000 * i), Deadline: at(1000*i + 300)})
		l.Unpublish("v", from.Node)
		l.Remove(from.UID)
		wantMigrations(t, l)
		wantCount(t, l, 1)
		from = to
	}
}

func TestWhatIsNoMigration(t *testing.T) {
	for name, list := range map[string][]attach.Attachment{
		"one node twice (by hand)":       {multi(attached("1", "v", "a", 0)), multi(attached("2", "v", "a", 100))},
		"two that may not (by hand)":     {attached("1", "v", "a", 0), attached("2", "v", "b", 100)},
		"the second waits":               {multi(attached("1", "v", "a", 0)), multi(waiting("2", "v", "b", 100))},
		"two volumes":                    {multi(attached("1", "v", "a", 0)), multi(attached("2", "w", "b", 100))},
		"its PersistentVolume went away": {multi(attached("1", "v", "a", 0)), attached("2", "v", "b", 100)},
	} {
		t.Run(name, func(t *testing.T) { wantMigrations(t, rebuilt(list...)) })
	}
}

// Whoever waits for a change hears of each, and once for any number of them.
func TestChanged(t *testing.T) {
	heard := func(l *attach.Ledger) bool {
		select {
		case <-l.Changed():
			return true
		default:
			return false
		}
	}
	a, b := multi(attached("1", "v", "a", 0)), multi(attached("2", "v", "b", 100))
	l := rebuilt(a)
	if heard(l) {
		t.Error("told of nothing")
	}
	steps := []struct {
		what string
		do   func()
		want bool
	}{
		{"another volume", func() { l.Upsert(multi(attached("3", "w", "b", 0))) }, false},
		{"a second node", func() { l.Upsert(b) }, true},
		{"one gone", func() { l.Remove("1"); l.Upsert(a); l.Remove("1") }, true},
		{"nothing", func() {}, false},
		{"a list with both", func() { l.Replace([]attach.Attachment{a, b}) }, true},
		{"a list without", func() { l.Replace(nil) }, true},
		{"a list without, again", func() { l.Replace(nil) }, false},
	}
	for _, s := range steps {
		s.do()
		if got := heard(l); got != s.want {
			t.Errorf("%s: told %t, want %t", s.what, got, s.want)
		}
		if heard(l) {
			t.Errorf("%s: told twice", s.what)
		}
	}
}

// Without Kubernetes the time runs from the admission of the second node; it is
// shown, and nobody is refused for it: no VolumeAttachment proves when it began.
func TestStandaloneMigrates(t *testing.T) {
	l := attach.Standalone()
	wantPublishAt(t, l, "a", 0, "ok")
	wantPublishAt(t, l, "b", 100, "ok")
	wantMigrations(t, l, attach.Migration{Volume: "v", From: "a", To: "b", Began: at(100), Deadline: at(400)})
	wantPublishAt(t, l, "b", 9000, "ok")
	wantPublishAt(t, l, "c", 9000, "conflict with a, b")
	l.Unpublish("v", "a")
	wantMigrations(t, l)
}

func TestExpiredErrorNamesTheWayOut(t *testing.T) {
	l := rebuilt(within(time.Minute, attached("1", "rds1/v", "a", 0)), within(time.Minute, waiting("2", "rds1/v", "b", 100)))
	_, err := l.Publish("rds1/v", "b", attach.MultiNode, at(161))
	want := "volume rds1/v cannot be attached to node b any more: its migration from node a began at 2026-11-01T00:01:40Z and had 1m0s; " +
		"cancel it (stop the pod on node b and wait for the detach), then start another; " +
		"the StorageClass parameter migrationTimeout gives later volumes more time"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
