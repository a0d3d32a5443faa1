package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Verbatim from an RDS over SSH [R].
const monitorSample = `                  slot:    storage-pool
              read-ops:         243 401
   read-ops-per-second:               0
            read-bytes:  33 131 503 616
             read-rate:            0bps
  write-ops-per-second:              76
            write-rate:        12.8Mbps
         in-flight-ops:               0
           active-time:             0ms
             wait-time:             0ms
`

// busy is what the device of the sample was doing.
func busy() Traffic {
	return Traffic{ReadOps: 243401, ReadBytes: 33131503616, WriteOpsPerSecond: 76, WriteBitsPerSecond: 12800000}
}

func TestMonitorTrafficIsVerbatim(t *testing.T) {
	d := device(t, Options{Users: admin()})
	d.SetTraffic(map[string]Traffic{"storage-pool": busy()})
	if diff := cmp.Diff(crlf(monitorSample), d.script(t, `/disk/monitor-traffic storage-pool once`)); diff != "" {
		t.Error(diff)
	}
}

// The manual shows the monitor of several interfaces with one column each [V].
func TestMonitorTrafficOfSeveralItemsHasColumns(t *testing.T) {
	d := device(t, Options{Users: admin()})
	d.SetTraffic(map[string]Traffic{"storage-pool": busy(), "raid10": {InFlight: 3, Active: 48*time.Second + 149*time.Millisecond}})
	want := `           slot:  storage-pool   raid10
     write-rate:      12.8Mbps     0bps
  in-flight-ops:             0        3
    active-time:           0ms 48s149ms
`
	got := d.script(t, `/disk monitor-traffic storage-pool,raid10 once proplist=slot,write-rate,in-flight-ops,active-time`)
	if diff := cmp.Diff(crlf(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestMonitorTrafficAsValue(t *testing.T) {
	const json = `[:serialize to=json options=json.no-string-conversion `
	const one = json + `[/disk monitor-traffic storage-pool once as-value proplist=slot,read-ops,write-rate,wait-time]]`
	const two = json + `[/disk monitor-traffic [find where type=raid] once as-value proplist=slot,write-rate]]`
	for name, c := range map[string]struct {
		quirks    map[string]string
		ask, want string
	}{
		"numbers": {nil, one, `{".id":"*9","read-ops":243401,"slot":"storage-pool","wait-time":"00:00:02.005","write-rate":12800000}`},
		"text": {map[string]string{"monitor-values": "text"}, one,
			`{".id":"*9","read-ops":"243 401","slot":"storage-pool","wait-time":"2s5ms","write-rate":"12.8Mbps"}`},
		"list": {map[string]string{"monitor-one": "list"}, one,
			`[{".id":"*9","read-ops":243401,"slot":"storage-pool","wait-time":"00:00:02.005","write-rate":12800000}]`},
		"several": {nil, two, `[{".id":"*9","slot":"storage-pool","write-rate":12800000},{".id":"*A","slot":"raid10"}]`},
	} {
		d := device(t, Options{Users: admin(), Quirks: c.quirks})
		pool := busy()
		pool.Wait = 2005 * time.Millisecond
		d.SetTraffic(map[string]Traffic{"storage-pool": pool})
		if got := strings.TrimSpace(d.script(t, `:put `+c.ask)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestMonitorTrafficOfFiles(t *testing.T) {
	const ask = `/disk monitor-traffic x once`
	for how, want := range map[string]string{
		"counters": `in-flight-ops:     5`,
		"none":     "  slot:  x\r\n",
		"error":    "failure: no counters for this disk (/disk/monitor-traffic; line 1)\r\n",
	} {
		d := device(t, Options{Users: admin(), Quirks: map[string]string{"monitor-files": how}})
		d.quiet(t, `/disk add type=file file-path=storage-pool/x.img file-size=1M slot=x`)
		d.SetTraffic(map[string]Traffic{"x": {InFlight: 5}, "storage-pool": {InFlight: 6}})
		got := d.script(t, ask)
		if !strings.Contains(got, want) || how != "counters" && got != want {
			t.Errorf("%s: %q, want %q", how, got, want)
		}
		if got := d.script(t, `/disk monitor-traffic storage-pool once`); !strings.Contains(got, "in-flight-ops:") {
			t.Errorf("%s: a pool shows %q", how, got)
		}
	}
}

func TestMonitorTrafficRefuses(t *testing.T) {
	for ask, want := range map[string]string{
		`/disk monitor-traffic storage-pool`: "this would go on for ever",
		`/disk monitor-traffic once`:         "numbers:",
		`/disk monitor-traffic nosuch once`:  "no such item",
	} {
		d := device(t, Options{Users: admin()})
		if got := d.script(t, ask); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", ask, got, want)
		}
	}
	d := device(t, Options{Users: admin()})
	if got := d.script(t, `:put [:typeof [/disk monitor-traffic [find slot="nosuch"] once as-value]]`); got != "nil\r\n" {
		t.Errorf("of nothing: %q", got)
	}
}

// Which policy a monitor needs is not known; what the group does not have, nobody gets.
func TestMonitorsNeedAPolicy(t *testing.T) {
	for _, policy := range []string{"test", "read"} {
		for _, has := range []string{"ssh,read,write,test", "ssh,test", "ssh,read,write", "ssh,read", "ssh,write"} {
			d := device(t, Options{
				Users:  []User{{Name: "admin", Policies: strings.Split(has, ",")}},
				Quirks: map[string]string{"monitor-policy": policy},
			})
			refused := d.script(t, `/disk monitor-traffic storage-pool once`) == "not enough permissions (9) (/disk/monitor-traffic; line 1)\r\n"
			may := strings.Contains(","+has+",", ","+policy+",")
			if refused == may {
				t.Errorf("monitor-policy=%s, a group with %s: refused is %v", policy, has, refused)
			}
		}
	}
}

func TestRatesAndTimes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0bps", 999: "999bps", 27800: "27.8kbps", 12800000: "12.8Mbps", 25e9: "25.0Gbps", 2e15: "2000000.0Gbps",
	} {
		if got := bits(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for _, c := range []struct {
		is          time.Duration
		shown, told string
	}{
		{0, "0ms", "00:00:00"},
		{time.Millisecond, "1ms", "00:00:00.001"},
		{48*time.Second + 149*time.Millisecond, "48s149ms", "00:00:48.149"},
		{9*24*time.Hour + 5*time.Second, "1w2d5s", "1w2d00:00:05"},
	} {
		if lasting(c.is) != c.shown || clock(c.is) != c.told {
			t.Errorf("%v: %s and %s, want %s and %s", c.is, lasting(c.is), clock(c.is), c.shown, c.told)
		}
	}
}

func TestHealth(t *testing.T) {
	const ask = `:put [:serialize to=json options=json.no-string-conversion [/system/health/print as-value]]`
	for how, want := range map[string]string{
		"rows": `[{".id":"*1","name":"cpu-temperature","type":"C","value":"51"},{".id":"*2","name":"psu1-state","type":"","value":"fail"}]`,
		// One map and no unit of its own.
		"settings": `{"cpu-temperature":"51C","psu1-state":"fail"}`,
		"none":     `[]`,
		"missing":  `bad command name health (line 1 column 69)`,
	} {
		d := device(t, Options{Users: admin(), Quirks: map[string]string{"health": how}})
		d.SetSensors(Sensor{"cpu-temperature", "51", "C"}, Sensor{"psu1-state", "fail", ""})
		if got := strings.TrimSpace(d.script(t, ask)); got != want {
			t.Errorf("%s: %s, want %s", how, got, want)
		}
	}
}

func TestHealthForPeople(t *testing.T) {
	d := device(t, Options{Users: admin()})
	d.SetSensors(Sensor{"cpu-temperature", "51", "C"}, Sensor{"psu1-state", "ok", ""})
	got := d.script(t, `/system/health/print`)
	for _, want := range []string{"NAME", "VALUE", "TYPE", "cpu-temperature", "51", "psu1-state", "ok"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if one := d.script(t, `:put [/system health get [find where name="cpu-temperature"] value]`); one != "51\r\n" {
		t.Errorf("get: %q", one)
	}
}
