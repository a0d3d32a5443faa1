package routeros

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestRunReturnsWhatTheScriptPrinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.reply = func(command string) string {
			ok, _ := marks(command)
			return "first\r\n{\"a\":1}\r\n" + ok + "\r\n"
		}
		var observed []string
		c := r.started(func(c *Config) {
			c.Observe = func(command, status string, _ time.Duration) { observed = append(observed, command+" "+status) }
		})
		reply, err := c.Run(t.Context(), script(t, "disk_get"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(reply.Lines, "|"); got != `first|{"a":1}` {
			t.Errorf("lines = %s", got)
		}
		if len(observed) != 1 || observed[0] != "disk_get ok" {
			t.Errorf("observed %v", observed)
		}
		s := c.Status()
		if !s.Connected || s.Err != nil || s.Version != "7.24.4 (stable)" || s.Dialect != Dialect724 {
			t.Errorf("status = %+v", s)
		}
	})
}

// A round trip is 50 ms here, on a clock that only moves while everybody waits: the time is the number of round trips.
func TestRoundTrips_B30(t *testing.T) {
	const trip = 50 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.latency = trip / 2
		c := r.started(nil)
		begun := time.Now()
		mustRun(t, c)
		if took := time.Since(begun); took > 9*trip {
			t.Errorf("on a new connection a command took %v, want at most nine round trips", took)
		}
		synctest.Wait()
		time.Sleep(4 * trip) //nolint:forbidigo // synctest's clock: the spare channels open meanwhile
		begun = time.Now()
		mustRun(t, c)
		if took := time.Since(begun); took != trip {
			t.Errorf("on a spare channel a command took %v, want exactly one round trip", took)
		}
		time.Sleep(4 * trip) //nolint:forbidigo // synctest's clock
		begun = time.Now()
		together(64, func() { mustRun(t, c) })
		if took := time.Since(begun); took > 64/4*2*trip {
			t.Errorf("64 commands at once took %v, want at most two round trips for each four", took)
		}
	})
}

func TestTheChannelLimitHolds(t *testing.T) {
	for _, serial := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.latency = time.Millisecond
			opening, most := 0, 0
			r.open = func(ssh.NewChannel, int) bool {
				opening++
				most = max(most, opening)
				time.AfterFunc(time.Millisecond, func() { r.with(func() { opening-- }) })
				return false
			}
			c := r.started(func(c *Config) { c.MaxChannels, c.SerializeOpen = 3, serial })
			time.Sleep(time.Second) //nolint:forbidigo // synctest's clock: every spare channel is open now
			together(100, func() { mustRun(t, c) })
			if n := r.mostChannels(); n != 3 {
				t.Errorf("at most %d channels were open at once, want 3", n)
			}
			if serial && most != 1 || !serial && most < 2 {
				t.Errorf("serialised=%v: %d channels were opened at once", serial, most)
			}
		})
	}
}

func mustRun(t *testing.T, c *Client) {
	t.Helper()
	if _, err := c.Run(t.Context(), script(t, "test")); err != nil {
		t.Error(err)
	}
}

// together runs f n times at once and waits.
func together(n int, f func()) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(f)
	}
	wg.Wait()
}

// An RDS that closes channels nobody uses costs round trips, never an outcome.
func TestSpareChannelClosedByTheRDS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.open = func(asked ssh.NewChannel, _ int) bool {
			s := r.accept(asked)
			time.AfterFunc(300*time.Millisecond, s.end)
			return true
		}
		c := r.started(nil)
		for range 20 {
			mustRun(t, c)
			time.Sleep(1100 * time.Millisecond) //nolint:forbidigo // synctest's clock
		}
		dials, opens, commands := r.counts()
		if dials != 1 || commands != 20 {
			t.Errorf("%d dials, %d commands", dials, commands)
		}
		if opens > 20*3+8 {
			t.Errorf("%d channels opened for 20 commands", opens)
		}
	})
}

// The RDS closes the channel while the command is on its way to it: it never ran, and is sent again.
func TestSpareChannelClosedInTheSameMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.latency = 10 * time.Millisecond
		c := r.started(nil)
		mustRun(t, c)
		time.Sleep(time.Second) //nolint:forbidigo // synctest's clock
		r.with(func() {
			for _, s := range r.sessions {
				s.end()
			}
		})
		mustRun(t, c) // reaches channels that the other side has closed
		if _, _, commands := r.counts(); commands != 2 {
			t.Errorf("%d commands ran, want 2", commands)
		}
	})
}

func TestAnRDSWithFewerChannels(t *testing.T) {
	for limit := range 4 {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.latency = time.Millisecond
			r.open = func(asked ssh.NewChannel, before int) bool {
				if before < limit {
					return false
				}
				_ = asked.Reject(ssh.ResourceShortage, "too many channels")
				return true
			}
			c := r.started(nil)
			if limit == 0 {
				_, err := c.Run(t.Context(), script(t, "disk_get"))
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "too many channels") {
					t.Errorf("err = %v", err)
				}
				return
			}
			together(50, func() { mustRun(t, c) })
			if dials, opens, _ := r.counts(); dials != 1 || opens > 60 {
				t.Errorf("%d dials, %d channels asked for", dials, opens)
			}
		})
	}
}

