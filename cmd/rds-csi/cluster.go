package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/config"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/kube"
	"github.com/rds-csi/rds-csi/internal/metrics"
)

// cluster is what the controller has of Kubernetes; without Kubernetes it is a ledger of its own and a configured id.
type cluster struct {
	client       *kube.Client // nil: no Kubernetes
	ledger       *attach.Ledger
	synced       chan struct{} // closed when the ledger knows its authority
	configuredID string
	logger       *slog.Logger
}

func newCluster(ctx context.Context, cfg config.Config, registry *metrics.Registry, o options) (cluster, error) {
	c := cluster{configuredID: cfg.ClusterID, synced: make(chan struct{}), logger: o.logger}
	client, err := kube.New(kube.Config{
		Kubeconfig: o.kubeconfig, DriverName: cfg.DriverName, Normalize: canonical(cfg.DefaultRDS()), Logger: o.logger,
		Published: driver.Published, MigrationTimeout: driver.MigrationTimeout,
	})
	switch {
	case errors.Is(err, kube.ErrNoCluster) && o.election.wanted:
		return c, usageErrorf("--leader-election needs Kubernetes: give --kubeconfig, or leave it out")
	case errors.Is(err, kube.ErrNoCluster):
		return c.standalone(ctx)
	case err != nil:
		return c, &usageError{err}
	}
	c.client, c.ledger = client, attach.NewLedger(attach.Options{})
	return c, errors.Join(metrics.Attachments(registry, c.ledger.Volumes), metrics.NodeAttachments(registry, c.ledger.PerNode))
}

// standalone works without Kubernetes: nothing tells what was attached before this process began, so the number of
// attachments is not offered as a metric at all.
func (c cluster) standalone(ctx context.Context) (cluster, error) {
	if c.configuredID == "" {
		return c, usageErrorf("no clusterID in the configuration, and no Kubernetes to ask for the UID of its kube-system: set clusterID, or give --kubeconfig")
	}
	c.logger.WarnContext(ctx, "running without Kubernetes: no --kubeconfig and not in a pod; attachments from before this start are not known, rds_csi_nvme_connections_active is not offered")
	c.ledger = attach.Standalone()
	return c, nil
}

// canonical writes volume handles in the one form that the ledger is keyed by.
func canonical(defaultRDS string) func(string) string {
	return func(handle string) string {
		id, err := appliance.ParseID(handle, defaultRDS)
		if err != nil {
			return handle
		}
		return id.Key()
	}
}

// run keeps the ledger equal to the VolumeAttachments.
func (c cluster) run(ctx context.Context) error {
	if c.client == nil {
		return nil
	}
	return c.client.RunAttachments(ctx, c.ledger, func() {
		close(c.synced)
		n, _ := c.ledger.Volumes()
		c.logger.InfoContext(ctx, "attachments are known", "volumes", n)
	})
}

// recorder writes Events until ctx ends; nil without Kubernetes, which records nothing.
func (c cluster) recorder(ctx context.Context) *kube.Recorder {
	if c.client == nil {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		host = "" // it only tells people which replica it was
	}
	return c.client.NewRecorder(ctx, "rds-csi", host)
}

func (c cluster) ready() error {
	if c.client == nil {
		return nil
	}
	if !c.ledger.Known() {
		return attach.ErrUnknown
	}
	return nil
}

// id waits for the cluster's identity: the API server may be down when the controller starts.
func (c cluster) id(ctx context.Context) (string, error) {
	if c.configuredID != "" {
		return c.configuredID, nil
	}
	id, err := c.client.ClusterID(ctx)
	if err == nil {
		c.logger.InfoContext(ctx, "the cluster is identified by the UID of kube-system", "cluster", id)
	}
	return id, err
}
