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
		at(4, "live", 0), at(4, "connecting", 1), at(7, "live", 0), at(7, "connecting", 0),
	})
	if got := strings.Join(line, " "); err != nil || got != "none live connecting none" {
		t.Errorf("%s, %v", got, err)
	}
	if line, err := timeline([]prometheus.Sample{at(1, "live", 1), at(1, "connecting", 1)}); err == nil {
		t.Errorf("two states at once: %v", line)
	}
	if line, err := timeline([]prometheus.Sample{at(1, "live", 2)}); err == nil {
		t.Errorf("two connections: %v", line)
	}
}

func TestWasTrue(t *testing.T) {
	for line, good := range map[string]bool{
		"none live connecting live none":                           true,
		"none connecting live resetting live connecting live none": true,
		"none live resetting connecting live deleting none":        true,
		"none live none":                                      false, // nobody saw the reboot
		"none live connecting live":                           false, // left over
		"live connecting live none":                           false,
		"none live connecting none live connecting live none": false, // lost and found
		"": false,
	} {
		if err := wasTrue(strings.Fields(line)); (err == nil) != good {
			t.Errorf("%s: %v", line, err)
		}
	}
}
