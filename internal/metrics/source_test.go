package metrics

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// B33: in the existing driver one silent source held every scrape for 150 s.
// Here a source that hangs costs its own series, one second and one goroutine,
// however many scrapes there are; and when it comes back, so do its series.
func TestScrapeWhileSourceHangs_B33(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int64
		hang := make(chan struct{})
		reg, err := NewRegistry(Node, "test")
		if err != nil {
			t.Fatal(err)
		}
		err = NodeConnections(reg, func() (map[string]int, error) {
			open.Add(1)
			defer open.Add(-1)
			<-hang
			return map[string]int{"live": 7}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var scrapes sync.WaitGroup
		for range 100 {
			scrapes.Go(func() { scrapeWithin(t, reg, sysfsLimit, false) })
		}
		scrapes.Wait()
		if n := open.Load(); n != 1 {
			t.Errorf("%d reads are hanging, want 1", n)
		}
		close(hang)
		synctest.Wait()
		scrapeWithin(t, reg, 0, true)
	})
}

func scrapeWithin(t *testing.T, reg *Registry, limit time.Duration, want bool) {
	start := time.Now()
	families, err := reg.Gather()
	if err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > limit {
		t.Errorf("a scrape took %s, want at most %s", took, limit)
	}
	there := map[string]bool{}
	for _, f := range families {
		there[f.GetName()] = true
	}
	if !there["go_goroutines"] || !there["rds_csi_node_nvme_read_errors_total"] {
		t.Error("the hanging source took other metrics with it")
	}
	if there["rds_csi_node_nvme_connections"] != want {
		t.Errorf("connections there: %t, want %t", !want, want)
	}
}

// An answer to an older question may be out of date: it is not taken.
func TestSourceAnswersWithWhatWasTrueSinceAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var state atomic.Int64
		s := &source[int64]{limit: time.Minute, read: func(context.Context) (int64, error) {
			n := state.Load()
			<-time.After(time.Second) // of virtual time: a slow read
			return n, nil
		}}
		go func() { _, _ = s.get(t.Context()) }()
		synctest.Wait()
		state.Store(1)
		<-time.After(time.Millisecond)
		if n, err := s.get(t.Context()); n != 1 || err != nil {
			t.Errorf("got %d, %v: that was before it was asked", n, err)
		}
	})
}

func TestSourceEndsWithItsAsker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		s := &source[int]{limit: time.Minute, read: func(ctx context.Context) (int, error) {
			defer close(ended)
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		if _, err := s.get(ctx); !errors.Is(err, context.Canceled) || time.Since(start) > 0 {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		<-ended // the read ends by its own deadline, though nobody waits for it
		if took := time.Since(start); took >= time.Minute {
			t.Errorf("the read ended after %s", took)
		}
	})
}
