// Package lane keeps operations that may hang in the kernel from piling up: at most one runs per key.
//
// Such an operation (a connect to a silent target, the deletion of a controller whose target is gone, a read or an unmount of a
// dead device) cannot be ended from outside. Its caller leaves when the context ends; the operation keeps its lane until the kernel
// returns, and whoever wants the same lane meanwhile waits no longer than his own context. So there is at most one goroutine per
// key, and one dead volume blocks no other (kubernetes/kubernetes#31272, linux-nvme/nvme-cli#350, longhorn/longhorn#13236).
package lane

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Set is a set of lanes, one per key. It is safe for concurrent use.
type Set struct {
	// Overdue is what errors wrap when a context ends before its operation.
	Overdue error

	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the lane is free again
}

// Enter takes the lane; the caller must leave it.
func (s *Set) Enter(ctx context.Context, key string) (leave func(), err error) {
	for {
		taken, leave := s.try(key)
		if leave != nil {
			return leave, nil
		}
		select {
		case <-taken:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w waiting for an earlier operation on %s: %w", s.Overdue, key, context.Cause(ctx))
		}
	}
}

func (s *Set) try(key string) (taken <-chan struct{}, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if taken, ok := s.busy[key]; ok {
		return taken, nil
	}
	if s.busy == nil {
		s.busy = map[string]chan struct{}{}
	}
	mine := make(chan struct{})
	s.busy[key] = mine
	return nil, func() {
		s.mu.Lock()
		delete(s.busy, key)
		s.mu.Unlock()
		close(mine)
	}
}

// Any is a lane that is taken, and what closes when it is free; nil when none is.
func (s *Set) Any() (key string, done <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, done := range s.busy {
		return key, done
	}
	return "", nil
}

// Do runs f in the lane and returns its result, or an error that wraps Overdue when ctx ends first; f then goes on alone, and late,
// which may be nil, hears how it ended.
func (s *Set) Do(ctx context.Context, key string, f func() error, late func(error)) error {
	leave, err := s.Enter(ctx, key)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	var abandoned atomic.Bool
	go func() {
		err := f()
		leave()
		done <- err
		if abandoned.Load() && late != nil {
			late(err)
		}
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		abandoned.Store(true)
		return fmt.Errorf("%w, the kernel is still at it: %w", s.Overdue, context.Cause(ctx))
	}
}
