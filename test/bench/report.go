package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// report is what is printed and written as JSON.
type report struct {
	Operations int      `json:"operations"`
	Parallel   int      `json:"parallel"`
	Cells      []cell   `json:"cells"`
	Targets    []target `json:"targets"`
}

// target is a ratio to what the round trip and the channels allow.
type target struct {
	What    string  `json:"what"`
	Reached float64 `json:"reached"`
	Goal    float64 `json:"goal"`
	Met     bool    `json:"met"`
}

const (
	// farMs is the round trip at which the targets are set: there the network is what counts.
	farMs = 50
	// channels is the default limit of SSH channels. Opening one and running a command on it costs a round trip each.
	channels = 4
)

// targets compares the far cells with their floors.
func targets(cells []cell) []target {
	near, far := find(cells, "create", 0, true), find(cells, "create", farMs, true)
	many := find(cells, "create", farMs, false)
	if near == nil || far == nil || many == nil {
		return nil
	}
	limit := channels * 1000.0 / (2 * farMs)
	sequential := far.P50Ms / (farMs + near.P50Ms)
	parallel := many.PerSecond / limit
	return []target{
		{"CreateVolume one at a time at 50 ms: time / (one round trip + the same without a network)", sequential, 1.2, sequential <= 1.2},
		{fmt.Sprintf("CreateVolume in parallel at 50 ms: rate / what %d channels allow (%.0f/s)", channels, limit), parallel, 0.9, parallel >= 0.9},
	}
}

func find(cells []cell, operation string, rttMs float64, sequential bool) *cell {
	for i, c := range cells {
		if c.Operation == operation && c.RoundTripMs == rttMs && (c.Callers == 1) == sequential {
			return &cells[i]
		}
	}
	return nil
}

func (r report) print(out io.Writer) error {
	// The writer keeps its first error until Flush.
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "round trip ms\toperation\tcallers\tper second\tp50 ms\tp99 ms\tCPU ms\t\n")
	for _, c := range r.Cells {
		_, _ = fmt.Fprintf(w, "%g\t%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t\n", c.RoundTripMs, c.Operation, c.Callers, c.PerSecond, c.P50Ms, c.P99Ms, c.CPUMs)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, t := range r.Targets {
		verdict := "met"
		if !t.Met {
			verdict = "NOT met"
		}
		if _, err := fmt.Fprintf(out, "%s: %.2f, goal %.2f: %s\n", t.What, t.Reached, t.Goal, verdict); err != nil {
			return err
		}
	}
	return nil
}
