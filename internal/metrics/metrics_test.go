package metrics_test

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const active = "rds_csi_nvme_connections_active"

// hooks are all instruments of one role, as the binaries wire them.
type hooks struct {
	reg        *metrics.Registry
	nvme       *metrics.NVMe
	rds        *metrics.RDS
	operations *metrics.Operations
	migrations *metrics.Migrations
	repairs    *metrics.Repairs

	leading     bool
	perNode     map[string]int
	moving      int
	drift       map[string]int
	appliances  []metrics.Appliance
	times       map[string]time.Time
	volumes     int
	known       bool
	connections map[string]int
	sysfs       error
	connected   bool
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRegistry(t *testing.T, role metrics.Role) *metrics.Registry {
	t.Helper()
	reg, err := metrics.NewRegistry(role, "v1.2.3")
	must(t, err)
	return reg
}

func controller(t *testing.T) *hooks {
	h := &hooks{reg: newRegistry(t, metrics.Controller)}
	var err error
	h.rds, err = metrics.NewRDS(h.reg)
	must(t, err)
	h.operations, err = metrics.NewOperations(h.reg)
	must(t, err)
	must(t, metrics.Attachments(h.reg, func() (int, bool) { return h.volumes, h.known }))
	must(t, h.rds.Watch("10.0.0.1:22", func() bool { return h.connected }))
	must(t, metrics.Leader(h.reg, func() bool { return h.leading }))
	must(t, metrics.NodeAttachments(h.reg, func() (map[string]int, bool) { return h.perNode, h.known }))
	h.migrations, err = metrics.NewMigrations(h.reg, func() (int, bool) { return h.moving, h.known })
	must(t, err)
	h.repairs, err = metrics.NewRepairs(h.reg, "export_lost")
	must(t, err)
	must(t, metrics.Drift(h.reg, func() map[string]int { return h.drift }))
	must(t, metrics.Appliances(h.reg, func() []metrics.Appliance { return h.appliances }))
	must(t, metrics.LastSuccess(h.reg, func() map[string]time.Time { return h.times }))
	return h
}

func node(t *testing.T) *hooks {
	h := &hooks{reg: newRegistry(t, metrics.Node)}
	var err error
	h.nvme, err = metrics.NewNVMe(h.reg)
	must(t, err)
	h.operations, err = metrics.NewOperations(h.reg)
	must(t, err)
	must(t, metrics.NodeConnections(h.reg, func() (map[string]int, error) { return h.connections, h.sysfs }))
	return h
}

// gather returns every sample by name and labels: name{a="b"}; histograms by
// their count.
func gather(t *testing.T, reg *metrics.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	must(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out[f.GetName()+labels(m)] = value(m)
		}
	}
	return out
}

