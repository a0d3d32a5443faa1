package sanity_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/test/sanity"
)

// kind is one kind of RDS, and how volumes on it are used.
type kind struct {
	name, pool string
	access     string // "block" for raw block volumes
	topology   driver.Topology
	quirks     map[string]string
	cannot     []sanity.Gap // what such a device cannot do
}

// pools are one that shares blocks and one that copies.
func pools() []string { return []string{"btrfs", "xfs"} }

// kinds are either kind of pool, with file systems and with raw block volumes, and then each switch of the simulator in turn, on
// either pool, for each value that is not the one it has by itself. They come from the simulator's own list: a switch that is
// added to it is tried from then on.
func kinds() (all []kind) {
	for _, pool := range pools() {
		all = append(all, kind{name: pool, pool: pool}, kind{name: pool + " raw block", pool: pool, access: "block"})
	}
	// By its name: the node of the suite that does not exist reaches nothing, and is to be refused for not existing all the same.
	reached := driver.Topology{Driver: sanity.DriverName, Nodes: map[string][]string{sanity.RDS: {nodeID}}}
	all = append(all, kind{name: "with topology", pool: "btrfs", topology: reached})
	for _, q := range sim.Quirks() {
		if slices.Contains(unasked(), q.Name) {
			continue
		}
		for _, value := range others(q) {
			for _, pool := range poolsFor(q.Name) {
				k := kind{name: q.Name + "=" + value + " " + pool, pool: pool, quirks: map[string]string{q.Name: value}}
				if k.quirks["existing-file"] == "error" {
					k.cannot = []sanity.Gap{sanity.ImagesStay()}
				}
				all = append(all, k)
			}
		}
	}
	return append(all, together()...)
}

// others are the values of a switch that it does not have by itself. Of numbers and times it is the one that numbers has.
func others(q sim.Quirk) []string {
	if given, ok := numbers()[q.Name]; ok {
		return []string{given}
	}
	return slices.DeleteFunc(slices.Clone(q.Values), func(value string) bool { return value == q.Default })
}

// numbers are values for the switches that are no choice of words.
func numbers() map[string]string {
	return map[string]string{
		"channel-limit": "4", "command-limit": "65536", "spare-idle-timeout": "250ms", "command-time": "2ms",
		"max-sessions": "2", "file-copy-time": "40ms", "reboot-time": "50ms",
	}
}

// poolsFor leaves out the pool on which nothing of the kind happens.
func poolsFor(quirk string) []string {
	switch {
	case strings.HasPrefix(quirk, "subvolume-"):
		return []string{"btrfs"}
	case strings.HasPrefix(quirk, "file-copy-"):
		return []string{"xfs"}
	}
	return pools()
}

// unasked are switches of what no call of CSI asks for: sensors, traffic and reboots. Their values are tried too, but together.
func unasked() []string {
	return []string{
		"health", "monitor-policy", "monitor-files", "monitor-values", "monitor-one", "exports-after-reboot", "reboot-time",
	}
}

// together are as many kinds as the switches of unasked need to have had each of their values.
func together() (all []kind) {
	for _, q := range sim.Quirks() {
		if !slices.Contains(unasked(), q.Name) {
			continue
		}
		for i, value := range others(q) {
			if i == len(all) {
				all = append(all, kind{name: fmt.Sprint("what no call asks for ", i+1), pool: pools()[i%2], quirks: map[string]string{}})
			}
			all[i].quirks[q.Name] = value
		}
	}
	return all
}

// Whatever the simulator can be told is told to it, in each of its values and on each pool where it matters, by one kind or
// another; its default by all others.
func TestEveryValueOfEverySwitchIsTried(t *testing.T) {
	tried, names := map[string][]string{}, map[string]bool{}
	for _, k := range kinds() {
		if names[k.name] {
			t.Errorf("two kinds are called %s", k.name)
		}
		names[k.name] = true
		for name, value := range k.quirks {
			tried[name+"="+value] = append(tried[name+"="+value], k.pool)
		}
	}
	known := map[string]bool{}
	for _, q := range sim.Quirks() {
		known[q.Name] = true
		values := slices.DeleteFunc(slices.Clone(q.Values), func(value string) bool { return value == q.Default })
		if len(q.Values) == 1 { // NUMBER or DURATION
			values = []string{numbers()[q.Name]}
		}
		for _, value := range values {
			on := tried[q.Name+"="+value]
			switch {
			case value == "" || value == q.Default:
				t.Errorf("%s: the value %q proves nothing: give it one in numbers", q.Name, value)
			case slices.Contains(unasked(), q.Name) && len(on) == 1, slices.Equal(on, poolsFor(q.Name)):
			default:
				t.Errorf("%s=%s is tried on %q", q.Name, value, on)
			}
		}
	}
	for _, name := range slices.Concat(unasked(), slices.Collect(maps.Keys(numbers()))) {
		if !known[name] {
			t.Errorf("there is no switch %s", name)
		}
	}
}
