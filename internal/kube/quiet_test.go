package kube

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-logr/logr"
)

// client-go's errors are debug lines: with --log-level info there are none. What the API server sends is never logged.
func TestQuiet(t *testing.T) {
	for level, want := range map[slog.Level]int{slog.LevelInfo: 0, slog.LevelDebug: 3} {
		var out strings.Builder
		logger := logr.FromSlogHandler(quiet{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})})
		logger.Error(errors.New("connection refused"), "failed")
		logger.Info("tried")
		logger.V(4).Info("tried again")
		logger.V(8).Info("Response", "body", "whole")
		if n := strings.Count(out.String(), "level=DEBUG"); n != want || strings.Count(out.String(), "\n") != want {
			t.Errorf("at %s: %q", level, out.String())
		}
	}
}
