package main

import (
	"io"
	"log/slog"
	"strings"
	"testing"
)

// What nobody asked for is not offered: metrics listen on loopback only, and commands are not logged.
func TestDefaultsAreModest_B29(t *testing.T) {
	required := []string{"--config", "/etc/rds-csi/config.yaml", "--endpoint", "unix:///run/csi.sock"}
	for name, c := range map[string]struct {
		role role
		args []string
	}{
		"controller": {controllerRole, required},
		"node":       {nodeRole, append([]string{"--node-id", "a"}, required...)},
	} {
		o, err := parseFlags(c.role, c.args, io.Discard)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.HasPrefix(o.metricsAddress, "127.0.0.1:") {
			t.Errorf("%s: metrics are offered on %s", name, o.metricsAddress)
		}
		if o.logger.Enabled(t.Context(), slog.LevelDebug) {
			t.Errorf("%s: debug lines are logged", name)
		}
	}
}
