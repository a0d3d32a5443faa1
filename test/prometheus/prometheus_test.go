package prometheus_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/metrics"
	"github.com/rds-csi/rds-csi/test/prometheus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is for what takes seconds; a machine that is busy with other tests takes longer.
const limit = 2 * time.Minute

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve serves a registry on a loopback port until the test ends.
func serve(t *testing.T, reg *metrics.Registry) (address string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- (&metrics.Server{Registry: reg}).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func start(t *testing.T, cfg prometheus.Config) *prometheus.Server {
	t.Helper()
	cfg.Dir = t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s, err := prometheus.Start(context.WithoutCancel(ctx), cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// controller is a replica with a ledger of n volumes, on two nodes while one of them migrates.
func controller(t *testing.T, leading bool, n int) *metrics.Registry {
	t.Helper()
	reg, err := metrics.NewRegistry(metrics.Controller, "test")
	must(t, err)
	must(t, metrics.Leader(reg, func() bool { return leading }))
	ledger := attach.NewLedger(attach.Options{})
	list := []attach.Attachment{{UID: "m", Name: "m", Volume: "rds1/v0", Node: "b", Attached: true}}
	for i := range n {
		id := string(rune('a' + i))
		list = append(list, attach.Attachment{UID: id, Name: id, Volume: "rds1/v" + string(rune('0'+i)), Node: "a", Attached: true})
	}
	ledger.Replace(list)
	must(t, metrics.Attachments(reg, ledger.Volumes))
	counters, err := metrics.NewRDS(reg)
	must(t, err)
	must(t, counters.Watch("10.0.0.1:22", func() bool { return leading }))
	return reg
}

// The seed case, as users meet it: what a real Prometheus makes of a leader, its standby and a node.
func TestRealPrometheusScrapes(t *testing.T) {
	node, err := metrics.NewRegistry(metrics.Node, "test")
	must(t, err)
	must(t, metrics.NodeConnections(node, func() (map[string]int, error) { return map[string]int{"live": 16}, nil }))
	s := start(t, prometheus.Config{
		Jobs: map[string][]string{
			"controller": {serve(t, controller(t, true, 16)), serve(t, controller(t, false, 16))},
			"node":       {serve(t, node)},
		},
		Rules:    []string{"../../charts/rds-csi/files/alerts.yaml"},
		Interval: 3 * time.Second, // also what a scrape may take: a missed one would be a gap
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err = s.Await(ctx, "sum(up)", func(got []prometheus.Sample) bool { return len(got) == 1 && got[0].Value == 3 })
	must(t, err)
	for expr, want := range map[string]float64{
		"sum(rds_csi_nvme_connections_active)":                  16,
		"sum(rds_csi_leader)":                                   1,
		`sum(rds_csi_node_nvme_connections)`:                    16,
		`count(rds_csi_nvme_connections_active)`:                1,
		`count(rds_csi_nvme_connections_active{job="node"}) +1`: 0, // no answer
	} {
		got, err := s.Query(ctx, expr)
		if err != nil || want != 0 && (len(got) != 1 || got[0].Value != want) || want == 0 && len(got) != 0 {
			t.Errorf("%s: %v, %v; want %v", expr, got, err, want)
		}
	}
	_, err = s.Await(ctx, "ALERTS", func(got []prometheus.Sample) bool { // the first evaluation may have been before the first scrape
		return len(got) == 1 && got[0].Labels["alertname"] == "RDSUnreachable"
	})
	must(t, err)
	rules, err := s.Rules(ctx)
	must(t, err)
	for _, r := range rules {
		if r.Health != "ok" || r.LastError != "" {
			t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
		}
		if pending := len(r.Alerts) > 0; pending != (r.Name == "RDSUnreachable") { // the standby's connection
			t.Errorf("%s: %v", r.Name, r.Alerts)
		}
	}
	if len(rules) < 16 {
		t.Errorf("%d rules", len(rules))
	}
}

// Every scraped value is there to be looked at, none is left out by a step.
func TestSamples(t *testing.T) {
	s := start(t, prometheus.Config{Interval: 100 * time.Millisecond, Jobs: map[string][]string{"controller": {serve(t, controller(t, true, 3))}}})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err := s.Await(ctx, "count_over_time(rds_csi_nvme_connections_active[1m])", func(got []prometheus.Sample) bool { return len(got) == 1 && got[0].Value >= 5 })
	must(t, err)
	got, err := s.Samples(ctx, "rds_csi_nvme_connections_active", time.Minute)
	must(t, err)
	if len(got) < 5 {
		t.Errorf("%d samples", len(got))
	}
	for i, sample := range got {
		if sample.Value != 3 || i > 0 && !sample.Time.After(got[i-1].Time) {
			t.Errorf("sample %d: %s at %s", i, sample, sample.Time)
		}
	}
}

// What Prometheus has against a configuration is in the error, not only in a log that nobody finds.
func TestStartSaysWhyNot(t *testing.T) {
	_, err := prometheus.Start(t.Context(), prometheus.Config{Dir: t.TempDir(), Rules: []string{"prometheus_test.go"}})
	if err == nil || !strings.Contains(err.Error(), "prometheus_test.go") {
		t.Errorf("Start: %v", err)
	}
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	s := start(t, prometheus.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Await(ctx, "vector(1)", func([]prometheus.Sample) bool { return false }); err == nil || !strings.Contains(err.Error(), "vector(1)") {
		t.Errorf("Await: %v", err)
	}
	if _, err := s.Query(t.Context(), "sum("); err == nil || !strings.Contains(err.Error(), "parse error") {
		t.Errorf("Query: %v", err)
	}
}