// A channel that the RDS never opens, or never closes after its command's deadline, must not take a place for ever.
func TestStuckChannelsAreNotForEver(t *testing.T) {
	tests := map[string]struct {
		broken func(r *rig)
		dials  int
	}{
		"never opened": {dials: 2, broken: func(r *rig) {
			r.open = func(ssh.NewChannel, int) bool { return r.dials == 1 && r.opens > 1 }
		}},
		"open, and never answered": {dials: 1, broken: func(r *rig) {
			r.exec = func(*session, string) bool { return true }
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				tt.broken(r)
				c := r.started(func(c *Config) { c.CommandTimeout = 5 * time.Second })
				together(8, func() { _, _ = c.Run(t.Context(), script(t, "disk_get")) })
				r.with(func() { r.exec = nil })
				time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock
				mustRun(t, c)
				if dials, _, _ := r.counts(); dials != tt.dials {
					t.Errorf("%d dials, want %d", dials, tt.dials)
				}
			})
		})
	}
}

// An RDS that lets a channel too many wait for ever, instead of refusing it, is served with the others, and left in peace.
func TestAnRDSThatLetsChannelsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.latency = time.Millisecond
		var waiting []ssh.NewChannel // kept: they are never answered
		r.open = func(asked ssh.NewChannel, before int) bool {
			if before >= 2 {
				waiting = append(waiting, asked)
			}
			return before >= 2
		}
		c := r.started(nil)
		for range 3 {
			mustRun(t, c)
			time.Sleep(10 * time.Minute) //nolint:forbidigo // synctest's clock
		}
		if dials, _, _ := r.counts(); dials != 1 {
			t.Errorf("%d dials", dials)
		}
	})
}

func TestUnsupportedVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.version = "7.20.8 (long-term)"
		c := r.started(nil)
		for range 3 {
			_, err := c.Run(t.Context(), script(t, "disk_get"))
			if !errors.Is(err, ErrUnsupportedVersion) || !strings.Contains(err.Error(), "7.20.8") {
				t.Errorf("err = %v", err)
			}
		}
		if s := c.Status(); s.Connected || s.Version != "7.20.8 (long-term)" || !errors.Is(s.Err, ErrUnsupportedVersion) {
			t.Errorf("status = %+v", s)
		}
		if dials, _, commands := r.counts(); dials != 1 || commands != 0 {
			t.Errorf("%d dials, %d commands", dials, commands)
		}
		r.with(func() { r.version = "7.21.5 (stable)" })
		r.cut()
		synctest.Wait()
		mustRun(t, c)
		if s := c.Status(); s.Dialect != Dialect721 {
			t.Errorf("dialect = %v", s.Dialect)
		}
	})
}

func TestExecRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.started(nil)
		mustRun(t, c)
		r.deaf.Store(true)
		_, err := c.Run(t.Context(), script(t, "disk_get"))
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "policies") {
			t.Errorf("err = %v", err)
		}
		r.deaf.Store(false)
		mustRun(t, c)
	})
}

func TestAnswerLongerThanTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.reply = func(command string) string {
			ok, _ := marks(command)
			return strings.Repeat("x", 3<<20) + "\r\n" + ok + "\r\n"
		}
		c := r.started(func(c *Config) { c.MaxReplyBytes = 4 << 20 })
		mustRun(t, c) // longer than the window of a channel
		small := r.started(func(c *Config) { c.MaxReplyBytes = 1 << 20 })
		if _, err := small.Run(t.Context(), script(t, "disk_list")); !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("err = %v", err)
		}
	})
}

func TestCallsOutsideOfTheClientsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.client(nil)
		if _, err := c.Run(t.Context(), script(t, "disk_get")); !errors.Is(err, ErrUnreachable) {
			t.Errorf("before Start: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		c.Start(ctx)
		mustRun(t, c)
		cancel()
		synctest.Wait()
		if _, err := c.Run(t.Context(), script(t, "disk_get")); !errors.Is(err, ErrUnreachable) {
			t.Errorf("after the end: %v", err)
		}
		if err := c.Close(); err != nil || c.Status().Connected {
			t.Errorf("close: %v, %+v", err, c.Status())
		}
	})
}

func TestScriptThatIsTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.started(func(c *Config) { c.MaxScriptBytes = 200 })
		mustRun(t, c)
		b := NewScript("disk_add").Add(`:put ?`, Text(strings.Repeat("x", 200)))
		s, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []Script{s, {}} {
			if _, err := c.Run(t.Context(), s); !errors.Is(err, ErrInvalid) {
				t.Errorf("err = %v", err)
			}
		}
		if _, _, commands := r.counts(); commands != 1 {
			t.Errorf("%d commands", commands)
		}
	})
}
