package metrics

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sysfsLimit is how long a scrape waits for sysfs. It answers in milliseconds;
// the limit is for the kernel that does not.
const sysfsLimit = time.Second

// NVMe counts what the node's initiator does. It fits internal/nvme's Observer.
type NVMe struct {
	connects    *prometheus.CounterVec
	duration    prometheus.Histogram
	disconnects *prometheus.CounterVec
}

// NewNVMe registers the counters of connects and disconnects: on the node only,
// the controller never connects.
func NewNVMe(reg *Registry) (*NVMe, error) {
	if err := reg.only(Node, "rds_csi_nvme_connects_total"); err != nil {
		return nil, err
	}
	n := &NVMe{
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rds_csi_nvme_connects_total",
			Help: "Attempts to connect a volume that reached the kernel, by how they ended.",
		}, []string{"status"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rds_csi_nvme_connect_duration_seconds",
			Help:    "How long attempts to connect took, until the block device was there or the attempt failed.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		disconnects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rds_csi_nvme_disconnects_total",
			Help: "Disconnects of a volume that had something to do, by how they ended.",
		}, []string{"status"}),
	}
	startAtZero(n.connects, "ok", "timeout", "error")
	startAtZero(n.disconnects, "ok", "timeout", "in_use", "error")
	return n, reg.register(n.connects, n.duration, n.disconnects)
}

// startAtZero makes series exist before their first event, so that a rate over
// the first failure is not lost.
func startAtZero(c *prometheus.CounterVec, statuses ...string) {
	for _, s := range statuses {
		c.WithLabelValues(s)
	}
}

// ObserveConnect counts one attempt to connect.
func (n *NVMe) ObserveConnect(status string, took time.Duration) {
	n.connects.WithLabelValues(status).Inc()
	n.duration.Observe(took.Seconds())
}

// ObserveDisconnect counts one disconnect.
func (n *NVMe) ObserveDisconnect(status string) { n.disconnects.WithLabelValues(status).Inc() }

// nodeConnections asks the node's kernel at scrape.
type nodeConnections struct {
	desc, failures, success *prometheus.Desc
	failed                  atomic.Uint64
	succeeded               atomic.Pointer[time.Time]
	source                  source[map[string]int]
}

// NodeConnections registers rds_csi_node_nvme_connections, on the node only. The
// function counts this node's controllers by their state in sysfs. When it fails,
// or does not answer within a second, the series are absent and a counter says so.
func NodeConnections(reg *Registry, read func() (map[string]int, error)) error {
	const name = "rds_csi_node_nvme_connections"
	if err := reg.only(Node, name); err != nil {
		return err
	}
	return reg.register(&nodeConnections{
		desc: prometheus.NewDesc(name,
			"NVMe/TCP controllers of this driver in this node's kernel, by state, read from sysfs now.",
			[]string{"state"}, nil),
		failures: prometheus.NewDesc("rds_csi_node_nvme_read_errors_total",
			"Scrapes that could not read the NVMe controllers from sysfs.", nil, nil),
		success: lastSuccessDesc(),
		source: source[map[string]int]{
			limit: sysfsLimit,
			read:  func(context.Context) (map[string]int, error) { return read() },
		},
	})
}

// Describe implements prometheus.Collector.
func (c *nodeConnections) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.desc
	ch <- c.failures
	ch <- c.success
}

// Collect implements prometheus.Collector.
func (c *nodeConnections) Collect(ch chan<- prometheus.Metric) {
	states, err := c.source.get(context.Background())
	if err != nil {
		c.failed.Add(1)
	} else {
		now := time.Now()
		c.succeeded.Store(&now)
	}
	if at := c.succeeded.Load(); at != nil {
		ch <- prometheus.MustNewConstMetric(c.success, prometheus.GaugeValue, seconds(*at), "sysfs")
	}
	ch <- prometheus.MustNewConstMetric(c.failures, prometheus.CounterValue, float64(c.failed.Load()))
	if err != nil {
		return
	}
	for state, n := range foldStates(states) {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), state)
	}
}

// foldStates maps the kernel's names of controller states (nvme_sysfs_show_state:
// new, live, resetting, connecting, deleting, deleting (no IO), dead) to the five
// of the metric. All five are there: after a good read, none means 0.
func foldStates(kernel map[string]int) map[string]int {
	out := map[string]int{"live": 0, "connecting": 0, "resetting": 0, "deleting": 0, "other": 0}
	for state, n := range kernel {
		if strings.HasPrefix(state, "deleting") {
			state = "deleting"
		}
		if _, named := out[state]; !named {
			state = "other"
		}
		out[state] += n
	}
	return out
}
