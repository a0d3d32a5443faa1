package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// Appliance is what a look asks of an RDS: one console command each.
type Appliance interface {
	// List answers every volume item, each with its owner, or an error: never a part.
	List(context.Context) ([]appliance.Volume, error)
	// Capacity answers for the configured pool when the path is zero.
	Capacity(context.Context, appliance.Path) (appliance.Pool, error)
	// Health answers what the device's sensors say.
	Health(context.Context) ([]appliance.Sensor, error)
	// Traffic answers for the disks that have counters.
	Traffic(ctx context.Context, slots ...string) ([]appliance.Traffic, error)
}

// Reading is the last good answer to one question. The zero value: there was none.
type Reading[T any] struct {
	Value T
	Asked time.Time // what is in Value was true at some moment after this
	Came  time.Time
}

// Fresh says whether there is an answer that came no longer ago than limit.
func (r Reading[T]) Fresh(now time.Time, limit time.Duration) bool {
	return !r.Came.IsZero() && now.Sub(r.Came) <= limit
}

// Stale is for how many intervals an answer is taken for the state of the RDS.
const Stale = 3

// Snapshot is what is known of one RDS. Nobody changes one that was handed out.
type Snapshot struct {
	Volumes Reading[[]appliance.Volume]
	Pool    Reading[appliance.Pool]
	Health  Reading[[]appliance.Sensor]
	Traffic Reading[[]appliance.Traffic]
}

// Fresh is the snapshot without what came longer ago than limit.
func (s *Snapshot) Fresh(now time.Time, limit time.Duration) Snapshot {
	return Snapshot{
		Volumes: s.Volumes.orNothing(now, limit), Pool: s.Pool.orNothing(now, limit),
		Health: s.Health.orNothing(now, limit), Traffic: s.Traffic.orNothing(now, limit),
	}
}

func (r Reading[T]) orNothing(now time.Time, limit time.Duration) Reading[T] {
	if r.Fresh(now, limit) {
		return r
	}
	return Reading[T]{}
}

// lookLimit is for all four commands together. Each has a limit of its own below
// this; the one here is for all of them being slow.
const lookLimit = 45 * time.Second

// SurveyConfig of a Survey.
type SurveyConfig struct {
	RDS      string // its name in the configuration
	Interval time.Duration
	// VolumeSlots are volumes whose traffic is asked for beside the pool's; nil: none.
	VolumeSlots func() []string
	Looked      func() // called after each look; may be nil
	Logger      *slog.Logger
}

// Survey looks at one RDS again and again. Its memory is the last good answer to
// each question; the authority is the RDS, and the next look rebuilds it.
type Survey struct {
	cfg    SurveyConfig
	latest atomic.Pointer[Snapshot]
	wake   chan struct{}
	failed map[string]bool // questions that the last look could not answer; of the loop only
}

// NewSurvey makes a survey that knows nothing until Watch has looked.
func NewSurvey(cfg SurveyConfig) *Survey {
	s := &Survey{cfg: cfg, wake: make(chan struct{}, 1), failed: map[string]bool{}}
	if s.cfg.Looked == nil {
		s.cfg.Looked = func() {}
	}
	if s.cfg.VolumeSlots == nil {
		s.cfg.VolumeSlots = func() []string { return nil }
	}
	s.latest.Store(&Snapshot{})
	return s
}

// RDS is the name of the surveyed RDS.
func (s *Survey) RDS() string { return s.cfg.RDS }

// Latest is the last good answer to each question, however old; it reads memory only.
func (s *Survey) Latest() *Snapshot { return s.latest.Load() }

// Known is what is known now: without what is older than three intervals. It reads
// memory only.
func (s *Survey) Known() Snapshot { return s.Latest().Fresh(time.Now(), Stale*s.cfg.Interval) }

// Wake asks for a look now.
func (s *Survey) Wake() {
	select {
	case s.wake <- struct{}{}:
	default: // one is asked for already
	}
}

