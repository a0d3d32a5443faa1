package appliance

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestQuantity(t *testing.T) {
	for in, want := range map[string]struct {
		value float64
		unit  string
		ok    bool
	}{
		"0":              {0, "", true},
		"48":             {48, "", true},
		"48.5":           {48.5, "", true},
		"12800000.00000": {12800000, "", true}, // a string that looked like a number, converted [V]
		"243 401":        {243401, "", true},
		"33 131 503 616": {33131503616, "", true},
		" 76 ":           {76, "", true},
		"12.8Mbps":       {12.8, "Mbps", true},
		"12.8 Mbps":      {12.8, "Mbps", true},
		"1 024.5kbps":    {1024.5, "kbps", true},
		"48C":            {48, "C", true},
		"4320RPM":        {4320, "RPM", true},
		"":               {},
		"ok":             {},
		"no-input":       {},
		"-5":             {},
		"1e9":            {1, "e9", true}, // no number of RouterOS; "e9" is no unit that anybody knows
		"1.2.3":          {},
		".5":             {},
		"5.":             {},
		"12 34":          {}, // two numbers
		"1 2 3":          {},
		"1234 567":       {},
		"1  234":         {},
		"NaN":            {},
		"Inf":            {},
	} {
		value, unit, ok := quantity(in)
		if ok != want.ok || ok && (value != want.value || unit != want.unit) {
			t.Errorf("%q: %v, %q, %v, want %+v", in, value, unit, ok, want)
		}
	}
	if value, _, ok := quantity(strings.Repeat("9", 400)); ok {
		t.Errorf("what no float64 holds: %v", value)
	}
}

// RouterOS has rates in bits; so says the unit in its one real sample [R].
func TestRate(t *testing.T) {
	for in, want := range map[string]float64{
		"0bps": 0, "8bps": 1, "27.8kbps": 3475, "12.8Mbps": 1.6e6, "25.0Gbps": 3.125e9, "1Tbps": 1.25e11, "12 800 000bps": 1.6e6,
		"0": 0, "12800000": 1.6e6, "12 800 000": 1.6e6,
	} {
		if got, ok := rate(in); !ok || math.Abs(got-want) > 1e-3 {
			t.Errorf("%q: %v, %v, want %v", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "bps", "12.8MiBps", "12.8MB/s", "12.8mbps", "1e9", "-8bps", "unknown", "48s"} {
		if got, ok := rate(in); ok {
			t.Errorf("%q is %v, and nobody knows of what", in, got)
		}
	}
}

func TestCount(t *testing.T) {
	for in, want := range map[string]float64{"0": 0, "76": 76, "243 401": 243401, "76.000000": 76} {
		if got, ok := count(in); !ok || got != want {
			t.Errorf("%q: %v, %v, want %v", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "76bps", "many", "-1"} {
		if got, ok := count(in); ok {
			t.Errorf("%q is %v", in, got)
		}
	}
}

func TestSpan(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0ms":              0,
		"0s":               0,
		"0":                0,
		"48s149ms":         48*time.Second + 149*time.Millisecond, // [R]
		"1m":               time.Minute,
		"1ms":              time.Millisecond,
		"250us":            250 * time.Microsecond,
		"3h2m1s":           3*time.Hour + 2*time.Minute + time.Second,
		"1w2d3h4m5s":       9*24*time.Hour + 3*time.Hour + 4*time.Minute + 5*time.Second, // [R]
		"1w2d03:04:05":     9*24*time.Hour + 3*time.Hour + 4*time.Minute + 5*time.Second, // [R]
		"03:04:05":         3*time.Hour + 4*time.Minute + 5*time.Second,
		"00:00:48.149":     48*time.Second + 149*time.Millisecond,
		"1d00:00:00.00025": 24*time.Hour + 250*time.Microsecond,
		"1.5s":             1500 * time.Millisecond,
	} {
		if got, ok := span(in); !ok || got != want {
			t.Errorf("%q: %v, %v, want %v", in, got, ok, want)
		}
	}
	for _, in := range []string{
		"", "5", "48149", "5x", "s", "-5s", "1:2", "1:2:3:4", "00:60:00", "00:00:61", "::", "1.2.3s", "never", "5s6", "00:00:01ms",
		"20000w", "9999999w", "106751d23:47:17",
	} {
		if got, ok := span(in); ok {
			t.Errorf("%q is %v", in, got)
		}
	}
}

// Whatever a device writes, a reading is a number of sense or none.
func FuzzQuantity(f *testing.F) {
	for _, seed := range []string{
		"0", "243 401", "33 131 503 616", "12.8Mbps", "0bps", "0ms", "48s149ms", "1w2d03:04:05", "00:00:48.149", "48", "ok", "", "-1",
		"1e308", "99999999999999999999w", "1 23", "5%", "12.8 Mbps", "15250w1d", "not-present", "\x00", "1.", "٣",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, parse := range map[string]func(string) (float64, bool){"count": count, "rate": rate} {
			if v, ok := parse(s); ok && !(v >= 0 && v <= math.MaxFloat64) || ok && s == "" {
				t.Errorf("%s %q is %v", name, s, v)
			}
		}
		if v, ok := span(s); ok && v < 0 {
			t.Errorf("%q lasts %v", s, v)
		}
	})
}
