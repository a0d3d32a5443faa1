package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// Loop is work that goes on until its context ends.
type Loop struct {
	Name string // for the log
	Run  func(context.Context) error
}

const (
	firstPause = time.Second
	mostPause  = time.Minute
)

// Run runs the loops until ctx ends, and returns when the last of them has. A
// loop that fails or panics is logged and started again, after a pause that grows
// while it keeps failing; the others do not notice.
func Run(ctx context.Context, logger *slog.Logger, loops ...Loop) {
	var all sync.WaitGroup
	for _, l := range loops {
		all.Go(func() { l.keep(ctx, logger.With("loop", l.Name)) })
	}
	all.Wait()
}

func (l Loop) keep(ctx context.Context, logger *slog.Logger) {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		began := time.Now()
		err := l.guarded(ctx)
		if ctx.Err() != nil || err == nil {
			return
		}
		if time.Since(began) > mostPause {
			pause = firstPause // it went well for a while
		}
		logger.ErrorContext(ctx, "a background loop failed, it is started again", "err", err, "in", pause.String())
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// guarded makes a panic an error: the loops look after attachments, they must not
// end the process that decides about them.
func (l Loop) guarded(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return l.Run(ctx)
}
