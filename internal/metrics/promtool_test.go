package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/metrics"
	"github.com/rds-csi/rds-csi/test/prometheus"
)

// Prometheus' own word on names, units and help texts, over what a scrape of each role really answers.
func TestScrapesPassPromtool(t *testing.T) {
	onController, onNode := moved(t)
	for name, reg := range map[string]*metrics.Registry{"controller": onController, "node": onNode} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			(&metrics.Server{Registry: reg}).Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			if !strings.Contains(w.Body.String(), "\nrds_csi_build_info{") {
				t.Fatalf("that is no scrape: %s", w.Body)
			}
			if _, err := prometheus.Promtool(t.Context(), w.Body, "check", "metrics"); err != nil {
				t.Error(err)
			}
		})
	}
}
