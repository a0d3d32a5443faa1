package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/config"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/kube"
	"github.com/rds-csi/rds-csi/internal/metrics"
	"github.com/rds-csi/rds-csi/internal/reconcile"
)

// background is what the leading controller does beside its calls: it looks at each RDS, compares what it sees with what
// is attached, and follows migrations. Without Kubernetes there is nothing to compare with.
type background struct {
	surveys    []*reconcile.Survey
	drift      *reconcile.Drift
	migrations *reconcile.Migrations // nil without Kubernetes
	logger     *slog.Logger
}

func newBackground(cfg config.Config, registry *metrics.Registry, c cluster, controller *driver.Controller, events *kube.Recorder) (*background, error) {
	b := &background{logger: c.logger}
	interval := cfg.Reconcile.Interval.Duration
	for _, r := range cfg.RDS {
		b.surveys = append(b.surveys, reconcile.NewSurvey(reconcile.SurveyConfig{
			RDS: r.Name, Interval: interval, Logger: c.logger,
			Looked:      func() { b.drift.Wake() },
			VolumeSlots: func() []string { return volumeSlots(c, r.Name, cfg.Metrics.VolumeSeries) },
		}))
	}
	compare := reconcile.DriftConfig{Surveys: b.surveys, Interval: interval, Grace: cfg.Reconcile.Grace.Duration, Logger: c.logger}
	if c.client != nil {
		if err := b.inKubernetes(&compare, registry, c, controller, events); err != nil {
			return nil, err
		}
	}
	b.drift = reconcile.NewDrift(compare)
	if err := metrics.Appliances(registry, b.appliances); err != nil {
		return nil, err
	}
	return b, metrics.LastSuccess(registry, func() map[string]time.Time { return b.lastSuccess(c.client) })
}

// inKubernetes adds what has an authority there.
func (b *background) inKubernetes(compare *reconcile.DriftConfig, registry *metrics.Registry, c cluster, controller *driver.Controller, events *kube.Recorder) error {
	repairs, err := metrics.NewRepairs(registry, string(reconcile.ExportLost))
	if err != nil {
		return err
	}
	compare.Ledger, compare.Known, compare.Claimed = c.ledger, c.ledger.Known, c.client.PersistentVolumes
	compare.Events, compare.Repair, compare.Repaired = events, controller.Repair, repairs.Repaired
	if err := metrics.Drift(registry, func() map[reconcile.Kind]int { return b.drift.State().Drift }); err != nil {
		return err
	}
	ended, err := metrics.NewMigrations(registry, func() (int, bool) { return b.migrations.Active() })
	if err != nil {
		return err
	}
	b.migrations = reconcile.NewMigrations(reconcile.MigrationsConfig{
		Ledger: c.ledger, Synced: c.synced, Events: events, Counter: ended, Logger: c.logger,
		Overdue: func() { b.drift.Wake() },
	})
	return nil
}

func volumeSlots(c cluster, rds string, most int) []string {
	if most == 0 {
		return nil
	}
	return reconcile.VolumeSlots(c.ledger.Attachments(), rds, most)
}

// run goes on until ctx ends. The surveys begin now: a new leader knows nothing of what its predecessor saw.
func (b *background) run(ctx context.Context, appliances map[string]*appliance.RDS) {
	loops := []reconcile.Loop{{Name: "drift", Run: b.drift.Watch}}
	if b.migrations != nil {
		loops = append(loops, reconcile.Loop{Name: "migrations", Run: b.migrations.Watch})
	}
	for _, s := range b.surveys {
		loops = append(loops, reconcile.Loop{Name: "survey of " + s.RDS(), Run: func(ctx context.Context) error {
			return s.Watch(ctx, appliances[s.RDS()])
		}})
	}
	reconcile.Run(ctx, b.logger, loops...)
}

// appliances is what a scrape shows of each RDS: memory, and nothing that is too old.
func (b *background) appliances() []metrics.Appliance {
	state := b.drift.State()
	all := make([]metrics.Appliance, 0, len(b.surveys))
	for _, s := range b.surveys {
		known := s.Known()
		a := metrics.Appliance{RDS: s.RDS(), Sensors: known.Health.Value, Traffic: known.Traffic.Value}
		if !known.Pool.Came.IsZero() {
			a.Pool = &known.Pool.Value
		}
		if stock, counted := state.Stock[s.RDS()]; counted && !known.Volumes.Came.IsZero() {
			a.Stock = &metrics.Stock{Volumes: stock.Volumes, Bytes: stock.Bytes}
			if stock.OrphansKnown {
				a.Stock.Orphaned = &stock.Orphaned
			}
		}
		all = append(all, a)
	}
	return all
}

// lastSuccess is when each authority last told its state.
func (b *background) lastSuccess(client *kube.Client) map[string]time.Time {
	times := map[string]time.Time{}
	if client != nil {
		times = client.LastContact()
	}
	for _, s := range b.surveys {
		of, now := "rds/"+s.RDS()+"/", s.Latest()
		times[of+"volumes"], times[of+"pool"] = now.Volumes.Came, now.Pool.Came
		times[of+"health"], times[of+"traffic"] = now.Health.Came, now.Traffic.Came
	}
	return times
}
