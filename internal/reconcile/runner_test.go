package reconcile

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quietLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A loop that fails or panics is started again, later each time; its neighbour does not notice; both end with ctx.
func TestRunStartsAgainWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var starts []time.Duration
		neighbour := 0
		var log bytes.Buffer
		done := make(chan struct{})
		go func() {
			defer close(done)
			Run(ctx, slog.New(slog.NewTextHandler(&log, nil)),
				Loop{"fails", func(context.Context) error {
					starts = append(starts, time.Since(began))
					if len(starts) == 2 {
						panic("at the second start")
					}
					return errors.New("it broke")
				}},
				Loop{"goes on", func(ctx context.Context) error {
					neighbour++
					<-ctx.Done()
					return ctx.Err()
				}})
		}()
		<-time.After(8 * time.Second)
		cancel()
		<-done
		want := []time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second}
		if len(starts) != len(want) {
			t.Fatalf("started at %v, want %v", starts, want)
		}
		for i, at := range want {
			if starts[i] != at {
				t.Errorf("start %d came after %s, want %s", i, starts[i], at)
			}
		}
		if neighbour != 1 {
			t.Errorf("the neighbour was started %d times", neighbour)
		}
		for _, text := range []string{"it broke", "at the second start", "loop=fails"} {
			if !strings.Contains(log.String(), text) {
				t.Errorf("the log does not have %q", text)
			}
		}
	})
}

// After a long good run the pause is short again.
func TestRunForgetsOldFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var ended time.Time
		n := 0
		Run(ctx, quietLogger(), Loop{"loop", func(context.Context) error {
			n++
			switch {
			case n <= 5:
				return errors.New("at once")
			case n == 6:
				<-time.After(time.Hour)
				ended = time.Now()
				return errors.New("after an hour")
			}
			if pause := time.Since(ended); pause != firstPause {
				t.Errorf("started again after %s", pause)
			}
			return nil // its work is done
		}})
	})
}
