//go:build cluster

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	scrapeEvery = 50 * time.Millisecond
	gauge       = "rds_csi_nvme_connections_active"

	refused = "no answer" // the process is not there
	absent  = "absent"    // it is, and does not say
)

// stretch is a time in which every scrape said the same.
type stretch struct {
	said        string // refused, absent, or the value as text
	first, last time.Time
	scrapes     int
}

func (s stretch) String() string {
	return fmt.Sprintf("%s to %s: %s (%d scrapes)", s.first.Format("15:04:05.000"), s.last.Format("05.000"), s.said, s.scrapes)
}

// scraper asks for the gauge all the time and keeps the whole record.
type scraper struct {
	url    string
	client *http.Client
	stop   context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex
	record  []stretch
	changed chan struct{} // closed, and made anew, at every scrape
}

// scrape begins; it ends with the test.
func scrape(t *testing.T, address string) *scraper {
	ctx, stop := context.WithCancel(context.Background())
	s := &scraper{
		url: "http://" + address + "/metrics", stop: stop, changed: make(chan struct{}),
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	s.ended.Go(func() {
		tick := time.NewTicker(scrapeEvery)
		defer tick.Stop()
		for {
			s.note(s.ask(ctx))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() { stop(); s.ended.Wait() })
	return s
}

func (s *scraper) ask(ctx context.Context) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err.Error()
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return refused
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return refused // killed in the middle of the answer, which Prometheus discards as well
	}
	if answer.StatusCode != http.StatusOK {
		return answer.Status
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, gauge+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return absent
}

func (s *scraper) note(said string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if n := len(s.record); n == 0 || s.record[n-1].said != said {
		s.record = append(s.record, stretch{said: said, first: now})
	}
	last := &s.record[len(s.record)-1]
	last.last = now
	last.scrapes++
	close(s.changed)
	s.changed = make(chan struct{})
}

// from is the record since a mark (0: the beginning); the stretch under way at the mark is in it.
func (s *scraper) from(mark int) []stretch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]stretch(nil), s.record[mark:]...)
}

// mark is where the record stands.
func (s *scraper) mark() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, len(s.record)-1)
}

// await waits for the next scrape that says so, beginning with one that has not been made yet.
func (s *scraper) await(t *testing.T, want string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	for {
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("the gauge did not say %s within %s:\n%v", want, patience, s.from(0))
		}
		s.mu.Lock()
		changed = s.changed
		said := s.record[len(s.record)-1].said
		s.mu.Unlock()
		if said == want {
			return
		}
	}
}

// awaitMore waits until that many more scrapes were made.
func (s *scraper) awaitMore(t *testing.T, scrapes int) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for range scrapes {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("no %d scrapes within %s", scrapes, patience)
		}
	}
}

// between asserts that every number that was ever said since a mark lies in a range.
func (s *scraper) between(t *testing.T, mark, least, most int) {
	t.Helper()
	for _, stretch := range s.from(mark) {
		if stretch.said == refused || stretch.said == absent {
			continue
		}
		if n, err := strconv.Atoi(stretch.said); err != nil || n < least || n > most {
			t.Errorf("%v is not between %d and %d; the whole record:\n%v", stretch, least, most, s.from(mark))
		}
	}
}

// only asserts on the whole record since a mark: nothing was ever said but what is allowed.
func (s *scraper) only(t *testing.T, mark int, allowed ...string) {
	t.Helper()
	permitted := map[string]bool{refused: true, absent: true}
	for _, said := range allowed {
		permitted[said] = true
	}
	scrapes := 0
	for _, stretch := range s.from(mark) {
		scrapes += stretch.scrapes
		if !permitted[stretch.said] {
			t.Errorf("the gauge said %s from %s to %s; allowed are %v; the whole record:\n%v",
				stretch.said, stretch.first.Format(time.StampMilli), stretch.last.Format(time.StampMilli), allowed, s.from(mark))
		}
	}
	t.Logf("%d scrapes in %d stretches", scrapes, len(s.from(mark)))
}
