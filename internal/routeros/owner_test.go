package routeros

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSilentPeer_B13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.started(func(c *Config) { c.CommandTimeout = 8 * time.Second })
		mustRun(t, c)
		synctest.Wait() // channels are open ahead: what hangs is the command, not its channel
		r.silence()
		r.with(func() { r.mute = true })

		begun := time.Now()
		_, err := c.Run(t.Context(), script(t, "disk_add"))
		if !errors.Is(err, ErrOutcomeUnknown) || errors.Is(err, ErrUnreachable) || time.Since(begun) > 8*time.Second {
			t.Errorf("a command on a half-open connection came to %v after %v", err, time.Since(begun))
		}
		for range 5 {
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := c.Run(ctx, script(t, "disk_add"))
			cancel()
			if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrOutcomeUnknown) || time.Since(begun) > 5*time.Second {
				t.Errorf("a command to a peer that accepts and says nothing came to %v after %v", err, time.Since(begun))
			}
		}
		if s := c.Status(); s.Connected || s.Err == nil {
			t.Errorf("status = %+v", s)
		}
		r.with(func() { r.mute = false })
		r.cut()
		mustRun(t, c)
	})
}

// The RDS comes back while its old connection stays half-open: the very next call must not fall into it.
func TestNextCallAfterRecoverySucceeds_B13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.started(nil)
		mustRun(t, c)
		synctest.Wait() // channels are open ahead: what hangs is the command, not its channel
		r.silence()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Run(ctx, script(t, "disk_add")); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("err = %v", err)
		}
		begun := time.Now()
		mustRun(t, c)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("the next call took %v", took)
		}
		if dials, _, _ := r.counts(); dials != 2 {
			t.Errorf("%d dials", dials)
		}
	})
}

func TestKeepaliveFindsADeadPeer_B13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.started(nil)
		mustRun(t, c)
		time.Sleep(time.Hour) //nolint:forbidigo // synctest's clock: an idle connection stays
		if dials, _, _ := r.counts(); dials != 1 {
			t.Fatalf("%d dials for an idle connection", dials)
		}
		r.silence()
		time.Sleep(25 * time.Second) //nolint:forbidigo // synctest's clock
		if dials, _, _ := r.counts(); dials != 2 {
			t.Errorf("%d dials after the peer went away", dials)
		}
		mustRun(t, c)
	})
}

func TestADroppedConnectionHealsByItself_B14(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.started(nil)
		mustRun(t, c)
		for i := range 10 {
			r.cut()
			synctest.Wait()
			if i == 0 && c.Status().Connected {
				t.Error("the status does not know of the loss")
			}
			time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock
			if s := c.Status(); !s.Connected {
				t.Fatalf("not healed: %v", s.Err)
			}
			mustRun(t, c)
		}
		if dials, _, _ := r.counts(); dials != 11 {
			t.Errorf("%d dials for 10 drops", dials)
		}
	})
}

// What is sent after a drop has not been sent on the dead connection, whoever knows already that it is dead.
func TestCommandsAfterADropAreNotInDoubt_B14(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.started(nil)
		for range 100 {
			mustRun(t, c)
			r.cut()
			together(4, func() { mustRun(t, c) })
		}
	})
}

// A long outage must not make the driver slow to come back from the next, short one.
func TestAGoodConnectionEndsTheBackoff_B14(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.refuse = errRefusedDial
		c := r.started(nil)
		time.Sleep(10 * time.Minute) //nolint:forbidigo // synctest's clock
		r.with(func() { r.refuse = nil })
		time.Sleep(2 * time.Minute) //nolint:forbidigo // synctest's clock
		r.with(func() { r.refuse = errRefusedDial })
		r.cut()
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // synctest's clock
		r.with(func() { r.refuse = nil })
		time.Sleep(2 * time.Second) //nolint:forbidigo // synctest's clock
		if s := c.Status(); !s.Connected {
			t.Errorf("not connected: %v", s.Err)
		}
	})
}

// 16 callers that do not stop asking share the dials of an outage, and each gets an answer well before a backoff is over.
func TestOutageIsNoStampede_B31(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.refuse = errRefusedDial
		c := r.started(nil)
		begun := time.Now()
		var mu sync.Mutex
		calls, slowest := 0, time.Duration(0)
		together(16, func() {
			for time.Since(begun) < 30*time.Second {
				asked := time.Now()
				_, err := c.Run(t.Context(), script(t, "disk_add"))
				if !errors.Is(err, ErrUnreachable) || !errors.Is(err, errRefusedDial) {
					t.Errorf("err = %v", err)
				}
				mu.Lock()
				calls++
				slowest = max(slowest, time.Since(asked))
				mu.Unlock()
			}
		})
		dials, _, _ := r.counts()
		if limit := int(30*time.Second/c.pace.floor) + 2; dials > limit || dials < limit/2 {
			t.Errorf("%d dials in 30 s of an outage, want at most %d", dials, limit)
		}
		if calls < 16*dials/2 || slowest > c.pace.floor {
			t.Errorf("%d calls, the slowest answered after %v", calls, slowest)
		}
		r.with(func() { r.refuse = nil })
		mustRun(t, c)
	})
}

func TestBackoffWithoutCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.refuse = errRefusedDial
		c := r.started(nil)
		time.Sleep(10 * time.Minute) //nolint:forbidigo // synctest's clock
		dials, _, _ := r.counts()
		if dials < 20 || dials > 60 { // every 15 to 30 s, faster in the beginning
			t.Errorf("%d dials in ten minutes", dials)
		}
		begun := time.Now()
		_, err := c.Run(t.Context(), script(t, "disk_get"))
		if !errors.Is(err, ErrUnreachable) || time.Since(begun) > c.pace.floor {
			t.Errorf("a call in the middle of a backoff came to %v after %v", err, time.Since(begun))
		}
	})
}

// A replaced connection is closed, and so is everything that hung on it.
func TestReplacedConnectionIsClosed_B31(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.started(nil)
		mustRun(t, c)
		old := r.links[0]
		r.silence()
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock
		mustRun(t, c)
		old.client.mu.Lock()
		defer old.client.mu.Unlock()
		if !old.client.closed {
			t.Error("the old connection is still open")
		}
	})
}

func TestLostWithACommandUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.exec = func(*session, string) bool { r.cut(); return true }
		c := r.started(nil)
		_, err := c.Run(t.Context(), script(t, "disk_add"))
		var ce *CommandError
		if !errors.Is(err, ErrOutcomeUnknown) || !errors.As(err, &ce) || ce.RDS != "rds1" || ce.Command != "disk_add" {
			t.Errorf("err = %v", err)
		}
		if _, _, commands := r.counts(); commands != 1 {
			t.Errorf("the command was sent %d times", commands)
		}
		r.with(func() { r.exec = nil })
		mustRun(t, c)
	})
}

// 64 goroutines while the connection is dropped again and again: every call ends, with success or with one of the two
// honest answers, and what was answered as not sent was not sent twice.
func TestManyCallersUnderDrops_B31(t *testing.T) {
	r := newRig(t)
	c := r.client(nil)
	c.pace.floor = time.Millisecond
	c.Start(t.Context())
	var mu sync.Mutex
	outcomes := map[string]int{}
	drops := 0
	ctx, cancel := context.WithCancel(t.Context())
	var dropper sync.WaitGroup
	dropper.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(40 * time.Millisecond):
				r.cut()
				drops++
			}
		}
	})
	together(64, func() {
		for range 30 {
			_, err := c.Run(t.Context(), script(t, "test"))
			if err != nil && !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrUnreachable) {
				t.Errorf("err = %v", err)
			}
			_ = c.Status()
			mu.Lock()
			outcomes[statusOf(err)]++
			mu.Unlock()
		}
	})
	cancel()
	dropper.Wait()
	dials, _, commands := r.counts()
	t.Logf("%v, %d drops, %d dials, %d commands", outcomes, drops, dials, commands)
	if dials > 2*drops+2 {
		t.Errorf("%d dials for %d drops", dials, drops)
	}
	if commands > 64*30 {
		t.Errorf("%d commands ran for %d calls", commands, 64*30)
	}
	if n := r.mostChannels(); outcomes["ok"] == 0 || n > 4 {
		t.Errorf("outcomes %v, at most %d channels", outcomes, n)
	}
}

// While a read error is on its way to the library, no channel may be asked for that nobody would ever open or refuse.
func TestNoChannelOfADeadConnectionIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.started(nil)
		mustRun(t, c)
		wire, client := c.conn.wire, c.conn.client
		before, asked := wire.last.Load(), make(chan error, 1)
		last := func() {
			(*before)()
			_, _, err := client.OpenChannel("session", nil) // would wait for ever
			asked <- err
		}
		wire.last.Store(&last)
		r.cut()
		if err := <-asked; err == nil {
			t.Error("a channel of a dead connection was opened")
		}
	})
}

// Who would rather not wait is told at once that the RDS is away, and it is dialled no later than if he waited.
func TestDownIsKnownWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.mute = true
		c := r.started(nil)
		synctest.Wait()
		if err := c.Down(); err != nil {
			t.Errorf("before the first dial has ended: %v", err)
		}
		time.Sleep(10 * time.Minute) //nolint:forbidigo // synctest's clock
		for range 3 {
			begun := time.Now()
			if err := c.Down(); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "no answer") || time.Since(begun) > 0 {
				t.Errorf("down: %v after %v", err, time.Since(begun))
			}
		}
		r.with(func() { r.mute, r.refuse = false, errRefusedDial })
		time.Sleep(10 * time.Minute) //nolint:forbidigo // the backoff is 15 s at least now
		r.with(func() { r.refuse = nil })
		if err := c.Down(); !errors.Is(err, errRefusedDial) {
			t.Errorf("refused: %v", err)
		}
		time.Sleep(c.pace.floor) //nolint:forbidigo // that question is what the RDS is dialled for
		synctest.Wait()
		if err := c.Down(); err != nil {
			t.Errorf("up again: %v", err)
		}
		r.cut() // one that is lost may be back in a moment
		synctest.Wait()
		if err := c.Down(); err != nil {
			t.Errorf("lost just now: %v", err)
		}
		mustRun(t, c)
	})
}
