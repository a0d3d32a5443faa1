package reconcile

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
)

const mib = 1 << 20

// fakeRDS is an RDS in memory with one volume, a sensor and the counters of its pool.
func fakeRDS(t *testing.T) *appliancetest.Fake {
	t.Helper()
	rds := appliancetest.NewFake(appliancetest.Settings(t), appliancetest.PoolBytes)
	if _, err := rds.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", Claim: "default/data", RequiredBytes: 64 * mib}); err != nil {
		t.Fatal(err)
	}
	rds.PutSensors(t, appliance.Sensor{Name: "cpu-temperature", Part: "cpu", Kind: appliance.KindTemperature, Value: 41})
	rds.PutTraffic(t, appliance.Traffic{Slot: "storage-pool", ReadOps: 7, Have: appliance.HaveReadOps})
	return rds
}

func survey(cfg SurveyConfig) *Survey {
	cfg.RDS, cfg.Interval = "rds1", time.Minute
	if cfg.Logger == nil {
		cfg.Logger = quietLogger()
	}
	return NewSurvey(cfg)
}

// run runs a loop in the bubble until the test ends it.
func run(t *testing.T, loop func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the loop ended with %v", err)
		}
	}
}

// let lets time go by in the bubble.
func let(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func counts(rds *appliancetest.Fake) [4]int {
	return [4]int{
		rds.Calls(appliancetest.List), rds.Calls(appliancetest.Capacity), rds.Calls(appliancetest.Health), rds.Calls(appliancetest.Traffic),
	}
}

// One command for each question, each interval, and everything that was answered is known.
func TestSurveyAsksEachQuestionOncePerInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rds := fakeRDS(t)
		var looks atomic.Int64
		s := survey(SurveyConfig{Looked: func() { looks.Add(1) }})
		defer run(t, func(ctx context.Context) error { return s.Watch(ctx, rds) })()
		for n := 1; n <= 4; n++ {
			if got := counts(rds); got != [4]int{n, n, n, n} || looks.Load() != int64(n) {
				t.Errorf("after %d intervals: list, capacity, health, traffic were asked %v times in %d looks", n-1, got, looks.Load())
			}
			// With its jitter the next look comes 54 to 66 seconds after this one; four of them cannot fall out of step.
			let(67 * time.Second)
		}
		now := s.Latest()
		if len(now.Volumes.Value) != 1 || now.Pool.Value.SizeBytes != appliancetest.PoolBytes || len(now.Health.Value) != 1 || len(now.Traffic.Value) != 1 {
			t.Errorf("known: %+v", now)
		}
	})
}

func TestSurveyIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rds := fakeRDS(t)
		s := survey(SurveyConfig{})
		defer run(t, func(ctx context.Context) error { return s.Watch(ctx, rds) })()
		s.Wake()
		s.Wake() // one wish, not two
		synctest.Wait()
		if got := rds.Calls(appliancetest.List); got != 2 && got != 3 {
			t.Errorf("asked %d times", got)
		}
	})
}

// What was answered stays, with the time at which it came, and grows stale; it is never taken for "nothing there".
func TestSurveyOfASilentRDS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rds := fakeRDS(t)
		var log bytes.Buffer
		s := survey(SurveyConfig{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		defer run(t, func(ctx context.Context) error { return s.Watch(ctx, rds) })()
		before := *s.Latest()
		release := rds.Hold(appliancetest.List)
		let(4 * time.Minute)
		now := s.Latest()
		if len(now.Volumes.Value) != 1 || !now.Volumes.Came.Equal(before.Volumes.Came) {
			t.Errorf("a failed look changed what is known: %+v", now.Volumes)
		}
		if now.Volumes.Fresh(time.Now(), Stale*time.Minute) || now.Pool.Fresh(time.Now(), Stale*time.Minute) {
			t.Error("what is older than three intervals is shown as fresh")
		}
		if got := counts(rds); got[1] != 1 {
			t.Errorf("a silent rds was asked further questions: %v", got)
		}
		if n := strings.Count(log.String(), "cannot look at the rds"); n != 1 {
			t.Errorf("the outage is %d lines of log: %s", n, log.String())
		}
		release()
		let(2 * time.Minute)
		if now := s.Latest(); !now.Volumes.Fresh(time.Now(), Stale*time.Minute) || !now.Traffic.Fresh(time.Now(), Stale*time.Minute) {
			t.Error("an rds that answers again is not known again")
		}
		if !strings.Contains(log.String(), "the rds answers again") {
			t.Errorf("not told that it answers again: %s", log.String())
		}
	})
}

// A look cannot last: the questions have one deadline together.
func TestLookEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rds := fakeRDS(t)
		defer rds.Hold(appliancetest.Capacity)()
		ended := make(chan time.Time, 1)
		s := survey(SurveyConfig{Looked: func() { ended <- time.Now() }})
		began := time.Now()
		defer run(t, func(ctx context.Context) error { return s.Watch(ctx, rds) })()
		if took := (<-ended).Sub(began); took != lookLimit {
			t.Errorf("a look took %s", took)
		}
		if !s.Latest().Volumes.Fresh(time.Now(), time.Minute) {
			t.Error("the answer before the one that hangs is lost")
		}
	})
}

// A question that the device refuses takes no other away.
func TestSurveyGoesOnAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rds := fakeRDS(t)
		rds.PutSensors(t) // a device without sensors
		rds.Fail(appliancetest.List, appliance.ErrPermission)
		s := survey(SurveyConfig{})
		defer run(t, func(ctx context.Context) error { return s.Watch(ctx, rds) })()
		now := s.Latest()
		if !now.Volumes.Came.IsZero() || !now.Health.Came.IsZero() {
			t.Errorf("a refusal is taken for an answer: %+v", now)
		}
		if now.Pool.Came.IsZero() || now.Traffic.Came.IsZero() {
			t.Errorf("what was answered is not known: %+v", now)
		}
	})
}

// The opt-in asks for volumes in the same command as for the pool.
func TestSurveyOfVolumeTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rds := fakeRDS(t)
		slot := appliance.SlotFor("homelab", "pvc-1")
		rds.PutTraffic(t, appliance.Traffic{Slot: "storage-pool", Have: appliance.HaveReadOps}, appliance.Traffic{Slot: slot, Have: appliance.HaveReadOps})
		s := survey(SurveyConfig{VolumeSlots: func() []string { return []string{slot} }})
		defer run(t, func(ctx context.Context) error { return s.Watch(ctx, rds) })()
		if got := s.Latest().Traffic.Value; len(got) != 2 || got[1].Slot != slot {
			t.Errorf("traffic of %+v", got)
		}
		if got := counts(rds); got != [4]int{1, 1, 1, 1} {
			t.Errorf("commands: %v", got)
		}
	})
}