// Watch looks at once and then every interval, until ctx ends. The interval has
// some jitter: replicas and several RDSs started together must not beat as one.
func (s *Survey) Watch(ctx context.Context, rds Appliance) error {
	for {
		s.look(ctx, rds)
		pause := s.cfg.Interval*9/10 + rand.N(s.cfg.Interval/5+1) //nolint:gosec // jitter needs no secrecy
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.wake:
		case <-time.After(pause):
		}
	}
}

// look asks four questions. What is answered is shown at once; a question that
// fails keeps its old answer, which grows stale.
func (s *Survey) look(ctx context.Context, rds Appliance) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	defer s.cfg.Looked()
	now := *s.Latest()
	for _, q := range []struct {
		what string
		ask  func() error
	}{
		{"volumes", func() error { return answer(&now.Volumes, func() ([]appliance.Volume, error) { return rds.List(ctx) }) }},
		{"pool", func() error {
			return answer(&now.Pool, func() (appliance.Pool, error) { return rds.Capacity(ctx, appliance.Path{}) })
		}},
		{"health", func() error {
			return answer(&now.Health, func() ([]appliance.Sensor, error) { return rds.Health(ctx) })
		}},
		{"traffic", func() error { return s.traffic(ctx, rds, &now) }},
	} {
		err := q.ask()
		s.note(ctx, q.what, err)
		if err != nil && silent(ctx, err) {
			return // it would not answer the others either, and each would wait
		}
		shown := now
		s.latest.Store(&shown)
	}
}

// traffic asks for the pool's disk and for the chosen volumes, in one command.
func (s *Survey) traffic(ctx context.Context, rds Appliance, now *Snapshot) error {
	var slots []string
	if pool := now.Pool.Value.Slot; pool != "" {
		slots = append(slots, pool)
	}
	slots = append(slots, s.cfg.VolumeSlots()...)
	if len(slots) == 0 {
		return nil
	}
	return answer(&now.Traffic, func() ([]appliance.Traffic, error) { return rds.Traffic(ctx, slots...) })
}

// answer keeps a good answer, and the old one else.
func answer[T any](r *Reading[T], ask func() (T, error)) error {
	asked := time.Now()
	value, err := ask()
	if err != nil {
		return err
	}
	*r = Reading[T]{Value: value, Asked: asked, Came: time.Now()}
	return nil
}

func silent(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, appliance.ErrUnavailable) || errors.Is(err, appliance.ErrOutcomeUnknown)
}

// note logs changes only: an outage is two lines, however long it lasts.
func (s *Survey) note(ctx context.Context, what string, err error) {
	before := s.failed[what]
	s.failed[what] = err != nil
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil && !before && errors.Is(err, appliance.ErrUnsupported):
		s.cfg.Logger.InfoContext(ctx, "the rds does not offer this", "rds", s.cfg.RDS, "what", what, "err", err)
	case err != nil && !before:
		s.cfg.Logger.WarnContext(ctx, "cannot look at the rds, asking on", "rds", s.cfg.RDS, "what", what, "err", err)
	case err == nil && before:
		s.cfg.Logger.InfoContext(ctx, "the rds answers again", "rds", s.cfg.RDS, "what", what)
	}
}

// VolumeSlots are the slots on one RDS of the first n attached volumes, by handle,
// of all RDSs together: the bound of the opt-in for series per volume.
func VolumeSlots(attachments []attach.Attachment, rds string, n int) []string {
	var handles []string
	for _, a := range attachments {
		if a.Attached {
			handles = append(handles, a.Volume)
		}
	}
	slices.Sort(handles)
	handles = slices.Compact(handles)
	var slots []string
	for _, handle := range handles[:min(n, len(handles))] {
		if id, err := appliance.ParseID(handle, ""); err == nil && id.RDS == rds {
			slots = append(slots, id.Slot)
		}
	}
	return slots
}
