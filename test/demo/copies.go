//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
)

// moment is what the pod's files were when the snapshot was taken.
type moment struct {
	sum    string // of the file written once
	blocks int    // of the log, that were safe
}

// grow makes the volume larger under the pod, as external-resizer and the kubelet do.
func (d *demo) grow(ctx context.Context) (string, error) {
	const size = 2 * gib
	before, err := fileSystemSize(d.pvc.target)
	if err != nil {
		return "", err
	}
	d.say("the pod sees a file system of %d MiB; ControllerExpandVolume to 2 GiB, NodeExpandVolume", before>>20)
	grown := &csi.CapacityRange{RequiredBytes: size}
	if _, err := d.csi.controller.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId: d.pvc.handle, CapacityRange: grown, VolumeCapability: ext4(),
	}); err != nil {
		return "", wrap("ControllerExpandVolume", err)
	}
	if _, err := d.csi.node.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
		VolumeId: d.pvc.handle, VolumePath: d.pvc.target, StagingTargetPath: d.pvc.staging, CapacityRange: grown, VolumeCapability: ext4(),
	}); err != nil {
		return "", wrap("NodeExpandVolume", err)
	}
	after, err := fileSystemSize(d.pvc.target)
	if err != nil {
		return "", err
	}
	if after < before+gib*9/10 {
		return "", fmt.Errorf("the file system has %d MiB, before it had %d", after>>20, before>>20)
	}
	d.say("now it sees %d MiB; it went on writing meanwhile", after>>20)
	return fmt.Sprintf("from %d to %d MiB under the writing pod", before>>20, after>>20), d.load.goesOn(ctx)
}

// fileSystemSize is what df shows.
func fileSystemSize(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Blocks) * st.Bsize, nil
}

// subvolumes is how an administrator sees volumes and snapshots on Btrfs.
const subvolumes = `/disk/btrfs/subvolume/print where name~"pvc-"`

// snapshot takes one under the writing pod, which then loses its data by a mistake of its own.
func (d *demo) snapshot(ctx context.Context) (string, error) {
	safe, _, err := d.load.progress()
	if err != nil {
		return "", err
	}
	d.taken = moment{sum: d.sum, blocks: safe}
	d.say("%d blocks of the pod are safe; CreateSnapshot while it goes on writing", safe)
	answer, err := d.csi.controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: snapshotName, SourceVolumeId: d.pvc.handle})
	if err != nil {
		return "", wrap("CreateSnapshot", err)
	}
	taken := answer.GetSnapshot()
	if !taken.GetReadyToUse() {
		return "", fmt.Errorf("snapshot %s is not ready, and on Btrfs there is nothing to wait for", taken.GetSnapshotId())
	}
	d.snapshotID = taken.GetSnapshotId()
	if _, err := d.show(ctx, subvolumes); err != nil {
		return "", err
	}
	if d.sum, err = writeRandom(d.data(), 4<<20); err != nil {
		return "", err
	}
	d.say("then the pod writes over its 64 MiB by mistake")
	return "ready at once, the pod writes on", d.load.goesOn(ctx)
}

// restore makes a second, larger volume from the snapshot and looks at it beside the first.
func (d *demo) restore(ctx context.Context) (string, error) {
	const size = 3 * gib
	v := newVolume(restoredName, "restored")
	if err := v.makeFolders(); err != nil {
		return "", err
	}
	d.say("CreateVolume %s from it, 3 GiB; published, staged and given to a second pod", v.name)
	source := &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: d.snapshotID}}}
	if _, err := d.callCreate(ctx, v, "restored", size, source); err != nil {
		return "", err
	}
	if err := d.bring(ctx, v); err != nil {
		return "", err
	}
	if err := d.expectConnections(ctx, "with both volumes", gauge+`{state="live"} 2`); err != nil {
		return "", err
	}
	if err := d.compare(v); err != nil {
		return "", err
	}
	if got, err := fileSystemSize(v.target); err != nil || got < size*9/10 {
		return "", fmt.Errorf("the restored file system has %d MiB instead of almost 3 GiB: %w", got>>20, err)
	}
	if err := d.checkData(); err != nil { // the pod's own
		return "", err
	}
	if err := d.witnessed(ctx, "live", 2); err != nil {
		return "", err
	}
	d.say("the second pod is done: unpublished, unstaged, deleted")
	if err := d.callLeave(ctx, v); err != nil {
		return "", err
	}
	if err := d.callDelete(ctx, v); err != nil {
		return "", err
	}
	return "the 64 MiB from before the mistake, in a larger volume", d.expectConnections(ctx, "after that", live)
}

func (d *demo) bring(ctx context.Context, v *volume) error {
	if err := d.callPublish(ctx, v, nodeName); err != nil {
		return err
	}
	if err := d.callStage(ctx, v); err != nil {
		return err
	}
	return d.callNodePublish(ctx, v)
}

// compare holds what was restored against what was there when the snapshot was taken.
func (d *demo) compare(v *volume) error {
	sum, err := readBack(filepath.Join(v.target, "data"))
	if err != nil {
		return err
	}
	if sum != d.taken.sum {
		return fmt.Errorf("sha256 of the restored 64 MiB is %s instead of %s", sum, d.taken.sum)
	}
	d.say("the 64 MiB as they were before the mistake, sha256 %s", sum)
	want, err := sumOfBlocks(filepath.Join(d.pvc.target, "log"), d.taken.blocks)
	if err != nil {
		return err
	}
	got, err := sumOfBlocks(filepath.Join(v.target, "log"), d.taken.blocks)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("sha256 of the restored %d blocks is %s instead of %s", d.taken.blocks, got, want)
	}
	d.say("and all %d blocks of the log that were safe at that moment", d.taken.blocks)
	return nil
}

// sumOfBlocks is the checksum of the first blocks of a log.
func sumOfBlocks(path string, blocks int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, int64(blocks)*blockSize); err != nil {
		return "", fmt.Errorf("%s does not have its %d blocks: %w", path, blocks, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
