package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/metrics"
	"github.com/rds-csi/rds-csi/test/catalogue"
)

// names are the families that a scrape shows.
func names(t *testing.T, reg *metrics.Registry) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for sample := range gather(t, reg) {
		out[family(sample)] = true
	}
	return out
}

// A standby leaves out exactly what docs/metrics.md says only a leader shows, so that a sum over replicas is right.
func TestStandbyShowsNothingOfTheCluster(t *testing.T) {
	h := controller(t)
	moveController(t, h)
	for _, h.leading = range []bool{true, false, true} {
		shown := names(t, h.reg)
		for _, row := range documented(t) {
			if want := row.Role != catalogue.Leader || h.leading; row.OnController() && shown[row.Name] != want {
				t.Errorf("leading %t: %s is shown: %t, role %s", h.leading, row.Name, shown[row.Name], row.Role)
			}
		}
	}
}

// Without leader election there is nobody to leave anything to, and no rds_csi_leader.
func TestWithoutElectionOneLeads(t *testing.T) {
	reg := gauge(t, attach.NewLedger(attach.Options{}))
	must(t, metrics.Drift(reg, func() map[string]int { return map[string]int{"node_gone": 0} }))
	shown := names(t, reg)
	if !shown["rds_csi_attachment_drift"] || shown["rds_csi_leader"] {
		t.Errorf("shown: %v", shown)
	}
}

// What is not known is not there: neither all of it, nor a part of it.
func TestUnknownIsAbsent(t *testing.T) {
	const all = "rds_csi_volumes rds_csi_provisioned_bytes rds_csi_volumes_orphaned rds_csi_pool_size_bytes rds_csi_pool_free_bytes " +
		"rds_disk_read_ops_per_second rds_disk_write_ops_per_second rds_disk_read_bytes_per_second rds_disk_write_bytes_per_second " +
		"rds_disk_in_flight_operations rds_disk_active_seconds rds_disk_wait_seconds " +
		"rds_hardware_temperature_celsius rds_hardware_fan_speed_rpm rds_hardware_psu_power_watts rds_hardware_psu_state"
	for name, tt := range map[string]struct {
		forget func(*metrics.Appliance)
		absent string
	}{
		"everything": {func(a *metrics.Appliance) { *a = metrics.Appliance{RDS: a.RDS} }, all},
		"the stock":  {func(a *metrics.Appliance) { a.Stock = nil }, "rds_csi_volumes rds_csi_provisioned_bytes rds_csi_volumes_orphaned"},
		"orphans":    {func(a *metrics.Appliance) { a.Stock.Orphaned = nil }, "rds_csi_volumes_orphaned"},
		"the pool":   {func(a *metrics.Appliance) { a.Pool = nil }, "rds_csi_pool_size_bytes rds_csi_pool_free_bytes"},
		"one counter": {func(a *metrics.Appliance) { a.Traffic[0].Have &^= appliance.HaveWait },
			"rds_disk_wait_seconds"},
		"no power supply": {func(a *metrics.Appliance) { a.Sensors[3].Part = "fan1" }, "rds_hardware_psu_state"},
	} {
		t.Run(name, func(t *testing.T) {
			h := controller(t)
			moveController(t, h)
			tt.forget(&h.appliances[0])
			shown := names(t, h.reg)
			for metric := range strings.FieldsSeq(all) {
				if absent := slices.Contains(strings.Fields(tt.absent), metric); shown[metric] == absent {
					t.Errorf("%s is shown: %t", metric, shown[metric])
				}
			}
		})
	}
	h := controller(t)
	h.leading, h.perNode = true, map[string]int{"node-a": 1}
	for _, metric := range []string{"rds_csi_volume_attachments", "rds_csi_migrations_active", "rds_csi_attachment_drift"} {
		if names(t, h.reg)[metric] {
			t.Errorf("%s is shown before anything is known", metric)
		}
	}
}

// Two sensors that read alike must not take the scrape away from the others.
func TestTwoSensorsOfOnePart(t *testing.T) {
	h := controller(t)
	h.leading = true
	a := wholeAppliance()
	a.Sensors = append(a.Sensors, a.Sensors...)
	h.appliances = []metrics.Appliance{a}
	if v, there := gather(t, h.reg)[`rds_hardware_temperature_celsius{rds="rds1",sensor="cpu"}`]; v != 41 || !there {
		t.Errorf("%v, there %t", v, there)
	}
}

