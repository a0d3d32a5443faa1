//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/test/prometheus"
)

func TestTimeline(t *testing.T) {
	at := func(second int, state string, value float64) prometheus.Sample {
		return prometheus.Sample{Labels: map[string]string{"state": state}, Value: value, Time: time.Unix(int64(second), 0)}
	}
	line, err := timeline([]prometheus.Sample{
		at(1, "live", 0), at(1, "connecting", 0), at(2, "live", 1), at(2, "connecting", 0), at(3, "live", 1), at(3, "connecting", 0),
		at(4, "live", 0), at(4, "connecting", 1), at(5, "live", 1), at(5, "connecting", 1), at(6, "live", 2), at(6, "connecting", 0),
		at(7, "live", 0), at(7, "connecting", 0),
	})
	if got := strings.Join(line, " "); err != nil || got != "none live connecting connecting+live live+live none" {
		t.Errorf("%s, %v", got, err)
	}
	for _, held := range [][]prometheus.Sample{{at(1, "live", 3)}, {at(1, "live", 2), at(1, "connecting", 1)}} {
		if line, err := timeline(held); err == nil {
			t.Errorf("three connections: %v", line)
		}
	}
}

func TestWasTrue(t *testing.T) {
	for line, good := range map[string]bool{
		"none live connecting live live+live live none":                                         true,
		"none connecting live resetting live connecting live live+live none":                    true,
		"none live resetting connecting live connecting+live live+live deleting+live live none": true,
		"none live live+live live none":                                                         false, // nobody saw the reboot
		"none live connecting+live live+live live none":                                         false, // that was the second volume
		"none live connecting live none":                                                        false, // there was no second one
		"none live connecting live live+live":                                                   false, // left over
		"live connecting live live+live none":                                                   false,
		"none live connecting none live connecting live live+live none":                         false, // lost and found
		"": false,
	} {
		if err := wasTrue(strings.Fields(line)); (err == nil) != good {
			t.Errorf("%s: %v", line, err)
		}
	}
}
