package metrics_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rds-csi/rds-csi/internal/metrics"
)

func get(handler http.Handler, path string) (code int, body string) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHealthzAndReadyz(t *testing.T) {
	down := func(context.Context) error { return errors.New("rds1: not connected since 12:00:00") }
	up := func(context.Context) error { return nil }
	standby := func() string { return "standby, rds-csi-0 leads" }
	tests := map[string]struct {
		server metrics.Server
		path   string
		code   int
		body   string
	}{
		"healthy without a check": {metrics.Server{}, "/healthz", 200, "ok\n"},
		"healthy":                 {metrics.Server{Healthy: up, Ready: down}, "/healthz", 200, "ok\n"},
		"unhealthy":               {metrics.Server{Healthy: down}, "/healthz", 503, "rds1: not connected since 12:00:00\n"},
		"ready without a check":   {metrics.Server{}, "/readyz", 200, "ok\n"},
		"ready":                   {metrics.Server{Ready: up}, "/readyz", 200, "ok\n"},
		"ready, with a note":      {metrics.Server{Ready: up, Note: standby}, "/readyz", 200, "ok: standby, rds-csi-0 leads\n"},
		"an empty note":           {metrics.Server{Note: func() string { return "" }}, "/readyz", 200, "ok\n"},
		"not ready, no note":      {metrics.Server{Ready: down, Note: standby}, "/readyz", 503, "rds1: not connected since 12:00:00\n"},
		"no note on health":       {metrics.Server{Healthy: up, Note: standby}, "/healthz", 200, "ok\n"},
		"not ready says why":      {metrics.Server{Ready: down}, "/readyz", 503, "rds1: not connected since 12:00:00\n"},
		"nothing else":            {metrics.Server{}, "/debug/pprof/", 404, "404 page not found\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.server.Registry = newRegistry(t, metrics.Controller)
			code, body := get(tt.server.Handler(), tt.path)
			if code != tt.code || body != tt.body {
				t.Errorf("%s: %d %q, want %d %q", tt.path, code, body, tt.code, tt.body)
			}
		})
	}
}

// B13: with a silent RDS the existing driver's Probe hung for ever.
func TestReadyzIsBounded_B13(t *testing.T) {
	for name, obeys := range map[string]bool{"a check that obeys its deadline": true, "a check that ignores it": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				wantBody := "no answer within 2s"
				if obeys {
					wantBody = "rds1: silent"
				}
				handler := (&metrics.Server{Registry: newRegistry(t, metrics.Controller), Ready: func(ctx context.Context) error {
					if !obeys {
						<-release
						return nil
					}
					<-ctx.Done()
					return errors.New("rds1: silent")
				}}).Handler()
				start := time.Now()
				code, body := get(handler, "/readyz")
				if took := time.Since(start); code != 503 || took > 2*time.Second || !strings.Contains(body, wantBody) {
					t.Errorf("%d %q after %s", code, body, took)
				}
				if code, _ := get(handler, "/healthz"); code != 200 {
					t.Errorf("healthz = %d while not ready", code)
				}
			})
		})
	}
}

// served is a server on a loopback port.
func served(ctx context.Context, t *testing.T, s *metrics.Server) (url string, done <-chan error) {
	t.Helper()
	s.Registry = newRegistry(t, metrics.Controller)
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	return "http://" + ln.Addr().String(), ended
}

func fetch(url string) (code int, body string, err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// B21: the existing driver exits without draining. Here a request under way
// when the process is told to end gets its answer, and no new one is taken.
func TestServeDrains_B21(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	entered, release := make(chan struct{}), make(chan struct{})
	s := &metrics.Server{}
	url, done := served(ctx, t, s)
	if code, body, err := fetch(url + "/metrics"); code != 200 || err != nil || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d, %v", code, err)
	}
	must(t, s.Registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "slow", Help: "Hangs."}, func() float64 {
		close(entered)
		<-release
		return 0
	})))
	type answer struct {
		code int
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		code, _, err := fetch(url + "/metrics")
		answered <- answer{code, err}
	}()
	<-entered
	var once sync.Once
	defer once.Do(func() { close(release) })
	cancel()
	for { // the listener closes at some moment after cancel; there is no event for it
		if _, _, err := fetch(url + "/healthz"); err != nil {
			break
		}
	}
	select {
	case err := <-done:
		t.Fatalf("Serve returned %v with a request under way", err)
	default:
	}
	once.Do(func() { close(release) })
	if got := <-answered; got.code != 200 || got.err != nil {
		t.Errorf("the request under way got %d, %v", got.code, got.err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestServeReportsBrokenListener(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	must(t, ln.Close())
	s := &metrics.Server{Registry: newRegistry(t, metrics.Controller)}
	if err := s.Serve(t.Context(), ln); err == nil || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("Serve on a closed listener = %v", err)
	}
}

func TestServeBeforeAnythingAnswers_B21(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url, done := served(ctx, t, &metrics.Server{Ready: func(context.Context) error {
		return errors.New("attachments are not known yet")
	}})
	for path, want := range map[string]int{"/metrics": 200, "/healthz": 200, "/readyz": 503} {
		if code, _, err := fetch(url + path); code != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", path, code, err, want)
		}
	}
	cancel()
	must(t, <-done)
}
