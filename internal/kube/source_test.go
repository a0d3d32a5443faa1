package kube

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// silent is an API server that accepts connections and then says nothing.
func silent() *source {
	return &source{
		what: "things", logger: slog.New(slog.DiscardHandler),
		list: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		watch: func(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
}

// B13, for the API server: silence ends at a deadline, and is asked again.
func TestSilentAPIServerIsBounded_B13(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if _, err := silent().ListWithContext(t.Context(), metav1.ListOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("list = %v", err)
		}
		if took := time.Since(start); took != listLimit {
			t.Errorf("the list took %s", took)
		}
		start = time.Now()
		if _, err := silent().WatchWithContext(t.Context(), metav1.ListOptions{}); err == nil {
			t.Error("a watch was opened")
		}
		if took := time.Since(start); took != watchOpenLimit {
			t.Errorf("opening the watch took %s", took)
		}
	})
}

// A watch whose connection died without a word ends soon after the time at
// which the API server would have ended it.
func TestDeadWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := silent()
		s.watch = func(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
			w := watch.NewFake()
			context.AfterFunc(ctx, w.Stop) // as a request does
			return w, nil
		}
		start, seconds := time.Now(), int64(300)
		w, err := s.WatchWithContext(t.Context(), metav1.ListOptions{TimeoutSeconds: &seconds})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		<-w.ResultChan()
		if took := time.Since(start); took != 300*time.Second+watchSlack {
			t.Errorf("the watch ended after %s", took)
		}
	})
}
