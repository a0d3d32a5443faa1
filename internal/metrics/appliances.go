package metrics

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Appliance is what is known of one RDS and not too old. What is nil is not known.
// It is read, never changed.
type Appliance struct {
	RDS     string // its name in the configuration
	Stock   *Stock
	Pool    *appliance.Pool
	Sensors []appliance.Sensor
	Traffic []appliance.Traffic
}

// Stock is what this cluster has on an RDS.
type Stock struct {
	Volumes  int
	Bytes    int64
	Orphaned *int // nil: not known
}

// Appliances registers what is shown of each RDS. The function must answer from
// memory: a scrape never asks an RDS, so a silent one costs it nothing.
func Appliances(reg *Registry, known func() []Appliance) error {
	list := slices.Concat(stock(), pools(), counters(), sensors())
	all := make([]prometheus.Collector, 0, len(list))
	for _, s := range list {
		all = append(all, newGauges(s.name, s.help, append([]string{"rds"}, s.labels...), func(show func(float64, ...string)) {
			for _, a := range known() {
				s.ask(a, func(value float64, labels ...string) { show(value, append([]string{a.RDS}, labels...)...) })
			}
		}))
	}
	return reg.ledBy("rds_csi_volumes", all...)
}

// series is one name, asked of each RDS; its labels come after that of the RDS.
type series struct {
	name, help string
	labels     []string
	ask        func(a Appliance, show func(value float64, labels ...string))
}

func stock() []series {
	of := func(value func(*Stock) int64) func(Appliance, func(float64, ...string)) {
		return func(a Appliance, show func(float64, ...string)) {
			if a.Stock != nil {
				show(float64(value(a.Stock)))
			}
		}
	}
	return []series{
		{"rds_csi_volumes", "Volumes of this cluster on an RDS.", nil, of(func(s *Stock) int64 { return int64(s.Volumes) })},
		{"rds_csi_provisioned_bytes", "Sum of the sizes of this cluster's volumes on an RDS.", nil, of(func(s *Stock) int64 { return s.Bytes })},
		{
			"rds_csi_volumes_orphaned", "Volumes of this cluster on an RDS without a PersistentVolume, for longer than the grace time.", nil,
			func(a Appliance, show func(float64, ...string)) {
				if a.Stock != nil && a.Stock.Orphaned != nil {
					show(float64(*a.Stock.Orphaned))
				}
			},
		},
	}
}

func pools() []series {
	of := func(value func(*appliance.Pool) int64) func(Appliance, func(float64, ...string)) {
		return func(a Appliance, show func(float64, ...string)) {
			if a.Pool != nil {
				show(float64(value(a.Pool)), poolName(a.Pool))
			}
		}
	}
	label := []string{"pool"}
	return []series{
		{"rds_csi_pool_size_bytes", "Size of the pool that volumes are made on.", label, of(func(p *appliance.Pool) int64 { return p.SizeBytes })},
		{"rds_csi_pool_free_bytes", "Free space of the pool that volumes are made on.", label, of(func(p *appliance.Pool) int64 { return p.FreeBytes })},
	}
}

// poolName is the slot of the pool's disk, under which rds_disk_* shows its work.
func poolName(p *appliance.Pool) string { return cmp.Or(p.Slot, p.Path.MountPoint()) }

// counters are the fields of the traffic of each disk item that has them.
func counters() []series {
	of := func(field appliance.Counters, value func(appliance.Traffic) float64) func(Appliance, func(float64, ...string)) {
		return func(a Appliance, show func(float64, ...string)) {
			for _, t := range a.Traffic {
				if t.Has(field) {
					show(value(t), t.Slot)
				}
			}
		}
	}
	type traffic = appliance.Traffic
	label := []string{"slot"}
	return []series{
		{"rds_disk_read_ops_per_second", "Reads per second of a disk item.", label, of(appliance.HaveReadOps, func(t traffic) float64 { return t.ReadOps })},
		{"rds_disk_write_ops_per_second", "Writes per second of a disk item.", label, of(appliance.HaveWriteOps, func(t traffic) float64 { return t.WriteOps })},
		{"rds_disk_read_bytes_per_second", "Bytes read per second from a disk item.", label, of(appliance.HaveReadBytes, func(t traffic) float64 { return t.ReadBytes })},
		{"rds_disk_write_bytes_per_second", "Bytes written per second to a disk item.", label, of(appliance.HaveWriteBytes, func(t traffic) float64 { return t.WriteBytes })},
		{"rds_disk_in_flight_operations", "Operations of a disk item that are under way.", label, of(appliance.HaveInFlight, func(t traffic) float64 { return t.InFlight })},
		{"rds_disk_active_seconds", "How long a disk item was busy, as RouterOS says it.", label, of(appliance.HaveActive, func(t traffic) float64 { return t.Active.Seconds() })},
		{"rds_disk_wait_seconds", "How long operations of a disk item stood in its queue, as RouterOS says it.", label, of(appliance.HaveWait, func(t traffic) float64 { return t.Wait.Seconds() })},
	}
}

// sensors are those of each kind. A second one of the same part is left out:
// prometheus would refuse the whole scrape of them.
func sensors() []series {
	of := func(kind string, value func(appliance.Sensor) (float64, []string)) func(Appliance, func(float64, ...string)) {
		return func(a Appliance, show func(float64, ...string)) {
			seen := map[string]bool{}
			for _, s := range a.Sensors {
				if s.Kind != kind || seen[s.Part] || kind == appliance.KindState && !strings.HasPrefix(s.Part, "psu") {
					continue
				}
				seen[s.Part] = true
				v, labels := value(s)
				show(v, labels...)
			}
		}
	}
	reads := func(s appliance.Sensor) (float64, []string) { return s.Value, []string{s.Part} }
	says := func(s appliance.Sensor) (float64, []string) { return 1, []string{s.Part, s.Text} }
	return []series{
		{"rds_hardware_temperature_celsius", "Temperature that a sensor of the RDS shows.", []string{"sensor"}, of(appliance.KindTemperature, reads)},
		{"rds_hardware_fan_speed_rpm", "Speed of a fan of the RDS.", []string{"fan"}, of(appliance.KindFan, reads)},
		{"rds_hardware_psu_power_watts", "Power that a power supply of the RDS delivers.", []string{"psu"}, of(appliance.KindPower, reads)},
		{"rds_hardware_psu_state", "1 for the state that the RDS reports of a power supply.", []string{"psu", "state"}, of(appliance.KindState, says)},
	}
}
