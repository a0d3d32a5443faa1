package main

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/metrics"
	"github.com/rds-csi/rds-csi/internal/reconcile"
)

// B33: a scrape asks an RDS nothing, so it costs no more while one is silent: neither a command, nor a moment, nor memory. Where the
// existing driver waited 150 s for one silent host, the clock of this test does not move.
func TestScrapeCostsNoMoreWhileTheRDSIsSilent_B33(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rds := appliancetest.NewFake(appliancetest.Settings(t), appliancetest.PoolBytes)
		rds.PutSensors(t, appliance.Sensor{Name: "cpu-temperature", Part: "cpu", Kind: appliance.KindTemperature, Value: 41})
		rds.PutTraffic(t, appliance.Traffic{Slot: "storage-pool", Have: appliance.HaveReadOps})
		b, registry := lookingAt(t, rds)
		answering, series := scrapeCost(t, registry, rds)
		if series == 0 {
			t.Fatal("nothing is shown of the rds")
		}

		release := rds.Hold(appliancetest.List)
		for _, after := range []time.Duration{70 * time.Second, 5 * time.Minute} { // in the middle of a look that hangs, and when all is stale
			<-time.After(after)
			synctest.Wait()
			cost, _ := scrapeCost(t, registry, rds)
			if cost > answering+200 { // the Go and process collectors vary, and pools under the race detector
				t.Errorf("a scrape allocates %v times while the rds is silent, %v while it answers", cost, answering)
			}
		}
		if _, left := scrapeCost(t, registry, rds); left != 0 {
			t.Errorf("%d series are shown of an rds that has been silent for minutes", left)
		}
		release()
		b()
	})
}

// lookingAt is a controller's background over one RDS, without Kubernetes, after its first look.
func lookingAt(t *testing.T, rds reconcile.Appliance) (stop func(), registry *metrics.Registry) {
	t.Helper()
	registry, err := metrics.NewRegistry(metrics.Controller, "test")
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	b := &background{logger: quiet}
	b.surveys = []*reconcile.Survey{reconcile.NewSurvey(reconcile.SurveyConfig{
		RDS: "rds1", Interval: time.Minute, Logger: quiet, Looked: func() { b.drift.Wake() },
	})}
	b.drift = reconcile.NewDrift(reconcile.DriftConfig{Surveys: b.surveys, Interval: time.Minute, Grace: time.Minute, Logger: quiet})
	if err := metrics.Appliances(registry, b.appliances); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		reconcile.Run(ctx, quiet, reconcile.Loop{Name: "drift", Run: b.drift.Watch}, reconcile.Loop{Name: "survey", Run: func(ctx context.Context) error {
			return b.surveys[0].Watch(ctx, rds)
		}})
	}()
	synctest.Wait()
	return func() { cancel(); <-ended }, registry
}

// scrapeCost is what one scrape allocates, and how many series it shows of RDSs. It fails when a scrape asks or waits.
func scrapeCost(t *testing.T, registry *metrics.Registry, rds *appliancetest.Fake) (allocations float64, series int) {
	t.Helper()
	ops := []appliancetest.Op{appliancetest.List, appliancetest.Capacity, appliancetest.Health, appliancetest.Traffic}
	asked := func() (n int) {
		for _, op := range ops {
			n += rds.Calls(op)
		}
		return n
	}
	before, began := asked(), time.Now()
	scrape := func() {
		families, err := registry.Gather()
		if err != nil {
			t.Error(err)
		}
		series = 0
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "rds" {
						series++
					}
				}
			}
		}
	}
	// The least of some: pools that the garbage collector empties are filled again at some scrape's cost.
	allocations = testing.AllocsPerRun(1, scrape)
	for range 20 {
		allocations = min(allocations, testing.AllocsPerRun(1, scrape))
	}
	if n := asked() - before; n > 0 {
		t.Errorf("the scrapes asked the rds %d times", n)
	}
	if took := time.Since(began); took > 0 {
		t.Errorf("the scrapes waited %s", took)
	}
	return allocations, series
}