func TestSysfsTellsWhenItAnswered(t *testing.T) {
	h := node(t)
	const success = `rds_csi_state_last_success_timestamp_seconds{source="sysfs"}`
	h.sysfs = errors.New("gone")
	if _, there := gather(t, h.reg)[success]; there {
		t.Error("a success that was none")
	}
	h.sysfs = nil
	before := time.Now()
	at := gather(t, h.reg)[success]
	if at < float64(before.Unix()) || at > float64(time.Now().Unix()+1) {
		t.Errorf("answered at %v", at)
	}
	h.sysfs = errors.New("gone")
	if again := gather(t, h.reg)[success]; again != at {
		t.Errorf("a failure moved the last success from %v to %v", at, again)
	}
}

// whole is a controller's registry with everything on it, over a ledger with n attachments on a hundred nodes.
func whole(tb testing.TB, n int) (*metrics.Registry, *attach.Ledger) {
	tb.Helper()
	reg, err := metrics.NewRegistry(metrics.Controller, "test")
	if err != nil {
		tb.Fatal(err)
	}
	ledger := attach.NewLedger(attach.Options{})
	list := attachments(n)
	for i := range list {
		list[i].Node = fmt.Sprintf("node-%d", i%100)
	}
	ledger.Replace(list)
	_, migrations := metrics.NewMigrations(reg, func() (int, bool) { return 1, true })
	_, repairs := metrics.NewRepairs(reg, "export_lost")
	err = errors.Join(migrations, repairs,
		metrics.Leader(reg, func() bool { return true }),
		metrics.Attachments(reg, ledger.Volumes),
		metrics.NodeAttachments(reg, ledger.PerNode),
		metrics.Drift(reg, func() map[string]int { return map[string]int{"export_lost": 1} }),
		metrics.Appliances(reg, func() []metrics.Appliance { return []metrics.Appliance{wholeAppliance()} }),
		metrics.LastSuccess(reg, func() map[string]time.Time { return map[string]time.Time{"nodes": time.Now()} }))
	if err != nil {
		tb.Fatal(err)
	}
	return reg, ledger
}

// The cost of a scrape depends on the number of nodes and RDSs, not on that of attachments: of all that the registry gathers, and of the whole answer
// to Prometheus.
func TestWholeScrapeDoesNotGrow(t *testing.T) {
	overFew, _ := whole(t, 100)
	overLots, _ := whole(t, lots)
	sameCost(t, gathers(t, overFew), gathers(t, overLots))
	over := func(reg *metrics.Registry) func() {
		handler := (&metrics.Server{Registry: reg}).Handler()
		return func() {
			if code, _ := get(handler, "/metrics"); code != http.StatusOK {
				t.Errorf("status %d", code)
			}
		}
	}
	sameCost(t, over(overFew), over(overLots))
}

// One hundred scrapes at once; what they read, others replace meanwhile.
func TestConcurrentScrapesOfEverything(t *testing.T) {
	reg, ledger := whole(t, 1000)
	var scrapes, churn sync.WaitGroup
	done := make(chan struct{})
	churn.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				ledger.Upsert(attachment(i%1000, "node-b"))
				ledger.Remove(attachment(i%1000, "node-b").UID)
			}
		}
	})
	for range 100 {
		scrapes.Go(func() {
			if _, err := reg.Gather(); err != nil {
				t.Error(err)
			}
		})
	}
	scrapes.Wait()
	close(done)
	churn.Wait()
}

func BenchmarkScrapeOfEverything(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			reg, _ := whole(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := reg.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// One whole scrape, as Prometheus makes it: over TCP, compressed, on a connection that stays. The figures of docs/metrics.md are from here.
func BenchmarkHTTPScrape(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			reg, _ := whole(b, n)
			server := httptest.NewServer((&metrics.Server{Registry: reg}).Handler())
			defer server.Close()
			b.ReportAllocs()
			for b.Loop() {
				if err := readAll(b.Context(), server.URL+"/metrics"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// readAll asks as Prometheus does, and throws the answer away.
func readAll(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept-Encoding", "gzip")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}
