package kube

import (
	"context"
	"sync"
)

// reading lets a new leader begin where a restarted process does.
//
// Package attach argues that a restart admits nobody whom the process before it
// refused, and part of that is that the first list is a consistent read. A standby's ledger is fed by watches, and a
// watch may lag: it could still hold a VolumeAttachment that its predecessor saw
// go, and not the one that came since for another node. So who takes over drops
// its watches and lists anew, as a restarted process would, and does not lead
// until that has come. From then on it is the case that the package argues about.
type reading struct {
	mu      sync.Mutex
	stop    context.CancelFunc // ends what is read now; nil while nothing is
	waiting chan struct{}      // closed when what was asked for has been read; nil while nobody waits
}

// begin starts a reading: its ctx, what to call when all of it was read once, and
// what to call when it has ended.
func (r *reading) begin(ctx context.Context) (while context.Context, caughtUp, ended func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	while, r.stop = context.WithCancel(ctx)
	cancel, waiting := r.stop, r.waiting // who asks later asks for another reading
	return while, func() { r.answer(waiting) }, func() { cancel(); r.end() }
}

func (r *reading) answer(waiting chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if waiting != nil && r.waiting == waiting {
		r.waiting = nil
		close(waiting)
	}
}

func (r *reading) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = nil
}

// catchUp has everything read anew and waits for it, or for the end of ctx. With
// nothing to read there is nothing to wait for: what begins later begins with a
// list.
func (r *reading) catchUp(ctx context.Context) error {
	r.mu.Lock()
	stop, waiting := r.stop, r.waiting
	if stop != nil {
		waiting = make(chan struct{})
		r.waiting = waiting
		stop()
	}
	r.mu.Unlock()
	if stop == nil {
		return nil
	}
	select {
	case <-waiting:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
