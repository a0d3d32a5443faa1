// Package metrics turns state and events into Prometheus metrics.
//
// State is never kept here: a gauge asks whoever owns the state, at scrape.
// What is not known is absent, not 0: "unknown" must never read as "none".
// Events (connects, commands, RPCs) are counted as they happen.
//
// A scrape does no I/O except reading sysfs, which is memory of the kernel, and
// takes no lock that anybody holds for long. The driver before this one called
// its appliance in a scrape, and one silent host cost 150 s (B33).
//
// Each process has a registry of its own, made for its role: what only the
// controller knows cannot be registered on a node, and the other way round.
package metrics

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Role is which process this is.
type Role string

// The two roles of the driver.
const (
	Controller Role = "controller"
	Node       Role = "node"
)

// ErrRole says that a metric has no authority in this role.
var ErrRole = errors.New("metric does not belong to this role")

// Registry is one process's own registry; nothing is in the global one.
type Registry struct {
	*prometheus.Registry
	role    Role
	leading func() bool // nil: always
}

// NewRegistry makes a registry with the Go, process and build collectors.
func NewRegistry(role Role, version string) (*Registry, error) {
	r := &Registry{Registry: prometheus.NewRegistry(), role: role}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "rds_csi_build_info",
		Help:        "Always 1; which build of the driver this is.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	err := r.register(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build,
	)
	return r, err
}

// register adds all or reports what could not be added.
func (r *Registry) register(cs ...prometheus.Collector) error {
	errs := make([]error, 0, len(cs))
	for _, c := range cs {
		errs = append(errs, r.Register(c))
	}
	return errors.Join(errs...)
}

// only refuses every role but one.
func (r *Registry) only(role Role, what string) error {
	if r.role != role {
		return fmt.Errorf("%s on the %s: %w, the %s has the authority", what, r.role, ErrRole, role)
	}
	return nil
}
