package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/metrics"
)

func attachment(i int, node string) attach.Attachment {
	id := strconv.Itoa(i)
	return attach.Attachment{UID: node + "-" + id, Name: "va-" + id, Volume: "rds1/pvc-" + id, Node: node, Attached: true}
}

func attachments(n int) []attach.Attachment {
	list := make([]attach.Attachment, n)
	for i := range list {
		list[i] = attachment(i, "a")
	}
	return list
}

// gauge is a registry with nothing but the number of the ledger on it.
func gauge(t *testing.T, ledger *attach.Ledger) *metrics.Registry {
	t.Helper()
	reg := newRegistry(t, metrics.Controller)
	must(t, metrics.Attachments(reg, ledger.Volumes))
	return reg
}

// The case this project started from, as a scrape sees it.
func TestSeedCaseAtTheScrape(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	reg := gauge(t, ledger)
	want := func(step string, n float64, there bool) {
		t.Helper()
		if got, ok := gather(t, reg)[active]; got != n || ok != there {
			t.Errorf("%s: %s = %v, there %t; want %v, %t", step, active, got, ok, n, there)
		}
	}
	want("unsynced", 0, false)
	ledger.Replace(attachments(3))
	want("three VolumeAttachments", 3, true)
	ledger.Upsert(attachment(1, "b"))
	want("during a migration", 3, true)
	ledger.Replace(nil)
	want("none, and known", 0, true)

	ledger = attach.NewLedger(attach.Options{})
	reg = gauge(t, ledger)
	want("a new instance", 0, false)
	ledger.Replace(attachments(3))
	want("a new instance, rebuilt", 3, true)

	reg = gauge(t, attach.Standalone())
	want("without Kubernetes", 0, false)
}

// cost is what a call allocates: how often, and how many bytes; each the least of many calls, because pools that the garbage collector, or the race
// detector at random, empties are filled again at some call's cost.
func cost(call func()) (allocations, size uint64) {
	const calls = 40
	call() // what is made once
	for i := range calls {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		call()
		runtime.ReadMemStats(&after)
		a, s := after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
		if i == 0 {
			allocations, size = a, s
		}
		allocations, size = min(allocations, a), min(size, s)
	}
	return allocations, size
}

// lots of attachments, so that what is paid for each of them stands out of the noise.
const lots = 100_000

// sameCost compares a scrape over few attachments with one over lots of them.
func sameCost(t *testing.T, overFew, overLots func()) {
	t.Helper()
	// The Go and process collectors vary, and so do pools under the race detector, by tens of allocations and of KiB. One allocation for each
	// attachment is a hundred thousand; a copy of them all is one allocation or two, and MiBs; one of their keys 1.5 MiB.
	const noise, noiseBytes = 500, 512 << 10
	fewAllocations, fewBytes := cost(overFew)
	allocations, size := cost(overLots)
	if allocations > fewAllocations+noise || size > fewBytes+noiseBytes {
		t.Errorf("a scrape allocates %v times and %v bytes with few attachments, %v times and %v bytes with many", fewAllocations, fewBytes, allocations, size)
	}
}

func gathers(t *testing.T, reg *metrics.Registry) func() {
	return func() {
		if _, err := reg.Gather(); err != nil {
			t.Error(err)
		}
	}
}

// The existing driver copied its map: 426 KiB a scrape at 10,000 attachments.
func TestScrapeCostDoesNotGrow(t *testing.T) {
	of := func(n int) func() {
		ledger := attach.NewLedger(attach.Options{})
		ledger.Replace(attachments(n))
		return gathers(t, gauge(t, ledger))
	}
	sameCost(t, of(10), of(lots))
	if allocations, size := cost(of(10)); allocations > 3000 || size > 512<<10 {
		t.Errorf("a scrape allocates %v times, %v bytes", allocations, size)
	}
}

