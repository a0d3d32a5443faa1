package metrics

import "github.com/prometheus/client_golang/prometheus"

// Leader registers rds_csi_leader, and makes the registry leave out what only a
// leader shows while leading says no: what is true of the cluster or of an RDS
// exists once, so that a sum over replicas is right. The function must answer from
// memory. Call it before the first scrape; without it this process always leads.
func Leader(reg *Registry, leading func() bool) error {
	const name = "rds_csi_leader"
	if err := reg.only(Controller, name); err != nil {
		return err
	}
	reg.leading = leading
	return reg.register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: name, Help: "1 on the replica that leads, 0 on a standby.",
	}, func() float64 {
		if leading() {
			return 1
		}
		return 0
	}))
}

// led is a collector that a standby does not show.
type led struct {
	prometheus.Collector

	reg *Registry
}

// Collect implements prometheus.Collector.
func (l led) Collect(ch chan<- prometheus.Metric) {
	if l.reg.leading == nil || l.reg.leading() {
		l.Collector.Collect(ch)
	}
}

// ledBy registers what only the leading controller shows.
func (r *Registry) ledBy(what string, cs ...prometheus.Collector) error {
	if err := r.only(Controller, what); err != nil {
		return err
	}
	wrapped := make([]prometheus.Collector, 0, len(cs))
	for _, c := range cs {
		wrapped = append(wrapped, led{c, r})
	}
	return r.register(wrapped...)
}

// gauges is a collector of one name, with or without labels. It asks at scrape;
// what is not known is not there.
type gauges struct {
	desc *prometheus.Desc
	ask  func(show func(value float64, labels ...string))
}

func newGauges(name, help string, labels []string, ask func(show func(value float64, labels ...string))) *gauges {
	return &gauges{desc: prometheus.NewDesc(name, help, labels, nil), ask: ask}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	g.ask(func(value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, value, labels...)
	})
}
