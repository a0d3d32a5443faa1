//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// start brings the three processes up. The driver's configuration is the one that rds-sim prints.
func (d *demo) start(ctx context.Context) (string, error) {
	if err := errors.Join(d.pvc.makeFolders(), os.MkdirAll(filepath.Dir(controllerSocket), 0o750)); err != nil {
		return "", err
	}
	err := d.makePool(ctx)
	if err != nil {
		return "", err
	}
	d.sim, err = d.run("rds-sim", "rds-sim", "--ssh-address", rdsAddress, "--data", rdsFolder, "--nvme-address", "127.0.0.1", "--quirk", "reboot-time=15s")
	if err != nil {
		return "", err
	}
	if err := until(ctx, func(ctx context.Context) error {
		_, err := d.rds.console(ctx, "/system identity print")
		return errors.Join(err, d.sim.alive())
	}); err != nil {
		return "", err
	}
	d.controller, err = d.run("controller", "rds-csi", "controller", "--config", d.rds.config, "--endpoint", "unix://"+controllerSocket, "--metrics-address", controllerHTTP)
	if err != nil {
		return "", err
	}
	if err := d.startNode(ctx); err != nil {
		return "", err
	}
	if err := d.controller.ready(ctx, controllerHTTP); err != nil {
		return "", err
	}
	if err := d.watch(ctx); err != nil {
		return "", err
	}
	if err := d.csi.connect(); err != nil {
		return "", err
	}
	info, err := d.csi.identity.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		return "", wrap("GetPluginInfo", err)
	}
	d.say("all are ready; the driver is %s %s", info.GetName(), info.GetVendorVersion())
	return "rds-sim, controller, node plugin and Prometheus are ready", nil
}

// run launches and says so.
func (d *demo) run(name, program string, args ...string) (*process, error) {
	p, err := launch(d.logs, name, program, args...)
	if err == nil {
		d.say("$ %s %s", program, strings.Join(args, " "))
	}
	return p, err
}

func (d *demo) startNode(ctx context.Context) (err error) {
	d.node, err = d.run("node", "rds-csi", "node", "--config", d.rds.config, "--endpoint", "unix://"+nodeSocket, "--metrics-address", nodeHTTP, "--node-id", nodeName)
	if err != nil {
		return err
	}
	return d.node.ready(ctx, nodeHTTP)
}

// create makes the volume for a claim of 1 GiB.
func (d *demo) create(ctx context.Context) (string, error) {
	d.say("CreateVolume %s, 1 GiB, for the claim demo/data", volumeName)
	size, err := d.callCreate(ctx, d.pvc, "data", gib, nil)
	if err != nil {
		return "", err
	}
	d.say("volume %s, %d bytes", d.pvc.handle, size)
	row, err := d.show(ctx, fmt.Sprintf(`/disk print detail where slot="%s"`, d.pvc.slot))
	if err != nil {
		return "", err
	}
	if !strings.Contains(row, d.pvc.slot) {
		return "", fmt.Errorf("the RDS shows no disk %s", d.pvc.slot)
	}
	return fmt.Sprintf("%s, %d bytes", d.pvc.handle, size), nil
}

// show runs a console command as the administrator and shows both the command and the answer.
func (d *demo) show(ctx context.Context, command string) (string, error) {
	out, err := d.rds.console(ctx, command)
	if err != nil {
		return "", fmt.Errorf("console: %s: %w", command, err)
	}
	d.say("[admin@RDS] > %s", command)
	d.quote(out)
	return out, nil
}

// publish attaches the volume to the node.
func (d *demo) publish(ctx context.Context) (string, error) {
	node, err := d.csi.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return "", wrap("NodeGetInfo", err)
	}
	d.say("ControllerPublishVolume to node %s", node.GetNodeId())
	if err := d.callPublish(ctx, d.pvc, node.GetNodeId()); err != nil {
		return "", err
	}
	d.say("the node is to connect to %s at %s:%s", d.pvc.published["nqn"], d.pvc.published["nvmeAddress"], d.pvc.published["nvmePort"])
	return "exported at " + d.pvc.published["nvmeAddress"] + ":" + d.pvc.published["nvmePort"], nil
}

// stage connects, formats and mounts.
func (d *demo) stage(ctx context.Context) (string, error) {
	if err := d.expectConnections(ctx, "before staging"); err != nil {
		return "", err
	}
	d.say("NodeStageVolume: connect over NVMe/TCP, mkfs.ext4, mount")
	if err := d.callStage(ctx, d.pvc); err != nil {
		return "", err
	}
	folder, err := subsystem(d.pvc.published["nqn"])
	if err != nil || folder == "" {
		return "", errors.Join(err, fmt.Errorf("NQN %s is not in sysfs", d.pvc.published["nqn"]))
	}
	d.say("%s has NQN %s", folder, d.pvc.published["nqn"])
	lines, err := mounts(d.pvc.staging)
	if err != nil || len(lines) != 1 {
		return "", errors.Join(err, fmt.Errorf("%d mounts at the staging path instead of one", len(lines)))
	}
	d.quote(lines[0])
	if err := d.expectConnections(ctx, "after staging", live); err != nil {
		return "", err
	}
	const took = "rds_csi_nvme_connect_duration_seconds_count"
	lines, err = scrape(ctx, nodeHTTP, took)
	if err != nil {
		return "", err
	}
	return "connected, formatted, mounted", errors.Join(countedOne(lines, took), d.showCounts(ctx, "rds_csi_nvme_connects_total"))
}