// What is counted without allocating would not show there: going through fifty thousand attachments takes hundreds of microseconds, reading
// the numbers takes less than a microsecond. The best of many tries is compared, with room for a busy machine.
func TestScrapeCountsNothing(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	ledger.Replace(attachments(50_000))
	reg := newRegistry(t, metrics.Controller)
	best := map[string]time.Duration{}
	var mu sync.Mutex // collectors run beside each other
	note := func(what string, began time.Time) {
		took := time.Since(began)
		mu.Lock()
		defer mu.Unlock()
		if best[what] == 0 || took < best[what] {
			best[what] = took
		}
	}
	must(t, metrics.Attachments(reg, func() (int, bool) {
		defer note("volumes", time.Now())
		return ledger.Volumes()
	}))
	must(t, metrics.NodeAttachments(reg, func() (map[string]int, bool) {
		defer note("volumes of each node", time.Now())
		return ledger.PerNode()
	}))
	for range 30 {
		gathers(t, reg)()
	}
	for what, took := range best {
		if took > 100*time.Microsecond {
			t.Errorf("%s took %s at best", what, took)
		}
	}
	if len(best) != 2 {
		t.Errorf("asked for %v", best)
	}
}

func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ledger := attach.NewLedger(attach.Options{})
			ledger.Replace(attachments(n))
			reg, err := metrics.NewRegistry(metrics.Controller, "bench")
			if err != nil {
				b.Fatal(err)
			}
			if err := metrics.Attachments(reg, ledger.Volumes); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := reg.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// history is what the number was, step by step, so that a scrape can be held to
// what was true while it ran.
type history struct {
	steps atomic.Int64 // steps begun
	ended atomic.Int64 // steps ended
	mu    sync.Mutex
	truth []int // after each step
}

// step does one change of the ledger, after which the number is n.
func (h *history) step(n int, change func()) {
	h.mu.Lock()
	h.truth = append(h.truth, n)
	h.mu.Unlock()
	h.steps.Add(1)
	change()
	h.ended.Add(1)
}

func (h *history) was(n int, from, to int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.truth[from : to+1] {
		if v == n {
			return true
		}
	}
	return false
}

// One hundred scrapes at once while volumes are attached, migrated and detached:
// every value was true at some moment of its scrape.
func TestScrapesDuringAttachAndDetach(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	ledger.Replace(attachments(16))
	handler := (&metrics.Server{Registry: gauge(t, ledger)}).Handler()
	h := &history{truth: []int{16}}

	stop := make(chan struct{})
	var writer, scrapers sync.WaitGroup
	writer.Go(func() {
		for round := 0; ; round++ {
			select {
			case <-stop:
				return
			default:
				churn(h, ledger)
			}
		}
	})
	for range 100 {
		scrapers.Go(func() {
			for range 5 {
				from := h.ended.Load()
				n, err := scrape(handler)
				to := h.steps.Load()
				if err != nil || !h.was(n, from, to) {
					t.Errorf("scraped %d (%v), which was not true between steps %d and %d", n, err, from, to)
				}
			}
		})
	}
	scrapers.Wait()
	close(stop)
	writer.Wait()
	if h.ended.Load() < 10 {
		t.Errorf("only %d changes during 500 scrapes", h.ended.Load())
	}
}

// churn attaches ten volumes, migrates each, relists, and detaches them again.
func churn(h *history, ledger *attach.Ledger) {
	n := 16
	for i := 100; i < 110; i++ {
		n++
		h.step(n, func() { ledger.Upsert(attachment(i, "a")) })
		h.step(n, func() { ledger.Upsert(attachment(i, "b")) })
		h.step(n, func() { ledger.Remove(attachment(i, "a").UID) })
	}
	h.step(16, func() { ledger.Replace(attachments(16)) })
}

// scrape asks /metrics and returns the number.
func scrape(handler http.Handler) (int, error) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		return 0, fmt.Errorf("status %d: %s", w.Code, w.Body)
	}
	for line := range strings.Lines(w.Body.String()) {
		if rest, ok := strings.CutPrefix(line, active+" "); ok {
			return strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return 0, fmt.Errorf("%s is not there", active)
}
