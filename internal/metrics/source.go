package metrics

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"
)

// source asks something that should answer at once but might hang. One question
// is open at a time, whoever comes meanwhile waits for the next answer, and
// nobody waits longer than the limit. So a hanging source costs one goroutine,
// however often it is asked.
type source[T any] struct {
	limit  time.Duration
	read   func(context.Context) (T, error)
	flight singleflight.Group
}

// reading is an answer and when its question was put.
type reading[T any] struct {
	value T
	began time.Time
}

// get returns what was true at some moment since it was called. An answer to a
// question put earlier (by another scrape) may be older than that, so it is not
// taken; the question after it is ours.
func (s *source[T]) get(ctx context.Context) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	asked := time.Now()
	for {
		answer := s.flight.DoChan("", func() (any, error) { return s.ask(ctx) })
		select {
		case r := <-answer:
			if got, ok := r.Val.(reading[T]); ok && !got.began.Before(asked) {
				return got.value, r.Err
			}
		case <-ctx.Done():
			var none T
			return none, fmt.Errorf("no answer within %s: %w", s.limit, context.Cause(ctx))
		}
	}
}

// ask puts the question, with a deadline of its own: it answers others too. The
// deadline is a little earlier than that of those who wait, so that they hear
// what a well-behaved reader has to say about it.
func (s *source[T]) ask(ctx context.Context) (reading[T], error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limit*9/10)
	defer cancel()
	began := time.Now()
	value, err := s.read(ctx)
	return reading[T]{value, began}, err
}
