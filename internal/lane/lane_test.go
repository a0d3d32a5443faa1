package lane

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errOverdue = errors.New("overdue")

// A caller leaves at his deadline, the operation keeps the lane, and the next caller gets it when the kernel has returned.
func TestHangingOperationKeepsItsLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Set{Overdue: errOverdue}
		kernel, heard := make(chan struct{}), make(chan error, 1)
		var began atomic.Int32
		hang := func() error { began.Add(1); <-kernel; return errors.New("gone") }
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := s.Do(ctx, "a", hang, func(err error) { heard <- err }); !errors.Is(err, errOverdue) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want an error that wraps overdue and the deadline", err)
			}
			cancel()
		}
		if n := began.Load(); n != 1 {
			t.Errorf("%d operations began in one lane", n)
		}
		if key, done := s.Any(); key != "a" || done == nil {
			t.Errorf("taken: %q", key)
		}
		if err := s.Do(t.Context(), "b", func() error { return nil }, nil); err != nil {
			t.Errorf("one dead volume blocks another: %v", err)
		}
		close(kernel)
		if err := <-heard; err == nil || err.Error() != "gone" {
			t.Errorf("heard %v", err)
		}
		leave, err := s.Enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		leave()
		if _, done := s.Any(); done != nil {
			t.Error("a lane is still taken")
		}
	})
}

func TestResultIsTheOperations(t *testing.T) {
	want := errors.New("result")
	s := Set{Overdue: errOverdue}
	late := func(error) { t.Error("heard of an operation that its caller waited for") }
	if err := s.Do(t.Context(), "a", func() error { return want }, late); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
