package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/kube"
)

// MigrationLedger is what migrations are known by.
type MigrationLedger interface {
	// Migrations are the volumes that are attached to two nodes.
	Migrations() []attach.Migration
	// Changed is readable after the set of migrations may have changed.
	Changed() <-chan struct{}
	// Nodes are those on which the volume is attached.
	Nodes(volume string) []string
}

// MigrationCounter counts migrations that ended.
type MigrationCounter interface {
	// MigrationEnded is told how, and how long the volume had two nodes.
	MigrationEnded(result string, took time.Duration)
}

// How a migration can end.
const (
	Completed = "completed" // on the new node
	Cancelled = "cancelled" // on the old one, or on neither
	Expired   = "expired"   // either way, after its deadline
)

// MigrationsConfig of a Migrations.
type MigrationsConfig struct {
	Ledger  MigrationLedger
	Synced  <-chan struct{} // closed when the ledger knows its authority
	Events  Events
	Counter MigrationCounter
	Overdue func() // called when a migration passes its deadline; may be nil
	Logger  *slog.Logger
}

// Migrations tells when migrations begin, end and outlast their deadline. It acts
// on changes of the ledger and on one timer. What it remembers is what it has told
// already; what is true is asked of the ledger.
type Migrations struct {
	cfg    MigrationsConfig
	told   map[identity]*course
	looked bool
	active atomic.Int64
}

// course is what was told of a migration that goes on.
type course struct {
	attach.Migration

	overdue bool
}

// identity tells one migration from the next of the same volume.
type identity struct {
	volume, from, to string
	began            int64
}

func identify(m attach.Migration) identity {
	return identity{m.Volume, m.From, m.To, m.Began.UnixNano()}
}

// fresh: a migration that began longer ago than this, and is met at the first look,
// was told of by the process before this one.
const fresh = time.Minute

// unknown is the number of migrations before the first look.
const unknown = -1

// NewMigrations makes one that knows nothing until Watch has looked.
func NewMigrations(cfg MigrationsConfig) *Migrations {
	m := &Migrations{cfg: cfg, told: map[identity]*course{}}
	if m.cfg.Overdue == nil {
		m.cfg.Overdue = func() {}
	}
	m.active.Store(unknown)
	return m
}

// Active is the number of volumes that are attached to two nodes; it reads memory only.
func (m *Migrations) Active() (n int, known bool) {
	v := m.active.Load()
	return int(max(v, 0)), v != unknown
}

// Watch looks whenever the ledger changes and when a deadline passes, until ctx
// ends.
func (m *Migrations) Watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.cfg.Synced:
	}
	for {
		var due <-chan time.Time
		if deadline, some := m.look(ctx); some {
			due = time.After(time.Until(deadline))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.cfg.Ledger.Changed():
		case <-due:
		}
	}
}

// look tells what changed, and returns the nearest deadline to come.
func (m *Migrations) look(ctx context.Context) (next time.Time, some bool) {
	now, list := time.Now(), m.cfg.Ledger.Migrations()
	before := m.told
	m.told = make(map[identity]*course, len(list))
	for _, is := range list {
		c, told := before[identify(is)]
		if !told {
			c = &course{}
			m.started(ctx, is, now)
		}
		c.Migration = is
		m.told[identify(is)] = c
		delete(before, identify(is))
		if !c.overdue && !now.Before(is.Deadline) {
			c.overdue = true
			m.overdue(ctx, is)
		}
		if !c.overdue && (!some || is.Deadline.Before(next)) {
			next, some = is.Deadline, true
		}
	}
	for _, was := range before {
		m.ended(ctx, was.Migration, now)
	}
	m.looked = true
	m.active.Store(int64(len(list)))
	return next, some
}

func (m *Migrations) started(ctx context.Context, is attach.Migration, now time.Time) {
	if !m.looked && now.Sub(is.Began) > fresh {
		return
	}
	m.cfg.Logger.InfoContext(ctx, "migration started", "volume", is.Volume, "from", is.From, "to", is.To, "deadline", is.Deadline)
	m.cfg.Events.Volume(is.Volume, kube.Normal, kube.MigrationStarted, fmt.Sprintf(
		"volume %s migrates from node %s to node %s; both may write until %s", is.Volume, is.From, is.To, is.Deadline.UTC().Format(time.RFC3339)))
}

func (m *Migrations) ended(ctx context.Context, was attach.Migration, now time.Time) {
	result, took := m.result(was, now), max(now.Sub(was.Began), 0)
	m.cfg.Counter.MigrationEnded(result, took)
	m.cfg.Logger.InfoContext(ctx, "migration ended", "volume", was.Volume, "from", was.From, "to", was.To, "result", result, "took", took.String())
	m.cfg.Events.Volume(was.Volume, kube.Normal, kube.MigrationEnded, fmt.Sprintf(
		"the migration of volume %s from node %s to node %s is %s after %s", was.Volume, was.From, was.To, result, took.Round(time.Second)))
}

// result is told by who has the volume now.
func (m *Migrations) result(was attach.Migration, now time.Time) string {
	has := m.cfg.Ledger.Nodes(was.Volume)
	switch {
	case !now.Before(was.Deadline):
		return Expired
	case slices.Contains(has, was.To) && !slices.Contains(has, was.From):
		return Completed
	default:
		return Cancelled
	}
}

func (m *Migrations) overdue(ctx context.Context, is attach.Migration) {
	m.cfg.Logger.WarnContext(ctx, "migration overdue", "volume", is.Volume, "from", is.From, "to", is.To, "began", is.Began, "deadline", is.Deadline,
		"next", MigrationOverdue.nextStep())
	m.cfg.Events.Volume(is.Volume, kube.Warning, kube.MigrationOverdue, fmt.Sprintf(
		"volume %s is on node %s and on node %s since %s, past the deadline of its migration; %s",
		is.Volume, is.From, is.To, is.Began.UTC().Format(time.RFC3339), MigrationOverdue.nextStep()))
	m.cfg.Overdue()
}
