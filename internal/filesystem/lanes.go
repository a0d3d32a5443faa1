package filesystem

import (
	"context"
	"fmt"
	"sync"
)

// lanes runs at most one operation per key at a time. An operation may hang in
// the kernel; its caller leaves when the context ends, the operation keeps its
// lane until the kernel returns, and who wants the lane meanwhile waits no longer
// than his own context. So calls on a dead volume do not pile up, and it blocks
// no other (kubernetes/kubernetes#31272, longhorn/longhorn#13236).
type lanes struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the lane is free again
}

// enter takes the lane; the caller must leave it.
func (l *lanes) enter(ctx context.Context, key string) (leave func(), err error) {
	for {
		taken, leave := l.try(key)
		if leave != nil {
			return leave, nil
		}
		select {
		case <-taken:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w waiting for an earlier operation on %s: %w", ErrTimeout, key, context.Cause(ctx))
		}
	}
}

func (l *lanes) try(key string) (taken <-chan struct{}, leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if taken, ok := l.busy[key]; ok {
		return taken, nil
	}
	if l.busy == nil {
		l.busy = map[string]chan struct{}{}
	}
	mine := make(chan struct{})
	l.busy[key] = mine
	return nil, func() {
		l.mu.Lock()
		delete(l.busy, key)
		l.mu.Unlock()
		close(mine)
	}
}

// any is a lane that is taken, nil when none is.
func (l *lanes) any() (key string, done <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, done := range l.busy {
		return key, done
	}
	return "", nil
}

// do runs f in the lane and returns its result, or ErrTimeout when ctx ends
// first; f then goes on alone.
func (l *lanes) do(ctx context.Context, key string, f func() error) error {
	leave, err := l.enter(ctx, key)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := f()
		leave()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w, it is still running: %w", ErrTimeout, context.Cause(ctx))
	}
}

// left says that the caller has given up: what has not begun must not begin.
func left(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrTimeout, context.Cause(ctx))
}
