package manifests

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/test/prometheus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// badDay is a controller and a node with everything wrong that there is an alert for. Failing calls grow with each scrape.
func badDay(scrape int64) string {
	var page bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&page, format+"\n", args...) }
	say(`rds_csi_rds_connection_state{address="10.0.0.1:22"} 0`)
	for _, kind := range []string{"node_gone", "volume_gone", "volume_foreign", "export_lost", "mounted_on_rds", "in_use_unattached", "unresolved", "migration_overdue"} {
		say(`rds_csi_attachment_drift{kind=%q} 1`, kind)
	}
	say(`rds_csi_pool_size_bytes{rds="rds1",pool="storage-pool"} 1000`)
	say(`rds_csi_pool_free_bytes{rds="rds1",pool="storage-pool"} 10`)
	say(`rds_csi_provisioned_bytes{rds="rds1"} 2000`)
	say(`rds_csi_state_last_success_timestamp_seconds{source="rds/rds1/volumes"} 1000`)
	say(`rds_csi_state_last_success_timestamp_seconds{source="sysfs"} 1000`)
	say(`rds_csi_node_nvme_connections{state="connecting",node="n1"} 3`)
	say(`rds_csi_volume_attachments{node="n1"} 2`)
	say(`rds_csi_operations_total{method="CreateVolume",code="Unavailable"} %d`, scrape)
	say(`rds_csi_rds_commands_total{command="disk_add",status="unknown"} 1`)
	say(`rds_csi_volumes{rds="rds1"} 5`)
	say(`rds_csi_volumes_orphaned{rds="rds1"} 2`)
	say(`rds_hardware_temperature_celsius{rds="rds1",sensor="cpu"} 91`)
	say(`rds_hardware_psu_state{rds="rds1",psu="psu1",state="fail"} 1`)
	say(`rds_hardware_fan_speed_rpm{rds="rds1",fan="fan1"} 0`)
	say(`rds_csi_build_info{version="v1",goversion="go1"} 1`)
	say(`process_start_time_seconds 1000`)
	return page.String()
}

// A real Prometheus evaluates all that the chart brings against two replicas on a bad day. promtool only parses: that labels match one to one,
// and that the texts of alerts can be filled in, is seen when it is done.
func TestRealPrometheusEvaluatesAlertsAndDashboard(t *testing.T) {
	var scrapes atomic.Int64
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, badDay(scrapes.Add(1))) }))
	defer page.Close()
	other := httptest.NewServer(page.Config.Handler)
	defer other.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := prometheus.Start(ctx, prometheus.Config{
		Dir: t.TempDir(), Rules: []string{alertsFile}, Interval: 2 * time.Second,
		Jobs: map[string][]string{"rds-csi": {page.Listener.Addr().String(), other.Listener.Addr().String()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	all := readRules(t).all()
	raised := map[string]bool{}
	for _, r := range all {
		raised[r.Alert] = true
	}
	if _, err := s.Await(ctx, "count by (alertname) (ALERTS)", func(got []prometheus.Sample) bool { return len(got) == len(raised) }); err != nil {
		t.Fatal(err)
	}
	textsAreFilledIn(t, s)
	for _, query := range readDashboard(t).queries() {
		if _, err := s.Query(ctx, query); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
}

func textsAreFilledIn(t *testing.T, s *prometheus.Server) {
	t.Helper()
	rules, err := s.Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Health != "ok" || len(r.Alerts) == 0 {
			t.Errorf("%s is %s with %d alerts: %s", r.Name, r.Health, len(r.Alerts), r.LastError)
		}
		for _, a := range r.Alerts {
			for name, text := range a.Annotations {
				if strings.Contains(text, "error expanding") || strings.Contains(text, "<no value>") || strings.Contains(text, "{{") {
					t.Errorf("%s, %s: %s", r.Name, name, text)
				}
			}
		}
	}
}
