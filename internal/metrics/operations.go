package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Operations counts CSI calls.
type Operations struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewOperations registers the instruments of the gRPC interceptor.
func NewOperations(reg *Registry) (*Operations, error) {
	o := &Operations{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rds_csi_operations_total",
			Help: "CSI calls answered, by method and gRPC code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rds_csi_operation_duration_seconds",
			Help:    "How long CSI calls took.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"method"}),
	}
	return o, reg.register(o.total, o.duration)
}

// Observe counts one answered call. The method may be gRPC's full one
// (/csi.v1.Controller/CreateVolume): the label is its last part, which is unique
// among the CSI services.
func (o *Operations) Observe(method, code string, took time.Duration) {
	method = method[strings.LastIndexByte(method, '/')+1:]
	o.total.WithLabelValues(method, code).Inc()
	o.duration.WithLabelValues(method).Observe(took.Seconds())
}