func labels(m *dto.Metric) string {
	pairs := make([]string, 0, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		pairs = append(pairs, l.GetName()+`="`+l.GetValue()+`"`)
	}
	if len(pairs) == 0 {
		return ""
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

func value(m *dto.Metric) float64 {
	switch {
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetHistogram() != nil:
		return float64(m.GetHistogram().GetSampleCount())
	default:
		return m.GetUntyped().GetValue()
	}
}

func family(sample string) string {
	name, _, _ := strings.Cut(sample, "{")
	return name
}

// moveController makes every series of a controller show another value than at its start.
func moveController(_ *testing.T, h *hooks) {
	h.volumes, h.known = 3, true
	h.connected = true
	h.rds.Observe("disk_add", "ok", time.Second)
	h.operations.Observe("/csi.v1.Controller/CreateVolume", "OK", time.Second)
	h.leading, h.perNode, h.moving = true, map[string]int{"node-a": 2, "node-b": 1}, 1
	for _, result := range []string{"completed", "cancelled", "expired"} {
		h.migrations.MigrationEnded(result, time.Minute)
	}
	h.repairs.Repaired("export_lost", "ok")
	h.repairs.Repaired("export_lost", "error")
	h.drift = map[string]int{"export_lost": 1}
	h.appliances = []metrics.Appliance{wholeAppliance()}
	h.times = map[string]time.Time{"rds/rds1/volumes": time.UnixMilli(1_700_000_000_250)}
}

// wholeAppliance is an RDS of which all is known.
func wholeAppliance() metrics.Appliance {
	orphaned := 2
	return metrics.Appliance{
		RDS: "rds1", Stock: &metrics.Stock{Volumes: 7, Bytes: 7 << 30, Orphaned: &orphaned},
		Pool: &appliance.Pool{Slot: "storage-pool", SizeBytes: 1 << 40, FreeBytes: 1 << 39},
		Sensors: []appliance.Sensor{
			{Name: "cpu-temperature", Part: "cpu", Kind: appliance.KindTemperature, Value: 41},
			{Name: "fan1-speed", Part: "fan1", Kind: appliance.KindFan, Value: 4200},
			{Name: "psu1-power", Part: "psu1", Kind: appliance.KindPower, Value: 65.5},
			{Name: "psu1-state", Part: "psu1", Kind: appliance.KindState, Text: "ok"},
		},
		Traffic: []appliance.Traffic{{
			Slot: "storage-pool", ReadOps: 1, WriteOps: 2, ReadBytes: 3, WriteBytes: 4, InFlight: 5,
			Active: 6 * time.Second, Wait: 7500 * time.Millisecond,
			Have: appliance.HaveReadOps | appliance.HaveWriteOps | appliance.HaveReadBytes | appliance.HaveWriteBytes |
				appliance.HaveInFlight | appliance.HaveActive | appliance.HaveWait,
		}},
	}
}

// moveNode does the same to a node.
func moveNode(t *testing.T, h *hooks) {
	h.connections = map[string]int{"live": 1, "connecting": 2, "resetting": 3, "deleting": 4, "dead": 5}
	for _, status := range []string{"ok", "timeout", "error"} {
		h.nvme.ObserveConnect(status, time.Second)
	}
	for _, status := range []string{"ok", "timeout", "in_use", "error"} {
		h.nvme.ObserveDisconnect(status)
	}
	h.operations.Observe("/csi.v1.Node/NodeStageVolume", "OK", time.Second)
	h.sysfs = errors.New("sysfs is gone")
	gather(t, h.reg)
	h.sysfs = nil
}

// D24: the existing driver had a metric that nothing ever set, for three
// releases. Here every series that is registered moves, and a new one that is
// not added to this test fails it.
func TestEverySeriesMoves_D24(t *testing.T) {
	fixed := []string{"rds_csi_build_info"} // says which build this is
	for name, tt := range map[string]struct {
		hooks *hooks
		move  func(*testing.T, *hooks)
	}{
		"controller": {controller(t), moveController},
		"node":       {node(t), moveNode},
	} {
		t.Run(name, func(t *testing.T) {
			tt.hooks.sysfs = errors.New("not yet") // else a scrape within the same millisecond shows the same time of success
			before := gather(t, tt.hooks.reg)
			tt.move(t, tt.hooks)
			after := gather(t, tt.hooks.reg)
			for sample, now := range after {
				if ours(sample) && !slices.Contains(fixed, family(sample)) && before[sample] == now {
					t.Errorf("%s stayed at %v", sample, now)
				}
			}
			for _, name := range registered(tt.hooks.reg) {
				if !slices.ContainsFunc(keys(after), func(s string) bool { return family(s) == name }) {
					t.Errorf("%s is registered and never shown", name)
				}
			}
		})
	}
}

func keys(m map[string]float64) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// The names and labels that others script against.
func TestNamesAndLabels(t *testing.T) {
	c := controller(t)
	c.volumes, c.known, c.connected, c.leading = 16, true, true, true
	c.perNode, c.moving, c.drift = map[string]int{"node-a": 16}, 1, map[string]int{"node_gone": 0, "export_lost": 3}
	c.appliances = []metrics.Appliance{wholeAppliance()}
	c.times = map[string]time.Time{"nodes": time.UnixMilli(1_700_000_000_250), "persistentvolumes": {}}
	c.migrations.MigrationEnded("expired", time.Minute)
	c.rds.Observe("disk_add", "exists", time.Second)
	c.operations.Observe("/csi.v1.Controller/CreateVolume", "AlreadyExists", time.Second)
	wantSamples(t, c.reg, map[string]float64{
		active: 16,
		`rds_csi_rds_connection_state{address="10.0.0.1:22"}`:                        1,
		`rds_csi_rds_commands_total{command="disk_add",status="exists"}`:             1,
		`rds_csi_rds_command_duration_seconds{command="disk_add"}`:                   1,
		`rds_csi_operations_total{code="AlreadyExists",method="CreateVolume"}`:       1,
		`rds_csi_operation_duration_seconds{method="CreateVolume"}`:                  1,
		`rds_csi_build_info{goversion="` + runtime.Version() + `",version="v1.2.3"}`: 1,
		`rds_csi_leader`: 1,
		`rds_csi_volume_attachments{node="node-a"}`:                       16,
		`rds_csi_migrations_active`:                                       1,
		`rds_csi_migrations_total{result="completed"}`:                    0,
		`rds_csi_migrations_total{result="cancelled"}`:                    0,
		`rds_csi_migrations_total{result="expired"}`:                      1,
		`rds_csi_migration_duration_seconds`:                              1,
		`rds_csi_attachment_drift{kind="node_gone"}`:                      0,
		`rds_csi_attachment_drift{kind="export_lost"}`:                    3,
		`rds_csi_repairs_total{kind="export_lost",result="ok"}`:           0,
		`rds_csi_repairs_total{kind="export_lost",result="error"}`:        0,
		`rds_csi_volumes{rds="rds1"}`:                                     7,
		`rds_csi_provisioned_bytes{rds="rds1"}`:                           7 << 30,
		`rds_csi_volumes_orphaned{rds="rds1"}`:                            2,
		`rds_csi_pool_size_bytes{pool="storage-pool",rds="rds1"}`:         1 << 40,
		`rds_csi_pool_free_bytes{pool="storage-pool",rds="rds1"}`:         1 << 39,
		`rds_csi_state_last_success_timestamp_seconds{source="nodes"}`:    1_700_000_000.25,
		`rds_disk_read_ops_per_second{rds="rds1",slot="storage-pool"}`:    1,
		`rds_disk_write_ops_per_second{rds="rds1",slot="storage-pool"}`:   2,
		`rds_disk_read_bytes_per_second{rds="rds1",slot="storage-pool"}`:  3,
		`rds_disk_write_bytes_per_second{rds="rds1",slot="storage-pool"}`: 4,
		`rds_disk_in_flight_operations{rds="rds1",slot="storage-pool"}`:   5,
		`rds_disk_active_seconds{rds="rds1",slot="storage-pool"}`:         6,
		`rds_disk_wait_seconds{rds="rds1",slot="storage-pool"}`:           7.5,
		`rds_hardware_temperature_celsius{rds="rds1",sensor="cpu"}`:       41,
		`rds_hardware_fan_speed_rpm{fan="fan1",rds="rds1"}`:               4200,
		`rds_hardware_psu_power_watts{psu="psu1",rds="rds1"}`:             65.5,
		`rds_hardware_psu_state{psu="psu1",rds="rds1",state="ok"}`:        1,
	})
	n := node(t)
	n.connections = map[string]int{"live": 2, "deleting (no IO)": 1, "new": 1, "dead": 1}
	n.nvme.ObserveConnect("ok", time.Second)
	n.nvme.ObserveDisconnect("in_use")
	wantSamples(t, n.reg, map[string]float64{
		`rds_csi_nvme_connects_total{status="ok"}`:                                   1,
		`rds_csi_nvme_connects_total{status="timeout"}`:                              0,
		`rds_csi_nvme_connects_total{status="error"}`:                                0,
		`rds_csi_nvme_connect_duration_seconds`:                                      1,
		`rds_csi_nvme_disconnects_total{status="ok"}`:                                0,
		`rds_csi_nvme_disconnects_total{status="timeout"}`:                           0,
		`rds_csi_nvme_disconnects_total{status="in_use"}`:                            1,
		`rds_csi_nvme_disconnects_total{status="error"}`:                             0,
		`rds_csi_node_nvme_connections{state="live"}`:                                2,
		`rds_csi_node_nvme_connections{state="connecting"}`:                          0,
		`rds_csi_node_nvme_connections{state="resetting"}`:                           0,
		`rds_csi_node_nvme_connections{state="deleting"}`:                            1,
		`rds_csi_node_nvme_connections{state="other"}`:                               2,
		`rds_csi_node_nvme_read_errors_total`:                                        0,
		`rds_csi_build_info{goversion="` + runtime.Version() + `",version="v1.2.3"}`: 1,
	})
}

func wantSamples(t *testing.T, reg *metrics.Registry, want map[string]float64) {
	t.Helper()
	got := gather(t, reg)
	for sample, v := range want {
		if g, ok := got[sample]; !ok || g != v {
			t.Errorf("%s = %v, there %t; want %v", sample, g, ok, v)
		}
	}
	for sample := range got {
		if _, ok := want[sample]; !ok && ours(sample) && family(sample) != "rds_csi_state_last_success_timestamp_seconds" {
			t.Errorf("unexpected %s", sample)
		}
	}
	var goThere, processThere bool
	for sample := range got {
		goThere = goThere || strings.HasPrefix(sample, "go_")
		processThere = processThere || strings.HasPrefix(sample, "process_")
	}
	if !goThere || !processThere {
		t.Errorf("go collector %t, process collector %t", goThere, processThere)
	}
}

func TestNamesPassPromlint(t *testing.T) {
	for _, h := range []*hooks{controller(t), node(t)} {
		problems, err := testutil.GatherAndLint(h.reg)
		must(t, err)
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// Architecture, 'The case this started from': the node plugin has no ledger and
// does not know the name at all; the controller never connects.
func TestRolesCannotBeMixedUp(t *testing.T) {
	reg := newRegistry(t, metrics.Node)
	if err := metrics.Attachments(reg, func() (int, bool) { return 16, true }); !errors.Is(err, metrics.ErrRole) {
		t.Errorf("Attachments on a node: %v", err)
	}
	n := node(t)
	for _, r := range []*metrics.Registry{reg, n.reg} {
		if slices.Contains(registered(r), active) {
			t.Errorf("a node's registry knows %s", active)
		}
	}
	if !slices.Contains(registered(controller(t).reg), active) {
		t.Errorf("the controller's registry does not know %s", active)
	}
	reg = newRegistry(t, metrics.Controller)
	if _, err := metrics.NewNVMe(reg); !errors.Is(err, metrics.ErrRole) {
		t.Errorf("NewNVMe on the controller: %v", err)
	}
	if err := metrics.NodeConnections(reg, nil); !errors.Is(err, metrics.ErrRole) {
		t.Errorf("NodeConnections on the controller: %v", err)
	}
}

// A second registration panicked in the existing driver (part C).
func TestSecondRegistrationIsAnError(t *testing.T) {
	h := controller(t)
	if err := metrics.Attachments(h.reg, func() (int, bool) { return 0, true }); err == nil {
		t.Error("Attachments registered twice")
	}
	if _, err := metrics.NewRDS(h.reg); err == nil {
		t.Error("NewRDS registered twice")
	}
	if err := h.rds.Watch("10.0.0.1:22", func() bool { return true }); err == nil {
		t.Error("one address watched twice")
	}
	must(t, h.rds.Watch("10.0.0.2:22", func() bool { return false }))
	wantState := `rds_csi_rds_connection_state{address="10.0.0.2:22"}`
	if got, ok := gather(t, h.reg)[wantState]; !ok || got != 0 {
		t.Errorf("%s = %v, there %t", wantState, got, ok)
	}
}

func TestUnreadableSysfsIsAbsentNotZero(t *testing.T) {
	h := node(t)
	h.sysfs = errors.New("permission denied")
	for scrape := 1; scrape <= 2; scrape++ {
		got := gather(t, h.reg)
		for sample := range got {
			if family(sample) == "rds_csi_node_nvme_connections" {
				t.Errorf("%s is shown", sample)
			}
		}
		if n := got["rds_csi_node_nvme_read_errors_total"]; n != float64(scrape) {
			t.Errorf("read errors = %v after %d failed scrapes", n, scrape)
		}
	}
}
