//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// The gauge of what the node's kernel really holds.
const (
	gauge      = "rds_csi_node_nvme_connections"
	live       = gauge + `{state="live"} 1`
	connecting = gauge + `{state="connecting"} 1`
)

// expectConnections scrapes the node's gauge, compares what is not zero with what must be, and shows it.
func (d *demo) expectConnections(ctx context.Context, when string, want ...string) error {
	lines, err := scrape(ctx, nodeHTTP, gauge)
	if err != nil {
		return err
	}
	got := nonZero(lines)
	if strings.Join(got, " ") != strings.Join(want, " ") {
		return fmt.Errorf("scrape of the node %s: %s instead of %s", when, describe(got), describe(want))
	}
	d.say("scrape of the node %s: %s", when, describe(got))
	return nil
}

// awaitConnections waits for the kernel to get there.
func (d *demo) awaitConnections(ctx context.Context, when string, want ...string) error {
	return until(ctx, func(ctx context.Context) error { return d.expectConnections(ctx, when, want...) })
}

func nonZero(lines []string) []string {
	var out []string
	for _, l := range lines {
		if !strings.HasSuffix(l, " 0") {
			out = append(out, l)
		}
	}
	return out
}

func describe(lines []string) string {
	if len(lines) == 0 {
		return "no connection in any state"
	}
	return strings.Join(lines, ", ")
}

// unstage undoes publish and stage and looks into sysfs.
func (d *demo) unstage(ctx context.Context) (string, error) {
	d.say("NodeUnpublishVolume, NodeUnstageVolume")
	if err := d.callLeave(ctx, d.pvc); err != nil {
		return "", err
	}
	if _, err := os.Stat(d.pvc.target); !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("the pod's folder is still there: %w", err)
	}
	folder, err := subsystem(d.pvc.published["nqn"])
	if err != nil {
		return "", err
	}
	if folder != "" {
		return "", fmt.Errorf("NodeUnstageVolume said yes but %s still has NQN %s", folder, d.pvc.published["nqn"])
	}
	lines, err := mounts(d.pvc.staging)
	if err != nil {
		return "", err
	}
	if len(lines) > 0 {
		return "", fmt.Errorf("still mounted: %s", strings.Join(lines, ", "))
	}
	d.say("no mount is left, and the NQN has left sysfs")
	if err := d.expectConnections(ctx, "after unstaging"); err != nil {
		return "", err
	}
	return "unmounted, disconnected, the NQN has left sysfs", d.showCounts(ctx, "rds_csi_nvme_disconnects_total")
}

// showCounts shows what this node plugin counted since it started: events, where the gauge tells a state. One that went well must be among them.
func (d *demo) showCounts(ctx context.Context, metric string) error {
	lines, err := scrape(ctx, nodeHTTP, metric)
	if err != nil {
		return err
	}
	d.quote(strings.Join(nonZero(lines), "\n"))
	return countedOne(lines, metric+`{status="ok"}`)
}

// countedOne tells when a counter is not there, or has counted nothing.
func countedOne(lines []string, counter string) error {
	for _, l := range lines {
		count, found := strings.CutPrefix(l, counter+" ")
		if !found {
			continue
		}
		n, err := strconv.ParseFloat(count, 64)
		if err == nil && n < 1 {
			err = fmt.Errorf("%s is %s, and there was one", counter, count)
		}
		return err
	}
	return fmt.Errorf("the node plugin does not show %s: %s", counter, describe(lines))
}

// remove ends the volume's life: detached, deleted, disk and file gone.
func (d *demo) remove(ctx context.Context) (string, error) {
	d.say("ControllerUnpublishVolume, DeleteVolume; the snapshot outlives it until DeleteSnapshot")
	if err := d.callDelete(ctx, d.pvc); err != nil {
		return "", err
	}
	if _, err := d.show(ctx, subvolumes); err != nil {
		return "", err
	}
	if _, err := d.csi.controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: d.snapshotID}); err != nil {
		return "", wrap("DeleteSnapshot", err)
	}
	for _, command := range []string{
		fmt.Sprintf(`/disk print count-only where slot="%s"`, d.pvc.slot),
		fmt.Sprintf(`/file print count-only where name~"%s"`, d.pvc.slot),
	} {
		out, err := d.show(ctx, command)
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(out) != "0" {
			return "", fmt.Errorf("%s prints %q instead of 0", command, strings.TrimSpace(out))
		}
	}
	lines, err := scrape(ctx, controllerHTTP, "rds_csi_rds_commands_total")
	if err != nil {
		return "", err
	}
	d.say("all that the controller asked of the RDS:")
	d.quote(strings.Join(lines, "\n"))
	return "disk, file and snapshot are gone from the RDS", nil
}
