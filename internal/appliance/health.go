package appliance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// The kinds of sensors. Which an RDS has is not known [U]: the manual names temperatures, fans, and the state, power and
// temperature of power supplies [V].
const (
	KindTemperature = "temperature" // degrees Celsius
	KindFan         = "fan"         // revolutions per minute
	KindPower       = "power"       // watts
	KindVoltage     = "voltage"     // volts
	KindCurrent     = "current"     // amperes
	KindState       = "state"       // Text alone: "ok", "fail", ...
	KindOther       = "other"       // a number of something else
)

// Sensor is one row of /system/health.
type Sensor struct {
	Name  string // as RouterOS calls it: "psu1-temperature", "board-temperature1"
	Part  string // what it belongs to: "psu1", "board1"; the whole name where that cannot be told
	Kind  string
	Value float64 // in the unit of Kind; of a state it means nothing
	Text  string  // of a state, in RouterOS's own words; else empty
}

// Health reads the sensors, in the order of the RDS. One command. A sensor that has no number to show, such as the
// temperature of a power supply that is not there, is absent. ErrUnsupported when the device has no sensors: then there is
// nothing to read now and nothing will come, which an empty list would leave open.
func (r *RDS) Health(ctx context.Context) ([]Sensor, error) {
	const subject = "sensors"
	reply, err := r.read(ctx, subject, healthScript())
	if errors.Is(err, routeros.ErrSyntax) { // a device without sensors may not have the menu at all [U]
		return nil, fmt.Errorf("rds %s: %s: %w: %w", r.settings.Name, subject, ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	rows, err := healthRows(reply)
	if err != nil {
		return nil, r.about(subject, err)
	}
	var sensors []Sensor
	for _, row := range rows {
		if s, ok := sensorOf(row); ok {
			sensors = append(sensors, s)
		}
	}
	if len(sensors) == 0 {
		return nil, fmt.Errorf("rds %s: %s: %w: the device shows none in /system/health", r.settings.Name, subject, ErrUnsupported)
	}
	return sensors, nil
}

func healthScript() *routeros.Builder {
	return routeros.NewScript("health_get").Add(
		`:put [:serialize to=json options=json.no-string-conversion [/system/health/print as-value]]`)
}

// healthRows reads a list of rows name, value, type [V], or one map of names and values, which older models have [S].
func healthRows(reply routeros.Reply) ([]record, error) {
	var raw json.RawMessage
	if err := reply.JSON(0, &raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	var one record
	if json.Unmarshal(raw, &one) != nil || one == nil {
		return records(reply, 0)
	}
	var all []record
	for _, name := range slices.Sorted(maps.Keys(one)) {
		if !strings.HasPrefix(name, ".") {
			all = append(all, record{"name": {routeros.PropertyOf(name)}, "value": one[name]})
		}
	}
	return all, nil
}

// sensorOf reads one row; what is neither a number nor a state is no reading.
func sensorOf(row record) (Sensor, bool) {
	s, text := Sensor{Name: row.text("name")}, row.text("value")
	if s.Name == "" || text == "" {
		return Sensor{}, false
	}
	s.Part, s.Kind = partAndKind(s.Name)
	value, unit, isNumber := quantity(text)
	switch {
	case s.Kind == KindState, s.Kind == KindOther && !isNumber:
		s.Kind, s.Text = KindState, text
		return s, true
	case !isNumber:
		return Sensor{}, false
	}
	s.Kind, s.Value = kindOf(cmp.Or(unit, row.text("type")), s.Kind), value
	return s, true
}

// kindOf believes a unit more than a name. A unit that we do not know makes the number one of something else, since it may be a
// thousandth of what the name promises.
func kindOf(unit, otherwise string) string {
	if unit == "" {
		return otherwise
	}
	switch strings.ToUpper(unit) {
	case "C":
		return KindTemperature
	case "RPM":
		return KindFan
	case "W":
		return KindPower
	case "V":
		return KindVoltage
	case "A":
		return KindCurrent
	default:
		return KindOther
	}
}

// partAndKind reads a name: "psu1-power" is the power of psu1, "board-temperature1" the temperature of board1.
func partAndKind(name string) (part, kind string) {
	for _, word := range []struct{ name, kind string }{
		{"-state", KindState}, {"-status", KindState}, {"-temperature", KindTemperature}, {"-speed", KindFan}, {"-power", KindPower},
		{"-voltage", KindVoltage}, {"-current", KindCurrent},
	} {
		before, after, found := strings.Cut(name, word.name)
		if found && before != "" && strings.Trim(after, "0123456789") == "" {
			return before + after, word.kind
		}
	}
	return name, KindOther
}
