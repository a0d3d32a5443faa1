//go:build linux

// Command demo shows the driver's main job on real parts and tells what it does as it goes. It runs in the QEMU guest
// of test/guest (make demo): rds-sim, which exports through the kernel's NVMe target, the controller and the node
// plugin are processes of their own; this program is what the sidecars, the kubelet, the administrator and the pod are
// in a cluster. Whatever it prints it has seen.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/test/prometheus"
)

func main() {
	logs := flag.String("logs", "/out", "`folder` for the logs of the three processes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *logs)
	stop()
	if err != nil {
		os.Exit(1)
	}
}

// step is one line of the table. It returns what to write there.
type step struct {
	name string
	do   func(*demo, context.Context) (string, error)
}

func steps() []step {
	return []step{
		{"start", (*demo).start},
		{"create", (*demo).create},
		{"publish", (*demo).publish},
		{"stage", (*demo).stage},
		{"node publish", (*demo).nodePublish},
		{"write", (*demo).write},
		{"grow", (*demo).grow},
		{"reboot", (*demo).reboot},
		{"plugin killed", (*demo).kill},
		{"snapshot", (*demo).snapshot},
		{"restore", (*demo).restore},
		{"pod stops", (*demo).podStops},
		{"unstage", (*demo).unstage},
		{"delete", (*demo).remove},
		{"history", (*demo).history},
	}
}

// stepTimeout is generous: an emulated machine on a busy host is slow, and only a hang should meet it.
const stepTimeout = 5 * time.Minute

// demo is what the steps share.
type demo struct {
	story
	logs string

	sim, controller, node *process
	prometheus            *prometheus.Server
	rds                   *appliance
	csi                   *clients

	pvc        *volume // of the claim
	snapshotID string

	sum   string // of the file written once
	load  *load  // the pod that goes on writing
	taken moment // when the snapshot was
}

type line struct {
	name, result string
	took         time.Duration
}

func run(ctx context.Context, logs string) error {
	d := &demo{story: newStory(os.Stdout), logs: logs, rds: newAppliance(), csi: &clients{}, pvc: newVolume(volumeName, "0d7c1f0e")}
	defer d.stopAll()
	d.introduce()
	var table []line
	for _, s := range steps() {
		d.heading(s.name)
		began := time.Now()
		stepCtx, cancel := context.WithTimeout(ctx, stepTimeout)
		result, err := s.do(d, stepCtx)
		cancel()
		if err != nil {
			table = append(table, line{s.name, "FAILED: " + firstLine(err.Error()), time.Since(began)})
			d.table(table)
			d.lastWords()
			d.plain("demo: FAILED at %s: %v", s.name, err)
			return err
		}
		table = append(table, line{s.name, result, time.Since(began)})
	}
	d.table(table)
	d.plain("demo: ok")
	return nil
}

func (d *demo) introduce() {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		d.say("Linux %s; NVMe/TCP initiator and target are this kernel's own", unix.ByteSliceToString(u.Release[:]))
	}
}

// stopAll ends what still runs, newest first; a process that was stopped already is left alone.
func (d *demo) stopAll() {
	d.unwatch()
	for _, p := range []*process{d.node, d.controller, d.sim} {
		if p != nil {
			p.terminate()
		}
	}
}

// lastWords shows the end of each log: the first thing anybody asks for after a failure.
func (d *demo) lastWords() {
	for _, p := range []*process{d.sim, d.controller, d.node} {
		if p == nil {
			continue
		}
		text, err := os.ReadFile(p.logFile)
		if err != nil {
			continue
		}
		all := strings.Split(strings.TrimSpace(string(text)), "\n")
		d.plain("the end of %s:", p.logFile)
		for _, l := range all[max(0, len(all)-8):] {
			d.plain("    %s", l)
		}
	}
}

func firstLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}

// until asks again until the answer is no error, and gives the last error when the context ends.
func until(ctx context.Context, ask func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waited in vain: %w", context.Cause(ctx)), err)
		case <-tick.C:
		}
	}
}
