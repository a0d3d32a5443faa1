package metrics_test

import (
	"errors"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rds-csi/rds-csi/internal/metrics"
)

func goVersion() string { return runtime.Version() }

// catalogue is every name of this package.
func catalogue() []string {
	return []string{
		active,
		"rds_csi_build_info",
		"rds_csi_node_nvme_connections",
		"rds_csi_node_nvme_read_errors_total",
		"rds_csi_nvme_connect_duration_seconds",
		"rds_csi_nvme_connects_total",
		"rds_csi_nvme_disconnects_total",
		"rds_csi_operation_duration_seconds",
		"rds_csi_operations_total",
		"rds_csi_rds_command_duration_seconds",
		"rds_csi_rds_commands_total",
		"rds_csi_rds_connection_state",
	}
}

// probe describes one name with labels that nobody uses, and never shows it.
type probe struct{ desc *prometheus.Desc }

func (p probe) Describe(ch chan<- *prometheus.Desc) { ch <- p.desc }
func (p probe) Collect(chan<- prometheus.Metric)    {}

// describes tells whether reg holds the name: prometheus refuses a descriptor
// whose labels differ from those under which the name is registered already,
// also when nothing is shown under it.
func describes(reg *metrics.Registry, name string) (why string, held bool) {
	p := probe{prometheus.NewDesc(name, "probe", []string{"probe_of_the_test"}, nil)}
	err := reg.Register(p)
	if err == nil {
		reg.Unregister(p)
		return "", false
	}
	if errors.As(err, new(prometheus.AlreadyRegisteredError)) || strings.Contains(err.Error(), name) {
		return err.Error(), true
	}
	return err.Error(), false
}
