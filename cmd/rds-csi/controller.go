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
	"github.com/rds-csi/rds-csi/internal/kube"
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
	p, err := assemble(ctx, cfg, o)
	if err != nil {
		return err
	}
	return p.run(ctx, o)
}

// parts are what a controller is made of; none of them does anything yet.
type parts struct {
	cfg        config.Config
	registry   *metrics.Registry
	operations *metrics.Operations
	consoles   consoles
	cluster    cluster
	leader     leadership
	controller *driver.Controller
}

func assemble(ctx context.Context, cfg config.Config, o options) (p parts, err error) {
	p.cfg = cfg
	if p.registry, err = metrics.NewRegistry(metrics.Controller, version); err != nil {
		return p, err
	}
	if p.operations, err = metrics.NewOperations(p.registry); err != nil {
		return p, err
	}
	if p.consoles, err = newConsoles(cfg, p.registry, o); err != nil {
		return p, err
	}
	if p.cluster, err = newCluster(ctx, cfg, p.registry, o); err != nil {
		return p, err
	}
	if p.leader, err = newLeadership(o.election, p.cluster, cfg.DriverName, p.registry); err != nil {
		return p, err
	}
	p.controller = driver.NewController(cfg.DefaultRDS(), p.cluster.ledger, o.logger)
	p.controller.Lead, p.controller.Topology = p.leader.ask, topology(cfg)
	if p.cluster.client != nil {
		known := p.cluster.client
		p.controller.Claimed, p.controller.Promised, p.controller.Users = known.PersistentVolumes, known.Promised, known.Users
	}
	return p, nil
}

func topology(cfg config.Config) driver.Topology {
	return driver.Topology{Driver: cfg.DriverName, Nodes: cfg.NodesByRDS()}
}

// ready says whether calls can be answered. A standby is ready, for Kubernetes: a rollout must not wait for it to lead.
func (p parts) ready(context.Context) error {
	return errors.Join(p.consoles.ready(), p.cluster.ready(), p.controller.Ready())
}

// run serves until ctx ends, or leadership does.
func (p parts) run(ctx context.Context, o options) error {
	// What the calls lean on ends after the last of them has drained; leadership too, so that nobody else leads before.
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, below := errgroup.WithContext(below)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(below, cancel)() // a fault below ends the process: Kubernetes starts it again
	events := p.cluster.recorder(below)
	//nolint:contextcheck // an event waits for nobody and has no context
	p.controller.Refused, p.controller.Repaired = told(events, kube.Warning, kube.AttachRefused), told(events, kube.Normal, kube.VolumeRepaired)
	p.controller.Copying = told(events, kube.Normal, kube.SnapshotProgress) //nolint:contextcheck // likewise
	background, err := newBackground(p.cfg, p.registry, p.cluster, p.controller, events)
	if err != nil {
		return err
	}
	p.consoles.start(below)
	known := make(chan map[string]*appliance.RDS, 1)
	var lost error
	group.Go(func() error { return p.cluster.run(below) })
	group.Go(func() error { return p.useFleet(below, known) })
	group.Go(func() error {
		defer cancel() // the calls under way drain, and the process ends
		lost = p.leader.run(below, func(ctx context.Context) error { return lead(ctx, background, known) })
		return nil
	})

	served := serve(ctx, o,
		&driver.Server{
			Identity:   &driver.Identity{Name: p.cfg.DriverName, Version: version, Ready: p.ready, Lead: p.leader.ask, Topology: topology(p.cfg)},
			Controller: p.controller, Observe: p.operations.Observe, Logger: o.logger,
		},
		&metrics.Server{Registry: p.registry, Ready: p.ready, Note: p.leader.note, Logger: o.logger})
	stop()
	return errors.Join(served, ignoreCancelled(group.Wait()), lost, p.consoles.close())
}

// told tells the user of a claim what he has to do, or what was done.
func told(events *kube.Recorder, kind kube.EventType, reason string) func(volume, message string) {
	return func(volume, message string) { events.Volume(volume, kind, reason, message) }
}

// lead is what only a leader does, once it is known whose volumes it looks after.
func lead(ctx context.Context, b *background, known <-chan map[string]*appliance.RDS) error {
	select {
	case <-ctx.Done():
	case appliances := <-known:
		b.run(ctx, appliances)
	}
	return context.Cause(ctx)
}

func ignoreCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// useFleet gives the controller its appliances as soon as the cluster's identity is known, and then whoever looks after them.
func (p parts) useFleet(ctx context.Context, known chan<- map[string]*appliance.RDS) error {
	id, err := p.cluster.id(ctx)
	if err != nil {
		return err
	}
	appliances, err := p.consoles.appliances(id)
	if err != nil {
		return err
	}
	fleet := driver.Fleet{ClusterID: id, Appliances: map[string]driver.Appliance{}}
	for name, rds := range appliances {
		fleet.Appliances[name] = rds
	}
	p.controller.Use(fleet)
	known <- appliances
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

// appliances are the RDSs by name, with the volumes of one cluster on them.
func (all consoles) appliances(clusterID string) (map[string]*appliance.RDS, error) {
	appliances := map[string]*appliance.RDS{}
	for _, c := range all {
		rds, err := appliance.NewRDS(appliance.Settings{
			Name: c.cfg.Name, Default: c.cfg.Default, ClusterID: clusterID,
			Pool: c.pool, NVMeAddress: c.cfg.NVMe.Address, NVMePort: c.cfg.NVMe.Port,
		}, c.client)
		if err != nil {
			return nil, err
		}
		appliances[c.cfg.Name] = rds
	}
	return appliances, nil
}
