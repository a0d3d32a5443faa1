package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/config"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/metrics"
	"github.com/rds-csi/rds-csi/internal/routeros"
)

// runController builds the controller and serves until ctx ends.
func runController(ctx context.Context, o options) error {
	cfg, err := config.Load(o.config, config.Controller)
	if err != nil {
		return &usageError{err}
	}
	bridgeLogs(o.logger)
	registry, err := metrics.NewRegistry(metrics.Controller, version)
	if err != nil {
		return err
	}
	operations, err := metrics.NewOperations(registry)
	if err != nil {
		return err
	}
	appliances, err := newConsoles(cfg, registry, o)
	if err != nil {
		return err
	}
	cluster, err := newCluster(ctx, cfg, registry, o)
	if err != nil {
		return err
	}
	controller := driver.NewController(cfg.DefaultRDS(), cluster.ledger, o.logger)
	ready := func(context.Context) error {
		return errors.Join(appliances.ready(), cluster.ready(), controller.Ready())
	}

	// What the calls lean on ends after the last of them has drained.
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, below := errgroup.WithContext(below)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(below, cancel)() // a fault below ends the process: Kubernetes starts it again
	appliances.start(below)
	group.Go(func() error { return cluster.run(below) })
	group.Go(func() error { return useFleet(below, controller, appliances, cluster) })

	served := serve(ctx, o,
		&driver.Server{
			Identity:   &driver.Identity{Name: cfg.DriverName, Version: version, Ready: ready},
			Controller: controller, Observe: operations.Observe, Logger: o.logger,
		},
		&metrics.Server{Registry: registry, Ready: ready, Logger: o.logger})
	stop()
	return errors.Join(served, ignoreCancelled(group.Wait()), appliances.close())
}

func ignoreCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// useFleet gives the controller its appliances as soon as the cluster's identity is known.
func useFleet(ctx context.Context, c *driver.Controller, appliances consoles, cluster cluster) error {
	id, err := cluster.id(ctx)
	if err != nil {
		return err
	}
	fleet, err := appliances.fleet(id)
	if err != nil {
		return err
	}
	c.Use(fleet)
	return nil
}

// consoles are the connections to the appliances, in the order of the configuration.
type consoles []console

type console struct {
	cfg    config.RDS
	pool   appliance.Path
	client *routeros.Client
}

func newConsoles(cfg config.Config, registry *metrics.Registry, o options) (consoles, error) {
	counters, err := metrics.NewRDS(registry)
	if err != nil {
		return nil, err
	}
	var all consoles
	var faults []error
	for _, r := range cfg.RDS {
		c, err := newConsole(r, counters, o)
		if err != nil {
			faults = append(faults, fmt.Errorf("rds %s: %w", r.Name, err))
		}
		all = append(all, c)
	}
	if len(faults) > 0 {
		return nil, &usageError{errors.Join(faults...)}
	}
	return all, nil
}

func newConsole(r config.RDS, counters *metrics.RDS, o options) (console, error) {
	pool, err := appliance.ParsePath(r.Pool.Path)
	if err != nil {
		return console{}, err
	}
	cfg := routeros.Config{
		Name: r.Name, Address: r.Address, User: r.User,
		MaxChannels: r.SSH.MaxChannels, SerializeOpen: r.SSH.SerializeOpen,
		DialTimeout: r.SSH.DialTimeout.Duration, CommandTimeout: r.SSH.CommandTimeout.Duration, KeepAlive: r.SSH.KeepAlive.Duration,
		Observe: counters.Observe, Logger: o.logger.With("rds", r.Name),
	}
	if err := credentials(r, &cfg); err != nil {
		return console{}, err
	}
	client, err := routeros.New(cfg)
	if err != nil {
		return console{}, err
	}
	connected := func() bool { return client.Status().Connected }
	return console{cfg: r, pool: pool, client: client}, counters.Watch(r.Address, connected)
}

// credentials reads the files that the configuration names. Their contents go nowhere but into the SSH handshake.
func credentials(r config.RDS, cfg *routeros.Config) (err error) {
	if r.PrivateKeyFile != "" {
		signer, err := routeros.ParseKeyFile(r.PrivateKeyFile)
		if err != nil {
			return err
		}
		cfg.Signers = []ssh.Signer{signer}
	}
	if r.PasswordFile != "" {
		password, err := os.ReadFile(r.PasswordFile)
		if err != nil {
			return fmt.Errorf("password: %w", err)
		}
		cfg.Password = strings.TrimRight(string(password), "\r\n")
	}
	if r.KnownHostsFile != "" {
		cfg.HostKey, err = routeros.KnownHosts(r.KnownHostsFile)
		return err
	}
	cfg.HostKey, err = routeros.Fingerprint(r.HostKeyFingerprint)
	return err
}

func (all consoles) start(ctx context.Context) {
	for _, c := range all {
		c.client.Start(ctx)
	}
}

func (all consoles) close() error {
	faults := make([]error, 0, len(all))
	for _, c := range all {
		faults = append(faults, c.client.Close())
	}
	return errors.Join(faults...)
}

// ready says whether any appliance can be asked. One of several that is down is no reason to keep the sidecars from
// working with the others; rds_csi_rds_connection_state tells of each.
func (all consoles) ready() error {
	faults := make([]error, 0, len(all))
	for _, c := range all {
		status := c.client.Status()
		if status.Connected {
			return nil
		}
		faults = append(faults, fmt.Errorf("rds %s at %s is not connected: %w", c.cfg.Name, c.cfg.Address, orUnknown(status.Err)))
	}
	return errors.Join(faults...)
}

func orUnknown(err error) error {
	if err == nil {
		return errors.New("no attempt has ended yet")
	}
	return err
}

// fleet is what the controller works with.
func (all consoles) fleet(clusterID string) (driver.Fleet, error) {
	fleet := driver.Fleet{ClusterID: clusterID, Appliances: map[string]driver.Appliance{}}
	for _, c := range all {
		rds, err := appliance.NewRDS(appliance.Settings{
			Name: c.cfg.Name, Default: c.cfg.Default, ClusterID: clusterID,
			Pool: c.pool, NVMeAddress: c.cfg.NVMe.Address, NVMePort: c.cfg.NVMe.Port,
		}, c.client)
		if err != nil {
			return driver.Fleet{}, err
		}
		fleet.Appliances[c.cfg.Name] = rds
	}
	return fleet, nil
}
