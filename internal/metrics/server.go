package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	checkLimit = 2 * time.Second // of one /healthz or /readyz; probes wait longer
	drainLimit = 5 * time.Second // for requests under way when the process ends
)

// Server answers /metrics, /healthz and /readyz. It needs nothing to be up: it
// serves before the first RDS or API server answers, and says what is missing.
type Server struct {
	Registry *Registry
	Healthy  func(context.Context) error // is the process all right; nil: it is when it answers
	Ready    func(context.Context) error // can it serve; the error tells why not
	Note     func() string               // what to say beside "ok", from memory; may be nil
	Logger   *slog.Logger
}

// Handler is what Serve serves.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(s.logger().Handler(), slog.LevelWarn),
		ErrorHandling: promhttp.ContinueOnError, // one bad collector must not take the others away
		Registry:      s.Registry,
	}))
	mux.Handle("GET /healthz", check(s.Healthy, nil))
	mux.Handle("GET /readyz", check(s.Ready, s.Note))
	return mux
}

// Serve answers on the listener until ctx ends, then lets requests under way
// finish, for a few seconds.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.logger().Handler(), slog.LevelDebug),
	}
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { drained <- drain(ctx, srv) })
	err := srv.Serve(ln)
	if stop() {
		return fmt.Errorf("metrics server on %s: %w", ln.Addr(), err)
	}
	return <-drained
}

// drain runs after ctx has ended.
func drain(ctx context.Context, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("metrics server did not drain: %w", err), srv.Close())
	}
	return nil
}

func (s *Server) logger() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}

// check answers ok, and the note, or 503 and why not. A check that hangs is cut
// off, and runs once however many probes wait for it.
func check(f func(context.Context) error, note func() string) http.Handler {
	if f == nil {
		f = func(context.Context) error { return nil }
	}
	if note == nil {
		note = func() string { return "" }
	}
	src := &source[struct{}]{
		limit: checkLimit,
		read:  func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		answer := "ok"
		if said := note(); said != "" {
			answer += ": " + said
		}
		if _, err := src.get(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			answer = err.Error()
		}
		_, _ = io.WriteString(w, answer+"\n") // the client is gone otherwise
	})
}
