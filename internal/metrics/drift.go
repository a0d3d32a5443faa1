package metrics

import "github.com/prometheus/client_golang/prometheus"

// Drift registers rds_csi_attachment_drift. The function answers, from memory, the
// number of each kind of which it is known.
func Drift[Kind ~string](reg *Registry, counts func() map[Kind]int) error {
	const name = "rds_csi_attachment_drift"
	return reg.ledBy(name, newGauges(name,
		"Contradictions between VolumeAttachments, Nodes and the RDS that have lasted for longer than the grace time. "+
			"A kind of which the number is not known is absent.", []string{"kind"},
		func(show func(float64, ...string)) {
			for kind, n := range counts() {
				show(float64(n), string(kind))
			}
		}))
}

// Repairs counts what the driver repairs by itself.
type Repairs struct{ total *prometheus.CounterVec }

// NewRepairs registers rds_csi_repairs_total; the kinds are those that are repaired.
func NewRepairs(reg *Registry, kinds ...string) (*Repairs, error) {
	const name = "rds_csi_repairs_total"
	r := &Repairs{total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: name, Help: "Drift that the driver repaired by itself, or that it could not repair, by kind and result.",
	}, []string{"kind", "result"})}
	for _, kind := range kinds {
		r.total.WithLabelValues(kind, "ok")
		r.total.WithLabelValues(kind, "error")
	}
	return r, reg.ledBy(name, r.total)
}

// Repaired counts one.
func (r *Repairs) Repaired(kind, result string) { r.total.WithLabelValues(kind, result).Inc() }
