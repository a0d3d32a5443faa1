package reconcile

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// MigrationEnded is told with the seconds it took.
func (s *story) MigrationEnded(result string, took time.Duration) {
	s.add("ended %s after %s", result, took)
}

// move is a watcher over the real ledger.
type move struct {
	*Migrations
	t      *testing.T
	ledger *attach.Ledger
	synced chan struct{}
	story  *story
}

func newMove(t *testing.T) *move {
	m := &move{t: t, ledger: attach.NewLedger(attach.Options{}), synced: make(chan struct{}), story: &story{}}
	m.Migrations = NewMigrations(MigrationsConfig{
		Ledger: m.ledger, Synced: m.synced, Events: m.story, Counter: m.story,
		Overdue: func() { m.story.add("woken") }, Logger: quietLogger(),
	})
	return m
}

// wants says how a volume for two nodes, with a minute for its migration, is on a node for so long.
func wants(node string, since time.Duration) attach.Attachment {
	return attachmentOf("rds1/x", node, func(a *attach.Attachment) {
		a.Mode, a.MigrationTimeout, a.Created = attach.MultiNode, time.Minute, time.Now().Add(-since)
	})
}

// sync lets the ledger know its authority.
func (m *move) sync(list ...attach.Attachment) {
	m.ledger.ReplaceNodes(nil)
	m.ledger.Replace(list)
	close(m.synced)
	synctest.Wait()
}

func (m *move) says(step string, active int, want ...string) {
	m.t.Helper()
	synctest.Wait()
	slices.Sort(want)
	if diff := cmp.Diff(want, m.story.take()); diff != "" {
		m.t.Errorf("%s: %s", step, diff)
	}
	if n, known := m.Active(); n != active || !known {
		m.t.Errorf("%s: %d migrations (known: %t), want %d", step, n, known, active)
	}
}

const (
	saysStarted = "Normal MigrationStarted rds1/x volume"
	saysEnded   = "Normal MigrationEnded rds1/x the"
	saysOverdue = "Warning MigrationOverdue rds1/x volume"
)

// A migration and the way back, another that is given up, and one that takes too long: each is told once, as it happens.
func TestMigrationsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t)
		defer run(t, m.Watch)()
		if n, known := m.Active(); known {
			t.Errorf("%d migrations before anything is known", n)
		}
		a := wants("a", time.Hour)
		m.sync(a)
		m.says("one node", 0)

		b := wants("b", 0)
		m.ledger.Upsert(b)
		m.says("two", 1, saysStarted)
		m.ledger.Upsert(b)
		m.says("an event that says nothing new", 1)
		let(20 * time.Second)
		m.ledger.Remove(a.UID)
		m.says("the new one", 0, saysEnded, "ended completed after 20s")

		a = wants("a", 0)
		m.ledger.Upsert(a)
		m.says("back", 1, saysStarted)
		let(10 * time.Second)
		m.ledger.Remove(a.UID)
		m.says("given up", 0, saysEnded, "ended cancelled after 10s")

		a = wants("a", 0)
		m.ledger.Upsert(a)
		m.says("again", 1, saysStarted)
		let(59 * time.Second)
		m.says("just in time", 1)
		let(time.Second)
		m.says("the deadline", 1, saysOverdue, "woken")
		let(time.Hour)
		m.says("told once", 1)
		m.ledger.Remove(b.UID)
		m.says("late", 0, saysEnded, "ended expired after 1h1m0s")
	})
}

// The process before this one told of a migration that began long ago; of one that has just begun it may not have.
func TestMigrationsMetAtTheStart(t *testing.T) {
	for name, tt := range map[string]struct {
		began time.Duration
		want  []string
	}{
		"long ago":   {time.Minute + time.Second, []string{saysOverdue, "woken"}},
		"a while":    {30 * time.Second, []string{saysStarted}},
		"just begun": {0, []string{saysStarted}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMove(t)
				defer run(t, m.Watch)()
				m.sync(wants("a", time.Hour), wants("b", tt.began))
				m.says(name, 1, tt.want...)
			})
		})
	}
}

// The number follows from the VolumeAttachments alone: an admission that only this process knows of is none, and the next process says the same.
func TestNumberOfMigrationsSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := wants("a", time.Hour), wants("b", 0)
		b.Attached = false
		for step, n := range []int{0, 1} {
			for _, process := range []string{"the one that admits", "the next"} {
				m := newMove(t)
				stop := run(t, m.Watch)
				m.sync(a, b)
				if process != "the next" {
					if _, err := m.ledger.Publish("rds1/x", "b", attach.MultiNode, time.Now()); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if got, known := m.Active(); got != n || !known {
					t.Errorf("step %d, %s: %d migrations (known: %t), want %d", step, process, got, known, n)
				}
				stop()
			}
			b.Attached = true
		}
	})
}

// Many at once, each with its own deadline: the timer is for the nearest, and there is no polling between.
func TestNearestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t)
		defer run(t, m.Watch)()
		var list []attach.Attachment
		for i, volume := range []string{"rds1/x", "rds1/y", "rds1/z"} {
			for _, node := range []string{"a", "b"} {
				a := wants(node, time.Hour)
				if node == "b" {
					a.Created = time.Now().Add(-2 * time.Minute)
				}
				a.Volume, a.UID, a.MigrationTimeout = volume, volume+node, 2*time.Minute+time.Duration(3-i)*10*time.Second
				list = append(list, a)
			}
		}
		m.sync(list...)
		m.says("at first", 3)
		for _, volume := range []string{"rds1/z", "rds1/y", "rds1/x"} {
			let(10 * time.Second)
			m.says(volume, 3, "Warning MigrationOverdue "+volume+" volume", "woken")
		}
	})
}
