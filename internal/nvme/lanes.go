package nvme

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// lanes runs at most one operation per key at a time. An operation may hang in
// the kernel (a connect to a silent target, the deletion of a controller whose
// target is gone: linux-nvme/nvme-cli#350): its caller leaves when the context
// ends, the operation keeps its lane until the kernel returns, and whoever wants
// the same lane meanwhile waits no longer than his own context. So there is at
// most one goroutine per key, and one dead volume blocks no other
// (longhorn/longhorn#13236).
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

// do runs f in the lane and returns its result, or ErrTimeout when ctx ends
// first; f then goes on and late hears how it ended.
func (l *lanes) do(ctx context.Context, key string, f func() error, late func(error)) error {
	leave, err := l.enter(ctx, key)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	var abandoned atomic.Bool
	go func() {
		err := f()
		leave()
		done <- err
		if abandoned.Load() {
			late(err)
		}
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		abandoned.Store(true)
		return fmt.Errorf("%w, the kernel is still at it: %w", ErrTimeout, context.Cause(ctx))
	}
}
