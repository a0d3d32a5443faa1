package sim

import (
	"slices"
	"sync"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// Sensor is one row of /system/health.
type Sensor struct {
	Name  string // cpu-temperature, fan1-speed, psu1-state, ...
	Value string // 48, 4320, ok
	Type  string // C, RPM, W, V; "" for a state
}

// gauges are what the device measures, or would.
type gauges struct {
	mu      sync.Mutex
	sensors []Sensor
	traffic map[string]Traffic // by slot; nil: everything counts, and nothing happens
}

// DefaultSensors are of the kinds that the manual names [V]; which of them an RDS has is not known [U].
func DefaultSensors() []Sensor {
	return []Sensor{
		{"cpu-temperature", "48", "C"},
		{"board-temperature1", "33", "C"},
		{"fan1-speed", "4320", "RPM"},
		{"fan2-speed", "4290", "RPM"},
		{"psu1-state", "ok", ""},
		{"psu1-power", "61.5", "W"},
		{"psu1-temperature", "31", "C"},
		{"psu2-state", "ok", ""},
		{"psu2-power", "58.2", "W"},
		{"psu2-temperature", "32", "C"},
	}
}

// SetSensors replaces the sensors.
func (d *Device) SetSensors(sensors ...Sensor) {
	d.gauges.mu.Lock()
	defer d.gauges.mu.Unlock()
	d.gauges.sensors = slices.Clone(sensors)
}

func (d *Device) sensors() []Sensor {
	if d.quirks.is(quirkHealth, none) {
		return nil
	}
	d.gauges.mu.Lock()
	defer d.gauges.mu.Unlock()
	return slices.Clone(d.gauges.sensors)
}

// healthMenu is /system/health, if the device has it.
func (d *Device) healthMenu() (console.Menu, bool) {
	switch d.quirks.get(quirkHealth) {
	case missing:
		return nil, false
	case asSettings:
		return fixedMenu{single: true, rows: d.healthSettings}, true
	}
	return fixedMenu{columns: []string{"name", "value", "type"}, rows: d.healthRows}, true
}

func (d *Device) healthRows() []*row {
	sensors := d.sensors()
	all := make([]*row, 0, len(sensors))
	for i, s := range sensors {
		all = append(all, &row{id: itemID(int64(i) + 1), fields: []field{
			{name: "name", value: s.Name}, {name: "value", value: s.Value}, {name: "type", value: s.Type},
		}})
	}
	return all
}

// healthSettings has a property per sensor, with its unit, and no rows [S, of older models].
func (d *Device) healthSettings() []*row {
	one := &row{}
	for _, s := range d.sensors() {
		one.fields = append(one.fields, field{name: s.Name, value: s.Value + s.Type})
	}
	return []*row{one}
}
