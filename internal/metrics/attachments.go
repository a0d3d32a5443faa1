package metrics

import "github.com/prometheus/client_golang/prometheus"

// attachments asks the ledger at scrape. It holds nothing, so a restart cannot
// falsify it.
type attachments struct {
	desc    *prometheus.Desc
	volumes func() (n int, known bool)
}

// Attachments registers rds_csi_nvme_connections_active: on the controller only,
// and only where Kubernetes is the authority. The function must answer from
// memory, in constant time.
func Attachments(reg *Registry, volumes func() (n int, known bool)) error {
	const name = "rds_csi_nvme_connections_active"
	if err := reg.only(Controller, name); err != nil {
		return err
	}
	return reg.register(&attachments{
		desc: prometheus.NewDesc(name,
			"Volumes with at least one attached VolumeAttachment; a migrating volume counts once. "+
				"Absent while the attachments are not known.", nil, nil),
		volumes: volumes,
	})
}

// Describe implements prometheus.Collector.
func (a *attachments) Describe(ch chan<- *prometheus.Desc) { ch <- a.desc }

// Collect implements prometheus.Collector.
func (a *attachments) Collect(ch chan<- prometheus.Metric) {
	if n, known := a.volumes(); known {
		ch <- prometheus.MustNewConstMetric(a.desc, prometheus.GaugeValue, float64(n))
	}
}
