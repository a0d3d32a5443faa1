//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	scrapeEvery = 50 * time.Millisecond
	gauge       = "rds_csi_nvme_connections_active"

	perNode = "rds_csi_volume_attachments"

	refused = "refused"          // the process is not there, or ended while it answered
	silent  = "no answer at all" // it is there, and frozen: nothing of the driver makes a scrape wait
	absent  = "absent"           // it answers, and does not say
)

// A machine with too much to do may hold up any process for seconds; a whole minute is none of its doing.
const (
	tooLong = time.Minute      // for an answer
	stall   = 10 * time.Second // in a record, and no fault
)

// stretch is a time in which every scrape said the same.
type stretch struct {
	said        string    // refused, silent, absent, or the value as text
	spread      string    // the same of each node, as spreadOf writes it
	first, last time.Time // when an answer came
	asked       time.Time // when the last of them was asked for
	scrapes     int
}

// begins says whether what comes after the stretch before this one is another process, or one that reads anew.
func (s stretch) begins(before stretch) bool {
	switch s.said {
	case refused:
		return before.said != refused && before.said != silent
	case absent:
		return number(before)
	default:
		return false
	}
}

func (s stretch) String() string {
	return fmt.Sprintf("%s to %s: %s (%d scrapes)", s.first.Format("15:04:05.000"), s.last.Format("05.000"), s.said, s.scrapes)
}

// scraper asks for the gauge all the time and keeps the whole record.
type scraper struct {
	driver string
	url    string
	client *http.Client
	lag    time.Duration // by how much a number may be late; more where a test cuts the driver off
	ended  sync.WaitGroup
	over   time.Time // when it ended, to be read after that

	mu      sync.Mutex
	limit   time.Duration // after which no answer is silence
	record  []stretch
	changed chan struct{} // closed, and made anew, at every scrape
}

// scrape begins; it ends with the test, before anything is cleared away, and then all that was said must have been true.
func (r *replica) scrape() *scraper {
	t := r.of.t
	s := &scraper{
		driver: r.of.driver, url: "http://" + r.address + "/metrics", changed: make(chan struct{}), lag: behind,
		limit: tooLong, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
	s.ended.Go(func() {
		defer func() { s.over = time.Now() }()
		tick := time.NewTicker(scrapeEvery)
		defer tick.Stop()
		for {
			asked := time.Now()
			said, spread := s.ask(t.Context())
			if t.Context().Err() != nil {
				return
			}
			s.note(asked, said, spread)
			select {
			case <-tick.C:
			case <-t.Context().Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		s.ended.Wait()
		if !t.Failed() {
			s.verify(t)
		}
	})
	return s
}

// silentAfter is for a test that freezes the process: what does not answer by then is silent.
func (s *scraper) silentAfter(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
}

func (s *scraper) ask(ctx context.Context) (said, spread string) {
	s.mu.Lock()
	limit := s.limit
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err.Error(), ""
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return missed(err), ""
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return missed(err), "" // Prometheus discards half an answer as well
	}
	if answer.StatusCode != http.StatusOK {
		return answer.Status, ""
	}
	return read(string(body))
}

func missed(err error) string {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return silent
	}
	return refused
}

// read finds the number, and the volumes of each node.
func read(body string) (said, spread string) {
	said, nodes := absent, map[string]int{}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, gauge+" "); ok {
			said = strings.TrimSpace(value)
		}
		var node string
		var n int
		if _, err := fmt.Sscanf(line, perNode+"{node=%q} %d", &node, &n); err == nil {
			nodes[node] = n
		}
	}
	return said, spreadOf(nodes)
}

func (s *scraper) note(asked time.Time, said, spread string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if n := len(s.record); n == 0 || s.record[n-1].said != said || s.record[n-1].spread != spread {
		s.record = append(s.record, stretch{said: said, spread: spread, first: now})
	}
	last := &s.record[len(s.record)-1]
	last.asked, last.last = asked, now
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

// says whether a record has a stretch of that.
func says(record []stretch, what string) bool {
	for _, stretch := range record {
		if stretch.said == what {
			return true
		}
	}
	return false
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
	if !s.more(scrapes, patience) {
		t.Fatalf("no %d scrapes within %s", scrapes, patience)
	}
}

// forAWhile waits for twenty more scrapes, and not for long where they are slow: for outages that the Lease outlives.
func (s *scraper) forAWhile() { s.more(20, 3*time.Second) }

func (s *scraper) more(scrapes int, within time.Duration) bool {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	for range scrapes {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-deadline.C:
			return false
		}
	}
	return true
}

// only asserts on the whole record since a mark: nothing was ever said but what is allowed, and somebody asked all the
// time.
func (s *scraper) only(t *testing.T, mark int, allowed ...string) {
	t.Helper()
	record, scrapes := s.from(mark), 0
	if len(record) == 0 {
		t.Fatal("nobody asked")
	}
	for _, stretch := range record {
		scrapes += stretch.scrapes
		if !slices.Contains(append(allowed, refused, absent), stretch.said) {
			t.Errorf("the gauge said %s from %s to %s; allowed are %v; the whole record:\n%v",
				stretch.said, stretch.first.Format(time.StampMilli), stretch.last.Format(time.StampMilli), allowed, record)
		}
	}
	t.Logf("%d scrapes in %d stretches", scrapes, len(record))
	if err := holes(record, time.Now()); err != nil && !slices.Contains(allowed, silent) {
		t.Error(err)
	}
}

// holes says whether times are missing in a record that goes on until then. The ticker leaves out what a slow answer took,
// and the machine may be busy: one scrape in a second is enough, and none for a while now and then.
func holes(record []stretch, until time.Time) error {
	if len(record) == 0 {
		return nil
	}
	scrapes, took := 0, until.Sub(record[0].first)
	for _, s := range record {
		scrapes += s.scrapes
	}
	if scrapes < int((took-stall)/time.Second) {
		return fmt.Errorf("%w: %d scrapes in %s", errHoles, scrapes, took)
	}
	return nil
}

var errHoles = errors.New("the record has holes")

func TestHoles(t *testing.T) {
	began := time.Now()
	for _, c := range []struct {
		scrapes int
		took    time.Duration
		holes   bool
	}{
		{scrapes: 1, took: 2 * time.Second},                // one slow answer
		{scrapes: 60, took: time.Minute},                   // twenty times slower than wanted
		{scrapes: 100, took: 90 * time.Second},             // a busy machine
		{scrapes: 20, took: time.Minute, holes: true},      // begun, and stopped after a second
		{scrapes: 400, took: 8 * time.Minute, holes: true}, // one that gets ever slower
	} {
		record := []stretch{{said: absent, first: began, scrapes: c.scrapes / 2}, {said: "16", scrapes: c.scrapes - c.scrapes/2}}
		if err := holes(record, began.Add(c.took)); errors.Is(err, errHoles) != c.holes {
			t.Errorf("%d scrapes in %s: %v", c.scrapes, c.took, err)
		}
	}
}
