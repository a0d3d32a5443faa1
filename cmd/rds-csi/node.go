package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/rds-csi/rds-csi/internal/config"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/metrics"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

const fabrics = "/dev/nvme-fabrics"

// lastWords bounds the wait for a mkfs that outlived its call.
const lastWords = 20 * time.Second

// runNode builds the node plugin and serves until ctx ends. It reads neither keys nor addresses of an RDS.
func runNode(ctx context.Context, o options) error {
	cfg, err := config.Load(o.config, config.Node)
	if err != nil {
		return &usageError{err}
	}
	bridgeLogs(o.logger)
	registry, err := metrics.NewRegistry(metrics.Node, version)
	if err != nil {
		return err
	}
	operations, err := metrics.NewOperations(registry)
	if err != nil {
		return err
	}
	counters, err := metrics.NewNVMe(registry)
	if err != nil {
		return err
	}
	initiator := nvme.New(nvme.Config{
		Fabrics: fabrics, Host: nvme.HostFor(cfg.DriverName, cfg.ClusterID, o.nodeID), Observer: counters, Logger: o.logger,
	})
	if err := metrics.NodeConnections(registry, initiator.Connections); err != nil {
		return err
	}
	files := filesystem.New(filesystem.Config{Logger: o.logger})
	node := driver.NewNode(driver.NodeConfig{
		NodeID: o.nodeID, Initiator: initiator, Filesystem: files, Mounts: driver.KernelMounts, Logger: o.logger,
		Options: nvme.Options{
			CtrlLossTimeout: cfg.Node.CtrlLossTimeout.Duration,
			ReconnectDelay:  cfg.Node.ReconnectDelay.Duration,
			KeepAlive:       cfg.Node.KeepAlive.Duration,
		},
		Topology:   topology(cfg),
		MaxVolumes: maxVolumes(ctx, o.logger, cfg, initiator),
	})
	served := serve(ctx, o,
		&driver.Server{
			Identity: &driver.Identity{Name: cfg.DriverName, Version: version, Ready: nodeReady, Topology: topology(cfg)},
			Node:     node, NodeID: o.nodeID, Observe: operations.Observe, Logger: o.logger,
		},
		&metrics.Server{Registry: registry, Ready: nodeReady, Logger: o.logger})

	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	return errors.Join(served, files.Drain(last))
}

// maxVolumes is the administrator's number, or else the kernel's.
func maxVolumes(ctx context.Context, logger *slog.Logger, cfg config.Config, initiator *nvme.Initiator) int64 {
	if cfg.Node.MaxVolumes > 0 {
		return int64(cfg.Node.MaxVolumes)
	}
	limit, err := initiator.MaxVolumes()
	if err != nil {
		logger.WarnContext(ctx, "how many volumes this node can hold cannot be told, so no limit is; node.maxVolumes sets one", "err", err)
	}
	return limit
}

// nodeReady says whether volumes can be staged here: the kernel's door is there, and so are the programs. A program
// missing from an image is otherwise found by the first claim that needs it (the existing driver's had no resize2fs).
func nodeReady(context.Context) error {
	var faults []error
	if _, err := os.Stat(fabrics); errors.Is(err, fs.ErrNotExist) {
		faults = append(faults, fmt.Errorf("%s is missing: load the kernel module nvme-tcp", fabrics))
	} else if err != nil {
		faults = append(faults, err)
	}
	for _, program := range []string{"mkfs.ext4", "mkfs.xfs", "blkid"} {
		if _, err := exec.LookPath(program); err != nil {
			faults = append(faults, fmt.Errorf("program missing: %w", err))
		}
	}
	return errors.Join(faults...)
}
