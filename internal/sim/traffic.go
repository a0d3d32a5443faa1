package sim

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// Traffic is what the counters of one disk item show. Nothing here counts I/O: counters show what they were set to.
type Traffic struct {
	ReadOps, ReadBytes                    int64 // since they were reset
	ReadOpsPerSecond, WriteOpsPerSecond   int64
	ReadBitsPerSecond, WriteBitsPerSecond int64
	InFlight                              int64
	Active, Wait                          time.Duration
}

var (
	errForEver    = errors.New("failure: this would go on for ever; the simulator wants once or duration")
	errNoCounters = errors.New("failure: no counters for this disk") // [U]
)

// SetTraffic replaces the counters: items that are not in the map have none. nil is a device as it starts: every item
// counts, and nothing happens.
func (d *Device) SetTraffic(bySlot map[string]Traffic) {
	d.gauges.mu.Lock()
	defer d.gauges.mu.Unlock()
	d.gauges.traffic = maps.Clone(bySlot)
}

// trafficOf is what the counters of an item show, if it has any.
func (d *Device) trafficOf(slot string) (Traffic, bool) {
	d.gauges.mu.Lock()
	defer d.gauges.mu.Unlock()
	t, ok := d.gauges.traffic[slot]
	return t, ok || d.gauges.traffic == nil
}

// reading is one line of a monitor.
type reading struct {
	name, shown string
	value       console.Value
}

// monitorTraffic shows the counters of items, or yields them.
func (d *Device) monitorTraffic(w io.Writer, chosen []*row, a arguments) (console.Value, error) {
	switch {
	case len(chosen) == 0:
		return nil, errors.New("numbers: ") // the console asks, and nobody answers
	case !a.has("once") && !a.has("duration"):
		return nil, errForEver
	}
	proplist := strings.Split(a.text("proplist"), ",")
	unwanted := func(r reading) bool { return a.has("proplist") && !slices.Contains(proplist, r.name) }
	items := make([][]reading, 0, len(chosen))
	for _, r := range chosen {
		list, err := d.readings(r)
		if err != nil {
			return nil, err
		}
		items = append(items, slices.DeleteFunc(list, unwanted))
	}
	if a.has("as-value") {
		return d.monitored(chosen, items), nil
	}
	return nil, monitor(w, items)
}

// readings are those of one item, in the order of a real device [R].
func (d *Device) readings(r *row) ([]reading, error) {
	v, _ := r.Get("slot")
	slot := console.Text(v)
	t, counted := d.trafficOf(slot)
	switch how := d.quirks.get(quirkMonitorFiles); {
	case r.disk != nil && how == failing:
		return nil, errNoCounters
	case !counted, r.disk != nil && how == none:
		return []reading{{"slot", slot, slot}}, nil
	}
	number := func(name string, n int64) reading { return reading{name, grouped(n), n} }
	return []reading{
		{"slot", slot, slot},
		number("read-ops", t.ReadOps),
		number("read-ops-per-second", t.ReadOpsPerSecond),
		number("read-bytes", t.ReadBytes),
		{"read-rate", bits(t.ReadBitsPerSecond), t.ReadBitsPerSecond},
		number("write-ops-per-second", t.WriteOpsPerSecond),
		{"write-rate", bits(t.WriteBitsPerSecond), t.WriteBitsPerSecond},
		number("in-flight-ops", t.InFlight),
		{"active-time", lasting(t.Active), clock(t.Active)},
		{"wait-time", lasting(t.Wait), clock(t.Wait)},
	}, nil
}

// monitored is what as-value yields: of one item a map, of several a list of maps. So it is in other menus [S].
func (d *Device) monitored(chosen []*row, items [][]reading) console.Value {
	list := make([]console.Value, 0, len(items))
	for i, item := range items {
		m := console.NewMap()
		m.Set(".id", chosen[i].id)
		for _, r := range item {
			if d.quirks.is(quirkMonitorValues, asText) {
				r.value = r.shown
			}
			m.Set(r.name, r.value)
		}
		list = append(list, m)
	}
	if len(list) == 1 && d.quirks.is(quirkMonitorOne, asMap) {
		return list[0]
	}
	return list
}

// monitor writes names and values, both to the right [R]; of several items, one column each, as the manual shows it of
// interfaces [V].
func monitor(w io.Writer, items [][]reading) error {
	names, width, cells := layout(items)
	left := 0
	for _, name := range names {
		left = max(left, len(name)+2)
	}
	for _, name := range names {
		line := fmt.Sprintf("%*s:", left, name)
		for i, cell := range cells[name] {
			if i == 0 {
				line += " "
			}
			line += fmt.Sprintf(" %*s", width[i]-1, cell)
		}
		if _, err := io.WriteString(w, line+eol); err != nil {
			return err
		}
	}
	return nil
}

// layout turns items into lines: the names in order, how wide each item's column is, and the cells by name.
func layout(items [][]reading) (names []string, width []int, cells map[string][]string) {
	cells, width = map[string][]string{}, make([]int, len(items))
	for i, item := range items {
		for _, r := range item {
			if cells[r.name] == nil {
				cells[r.name] = make([]string, len(items))
				names = append(names, r.name)
			}
			cells[r.name][i] = r.shown
			width[i] = max(width[i], len(r.shown)+1)
		}
	}
	return names, width, cells
}

// bits writes a rate: 0bps, 27.8kbps, 12.8Mbps [R].
func bits(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + "bps"
	}
	v, units := float64(n)/1000, []string{"kbps", "Mbps", "Gbps"}
	for v >= 1000 && len(units) > 1 {
		v, units = v/1000, units[1:]
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + units[0]
}

// lasting writes a time: 0ms, 48s149ms [R].
func lasting(t time.Duration) string {
	s := ""
	for _, u := range []struct {
		is   time.Duration
		name string
	}{
		{7 * 24 * time.Hour, "w"}, {24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"},
		{time.Millisecond, "ms"},
	} {
		if n := t / u.is; n > 0 {
			s += strconv.FormatInt(int64(n), 10) + u.name
			t %= u.is
		}
	}
	if s == "" {
		return "0ms"
	}
	return s
}

// clock writes a time as scripts see one: 00:00:48.149 [I, from the uptime and from the times of ping].
func clock(t time.Duration) string {
	if ms := t % time.Second / time.Millisecond; ms > 0 {
		return uptime(t) + fmt.Sprintf(".%03d", ms)
	}
	return uptime(t)
}
