//go:build kernel

package kernel

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

const (
	cowPool  = "storage-pool" // Btrfs: subvolumes that share blocks
	copyPool = "raid10"       // XFS: full copies
)

// A snapshot is taken, the volume is written on, and both of what was and what is are to be had side by side on one node: the
// volume, what was restored into a larger one, and a clone, which all have file systems of one UUID.
func TestSnapshotRestoreAndClone(t *testing.T) {
	for _, pool := range []string{cowPool, copyPool} {
		for _, fstype := range []string{"ext4", "xfs"} {
			t.Run(pool+" "+fstype, func(t *testing.T) {
				dir := ""
				if pool == cowPool {
					dir = btrfs(t)
				}
				s := newScene(t, dir, pool, nil)
				snapshotRestoreAndClone(s, pool, capability(oneWriter, fstype))
				s.empty(pool)
			})
		}
	}
}

func snapshotRestoreAndClone(s *scene, pool string, mode *csi.VolumeCapability) {
	t := s.t
	source := s.create("source", volumeSize, mode, nil)
	source.up()
	before := fill(t, source.directory, 1<<20, "a", "b", "c")
	size := fsBytes(t, source.directory)
	var snapshot *csi.Snapshot
	source.whileUsed(pool, func() error {
		_, err := s.CreateSnapshot(soon(t), &csi.CreateSnapshotRequest{Name: "snapshot", SourceVolumeId: source.id()})
		return err
	}, func() { snapshot = source.snapshot("snapshot") })
	after := maps.Clone(before)
	must(t, os.Remove(filepath.Join(source.directory, "c")))
	delete(after, "c")
	maps.Copy(after, fill(t, source.directory, 1<<20, "b", "d"))

	restored := s.create("restored", 2*volumeSize, mode, fromSnapshot(snapshot))
	restored.up() // beside its source
	before.verify(t, restored.directory)
	if grown := fsBytes(t, restored.directory); grown < size+volumeSize*9/10 {
		t.Errorf("restored into a volume of %d bytes, the file system has %d", 2*volumeSize, grown)
	}
	var clone *claim
	source.whileUsed(pool, func() error {
		_, err := s.CreateVolume(soon(t), &csi.CreateVolumeRequest{
			Name: "clone", CapacityRange: &csi.CapacityRange{RequiredBytes: volumeSize}, VolumeCapabilities: []*csi.VolumeCapability{mode},
			VolumeContentSource: fromVolume(source),
		})
		return err
	}, func() { clone = s.create("clone", volumeSize, mode, fromVolume(source)) })
	clone.up()
	after.verify(t, clone.directory)

	all := map[*claim]contents{source: after, restored: maps.Clone(before), clone: maps.Clone(after)}
	for c, want := range all { // each goes its own way
		maps.Copy(want, fill(t, c.directory, 512<<10, "a", "own"))
	}
	for c, want := range all {
		want.verify(t, c.directory)
		c.down()
		c.fsck()
		c.up()
		want.verify(t, c.directory)
		c.down()
	}
	source.remove() // the snapshot outlives it
	again := s.create("again", volumeSize, mode, fromSnapshot(snapshot))
	again.up()
	before.verify(t, again.directory)
	again.down()
	for _, c := range []*claim{restored, clone, again} {
		c.remove()
	}
	_, err := s.DeleteSnapshot(soon(t), &csi.DeleteSnapshotRequest{SnapshotId: snapshot.GetSnapshotId()})
	must(t, err)
}

// whileUsed makes a copy of a volume that a pod has: at once where blocks are shared. Elsewhere it is refused, with the node
// to stop it on, and works when the volume has left that.
func (c *claim) whileUsed(pool string, try func() error, do func()) {
	c.s.t.Helper()
	if pool == cowPool {
		do()
		return
	}
	if err := try(); !errors.Is(err, appliance.ErrAttached) || !strings.Contains(err.Error(), nodeA) {
		c.s.t.Errorf("a copy of an attached volume: %v", err)
	}
	c.down()
	do()
	c.up()
}

// What is restored for reading only is what was, and not a byte of it changes: also where the log would have to be replayed,
// for the snapshot was taken while the volume was written to.
func TestSnapshotForReadersOnly(t *testing.T) {
	s := newScene(t, btrfs(t), cowPool, nil)
	for _, fstype := range []string{"ext4", "xfs"} {
		source := s.create("source-"+fstype, volumeSize, capability(oneWriter, fstype), nil)
		source.up()
		want := fill(t, source.directory, 1<<20, "a", "b")
		unclean := s.create("unclean-"+fstype, volumeSize, capability(readers, fstype), fromSnapshot(source.snapshot("unclean-"+fstype)))
		must(t, unclean.attach(nodeA))
		if err := unclean.stage(); !refused(err) || !strings.Contains(err.Error(), "ReadWriteOnce") {
			t.Errorf("%s: a log that is not replayed: %v", fstype, err)
		}
		source.down()
		clean := s.create("clean-"+fstype, volumeSize, capability(readers, fstype), fromSnapshot(source.snapshot("clean-"+fstype)))
		before := clean.sum()
		clean.up()
		must(t, clean.attach(nodeB)) // readers are as many as they like
		want.verify(t, clean.directory)
		if err := os.WriteFile(clean.directory+"/more", nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: a file: %v", fstype, err)
		}
		ns, err := s.i.Find(clean.nqn())
		must(t, err)
		if err := pwrite(t, ns.DevicePath, 0, make([]byte, 512)); err == nil {
			t.Errorf("%s: the device takes writes", fstype)
		}
		clean.down()
		if clean.sum() != before {
			t.Errorf("%s: something was written", fstype)
		}
	}
}

// sum is what the RDS has of the volume, byte for byte.
func (c *claim) sum() string {
	c.s.t.Helper()
	v := volume{export: &export{t: c.s.t, file: c.file()}}
	return v.sum()
}

// file is where the simulator keeps the volume.
func (c *claim) file() string {
	c.s.t.Helper()
	for _, d := range c.s.server.Device.Disks() {
		if d.Slot == c.slot() {
			return d.HostFile
		}
	}
	c.s.t.Fatalf("no disk %s", c.slot())
	return ""
}