// nodePublish gives the volume to the pod.
func (d *demo) nodePublish(ctx context.Context) (string, error) {
	d.say("NodePublishVolume")
	if err := d.callNodePublish(ctx, d.pvc); err != nil {
		return "", err
	}
	both, err := bothMounts(d.pvc)
	if err != nil {
		return "", err
	}
	d.quote(both)
	return "the pod has it", nil
}

func (d *demo) data() string { return filepath.Join(d.pvc.target, "data") }

// write is the pod's first work.
func (d *demo) write(ctx context.Context) (string, error) {
	const size = 64 << 20
	began := time.Now()
	sum, err := writeRandom(d.data(), size)
	if err != nil {
		return "", err
	}
	d.sum = sum
	d.say("64 MiB written and flushed in %.1fs, sha256 %s", time.Since(began).Seconds(), sum)
	if err := d.checkData(); err != nil {
		return "", err
	}
	d.load, err = startLoad(ctx, filepath.Join(d.pvc.target, "log"))
	if err != nil {
		return "", err
	}
	d.say("the pod now goes on writing blocks of 64 KiB, each flushed to the device")
	return "64 MiB, sha256 " + sum[:16] + "…", nil
}

// checkData reads the file that was written once from the device and compares.
func (d *demo) checkData() error {
	sum, err := readBack(d.data())
	if err != nil {
		return err
	}
	if sum != d.sum {
		return fmt.Errorf("sha256 of the pod's file is %s instead of %s", sum, d.sum)
	}
	d.say("read back from the device with an empty page cache: the checksum is right")
	return nil
}

// reboot takes the RDS away under the load and waits for everything to find together again.
func (d *demo) reboot(ctx context.Context) (string, error) {
	if err := d.load.goesOn(ctx); err != nil {
		return "", err
	}
	if err := d.witnessed(ctx, "live", 1); err != nil {
		return "", err
	}
	before, _, _ := d.load.progress()
	d.say("%d blocks are safe; the administrator reboots the RDS", before)
	if _, err := d.show(ctx, "/system/reboot"); err != nil {
		return "", err
	}
	if err := d.awaitConnections(ctx, "while the RDS is away", connecting); err != nil {
		return "", err
	}
	if err := d.keepAway(ctx); err != nil {
		return "", err
	}
	if err := d.awaitConnections(ctx, "when it is back", live); err != nil {
		return "", err
	}
	if err := d.load.goesOn(ctx); err != nil {
		return "", err
	}
	after, longest, _ := d.load.progress()
	d.say("the pod goes on: %d blocks are safe, none failed, the slowest took %.1fs", after, longest.Seconds())
	if err := d.checkData(); err != nil {
		return "", err
	}
	return fmt.Sprintf("no I/O error, the pod waited %.1fs, checksum right", longest.Seconds()), d.witnessed(ctx, "live", 1)
}

// keepAway holds the RDS, which is booting, until Prometheus has seen as well what its absence does.
func (d *demo) keepAway(ctx context.Context) error {
	if err := d.sim.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := d.witnessed(ctx, "connecting", 1)
	if err == nil {
		d.say("Prometheus has seen it too; until then the RDS was kept from coming back")
	}
	return errors.Join(err, d.sim.cmd.Process.Signal(syscall.SIGCONT))
}

// kill ends the node plugin under the running pod. What it must know afterwards it finds in the kernel.
func (d *demo) kill(ctx context.Context) (string, error) {
	before, err := bothMounts(d.pvc)
	if err != nil {
		return "", err
	}
	d.say("kill -9 of the node plugin")
	d.node.kill()
	if err := d.load.goesOn(ctx); err != nil {
		return "", err
	}
	d.say("the pod writes on without it; starting it again")
	if err := d.startNode(ctx); err != nil {
		return "", err
	}
	if err := d.expectConnections(ctx, "after the restart", live); err != nil {
		return "", err
	}
	d.say("NodeStageVolume and NodePublishVolume again, as the kubelet does after a restart")
	if err := errors.Join(d.callStage(ctx, d.pvc), d.callNodePublish(ctx, d.pvc)); err != nil {
		return "", err
	}
	after, err := bothMounts(d.pvc)
	if err != nil {
		return "", err
	}
	if after != before {
		return "", fmt.Errorf("the mounts changed:\n%s\ninstead of\n%s", after, before)
	}
	d.say("the kernel has the very same mounts as before")
	return "gauge right, repeated stage and publish changed nothing", d.load.goesOn(ctx)
}

// podStops compares everything that the pod wrote, through the reboot and the kill, with what the device has.
func (d *demo) podStops(ctx context.Context) (string, error) {
	want, err := d.load.finish(ctx)
	if err != nil {
		return "", err
	}
	blocks, _, _ := d.load.progress()
	got, err := readBack(filepath.Join(d.pvc.target, "log"))
	if err != nil {
		return "", err
	}
	if got != want {
		return "", fmt.Errorf("sha256 of the pod's %d blocks is %s instead of %s", blocks, got, want)
	}
	d.say("%d blocks written in all, sha256 on the device as the pod computed it: %s", blocks, got)
	return fmt.Sprintf("%d blocks, all on the device as written", blocks), d.checkData()
}
