package appliance

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// What RouterOS measures it writes for people: "243 401", "12.8Mbps", "48s149ms" [R]. Whether scripts get the same or plain
// numbers is not known of disks [U]; of interfaces they get plain numbers [S]. Everything here reads both. What it cannot read
// is unknown: a caller must not make a zero of it.

// quantity splits a number from its unit: "12.8Mbps" is 12.8 of "Mbps". There are no negative ones and no exponents.
func quantity(s string) (value float64, unit string, ok bool) {
	s = strings.TrimSpace(s)
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' && r != ' ' })
	if end < 0 {
		end = len(s)
	}
	digits, ok := ungrouped(strings.TrimRight(s[:end], " "))
	if !ok {
		return 0, "", false
	}
	value, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsInf(value, 0) {
		return 0, "", false
	}
	return value, s[end:], true
}

// ungrouped takes the spaces out of "243 401". Spaces elsewhere than between groups of three digits divide two numbers,
// and two numbers are none.
func ungrouped(s string) (digits string, ok bool) {
	whole, fraction, pointed := strings.Cut(s, ".")
	if whole == "" || strings.ContainsAny(fraction, ". ") || pointed && fraction == "" {
		return "", false
	}
	groups := strings.Split(whole, " ")
	for i, group := range groups {
		first := i == 0
		if group == "" || !first && len(group) != 3 || first && len(groups) > 1 && len(group) > 3 {
			return "", false
		}
	}
	return strings.ReplaceAll(s, " ", ""), true
}

// count reads a plain number.
func count(s string) (float64, bool) {
	value, unit, ok := quantity(s)
	return value, ok && unit == ""
}

// rate reads bits per second and returns bytes per second. The units are decimal, as everywhere with bits; a number without
// one is taken to be in bits too: so it is in the monitor of interfaces [S], and the one real sample of a disk says "bps" [R].
// (The manual has "for example in bytes per second", which the sample contradicts.)
func rate(s string) (bytes float64, ok bool) {
	value, unit, ok := quantity(s)
	if !ok {
		return 0, false
	}
	const bitsPerByte = 8
	switch unit {
	case "", "bps":
		return value / bitsPerByte, true
	case "kbps", "Kbps":
		return value * 1e3 / bitsPerByte, true
	case "Mbps":
		return value * 1e6 / bitsPerByte, true
	case "Gbps":
		return value * 1e9 / bitsPerByte, true
	case "Tbps":
		return value * 1e12 / bitsPerByte, true
	default:
		return 0, false
	}
}

// span reads a time: "48s149ms", "1w2d03:04:05", "00:00:48.149", or units alone. A bare number has no unit that we know, so only
// 0 can be read.
func span(s string) (time.Duration, bool) {
	if s = strings.TrimSpace(s); s == "" {
		return 0, false
	}
	total := time.Duration(0)
	for s != "" {
		if strings.Contains(s, ":") && !strings.ContainsAny(s, "wdhms") {
			clock, ok := clockTime(s)
			return sum(total, clock, ok)
		}
		part, rest, ok := leadingSpan(s)
		if total, ok = sum(total, part, ok); !ok {
			return 0, false
		}
		s = rest
	}
	return total, true
}

// leadingSpan reads "48s" of "48s149ms".
func leadingSpan(s string) (part time.Duration, rest string, ok bool) {
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		value, ok := count(s)
		return 0, "", ok && value == 0
	}
	value, err := strconv.ParseFloat(s[:end], 64)
	if err != nil {
		return 0, "", false
	}
	for _, u := range []struct {
		name string
		is   time.Duration
	}{
		{"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", time.Nanosecond},
		{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second},
	} {
		if rest, found := strings.CutPrefix(s[end:], u.name); found {
			part, ok = lasting(value, u.is)
			return part, rest, ok
		}
	}
	return 0, "", false
}

// clockTime reads "03:04:05" and "00:00:48.149".
func clockTime(s string) (time.Duration, bool) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return 0, false
	}
	total := time.Duration(0)
	for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
		value, ok := count(parts[i])
		if !ok || i > 0 && value >= 60 {
			return 0, false
		}
		part, ok := lasting(value, unit)
		if total, ok = sum(total, part, ok); !ok {
			return 0, false
		}
	}
	return total, true
}

// lasting and sum refuse what a Duration cannot hold, which is 292 years.
func lasting(value float64, unit time.Duration) (time.Duration, bool) {
	total := math.Round(value * float64(unit))
	return time.Duration(total), total < math.MaxInt64
}

func sum(a, b time.Duration, ok bool) (time.Duration, bool) {
	if !ok || a > math.MaxInt64-b {
		return 0, false
	}
	return a + b, true
}
