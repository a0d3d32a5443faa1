package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// RDS counts console commands and shows whether each RDS is connected.
type RDS struct {
	reg      *Registry
	commands *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewRDS registers the instruments of the console connections.
func NewRDS(reg *Registry) (*RDS, error) {
	r := &RDS{
		reg: reg,
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rds_csi_rds_commands_total",
			Help: "Console commands sent to an RDS, by name and by how they ended.",
		}, []string{"command", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rds_csi_rds_command_duration_seconds",
			Help:    "How long console commands took, waiting for a channel included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"command"}),
	}
	return r, reg.register(r.commands, r.duration)
}

// Observe counts one command; it fits the hook of the console client.
func (r *RDS) Observe(command, status string, took time.Duration) {
	r.commands.WithLabelValues(command, status).Inc()
	r.duration.WithLabelValues(command).Observe(took.Seconds())
}

// Watch shows rds_csi_rds_connection_state for one RDS. The function must answer
// from memory: a scrape never asks the RDS.
func (r *RDS) Watch(address string, connected func() bool) error {
	return r.reg.register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "rds_csi_rds_connection_state",
		Help:        "1 while the management connection to the RDS is up, else 0.",
		ConstLabels: prometheus.Labels{"address": address},
	}, func() float64 {
		if connected() {
			return 1
		}
		return 0
	}))
}
