// Command bench measures the driver's control plane: CSI calls of a real rds-csi controller process against a real rds-sim process, with a
// TCP proxy between the two that adds a round trip. It prints a table and, with --json, writes the same figures as JSON.
//
// Absolute times depend on the machine: quote ratios. What one round trip and four channels allow is printed beside what was reached.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

// settings are the command line.
type settings struct {
	controller, simulator string
	operations            int
	parallel              int
	json                  string
}

func main() {
	var s settings
	flag.StringVar(&s.controller, "rds-csi", "bin/rds-csi", "the driver's binary")
	flag.StringVar(&s.simulator, "rds-sim", "bin/rds-sim", "the simulator's binary")
	flag.IntVar(&s.operations, "n", 100, "operations per cell of the table")
	flag.IntVar(&s.parallel, "parallel", 16, "concurrent callers in the parallel cells")
	flag.StringVar(&s.json, "json", "", "write the figures to this file as well")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, s, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures every round-trip time in turn, each with fresh processes.
func run(ctx context.Context, s settings, out io.Writer) error {
	var cells []cell
	for _, rtt := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond} {
		fmt.Fprintf(os.Stderr, "round trip %v ...\n", rtt)
		got, err := measureAt(ctx, s, rtt)
		if err != nil {
			return fmt.Errorf("round trip %v: %w", rtt, err)
		}
		cells = append(cells, got...)
	}
	r := report{Operations: s.operations, Parallel: s.parallel, Cells: cells, Targets: targets(cells)}
	if err := r.print(out); err != nil {
		return err
	}
	if s.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.json, append(data, '\n'), 0o600)
}

// measureAt starts a simulator, a proxy with the round trip and a controller, and takes the cells of the table.
func measureAt(ctx context.Context, s settings, rtt time.Duration) (cells []cell, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "rds-csi-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	sim, err := startSimulator(ctx, s.simulator, filepath.Join(dir, "sim"))
	if err != nil {
		return nil, err
	}
	defer sim.stop()
	proxy, err := startProxy(ctx, sim.address, rtt)
	if err != nil {
		return nil, err
	}
	controller, err := startController(ctx, s.controller, dir, sim, proxy.address())
	if err != nil {
		return nil, err
	}
	defer controller.stop()
	for _, callers := range []int{1, s.parallel} {
		got, err := controller.measure(ctx, s.operations, callers, rtt)
		if err != nil {
			return nil, err
		}
		cells = append(cells, got...)
	}
	if rtt > 0 {
		return cells, nil
	}
	got, err := controller.measureThousand(ctx, s.operations, s.parallel, rtt)
	return append(cells, got), err
}
