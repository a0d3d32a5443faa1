package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Migrations counts migrations that ended.
type Migrations struct {
	total    *prometheus.CounterVec
	duration prometheus.Histogram
}

// NewMigrations registers the metrics of migrations; active must answer from
// memory.
func NewMigrations(reg *Registry, active func() (n int, known bool)) (*Migrations, error) {
	const name = "rds_csi_migrations_active"
	m := &Migrations{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rds_csi_migrations_total",
			Help: "Migrations that ended: on the new node, on the old one, or after their deadline.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rds_csi_migration_duration_seconds",
			Help:    "From the second attachment of a volume until one of the two was gone.",
			Buckets: []float64{1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600},
		}),
	}
	startAtZero(m.total, "completed", "cancelled", "expired")
	return m, reg.ledBy(name, m.total, m.duration, newGauges(name, "Volumes that are attached to two nodes.", nil,
		func(show func(float64, ...string)) {
			if n, known := active(); known {
				show(float64(n))
			}
		}))
}

// MigrationEnded counts one.
func (m *Migrations) MigrationEnded(result string, took time.Duration) {
	m.total.WithLabelValues(result).Inc()
	m.duration.Observe(took.Seconds())
}
