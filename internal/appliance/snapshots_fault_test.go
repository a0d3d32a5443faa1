package appliance_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
)

// copied is a volume on a pool that takes full copies, with a snapshot of it that is half-way.
func copied(t *testing.T, quirks map[string]string) (r rig, v appliance.Volume, release func()) {
	t.Helper()
	r = startOn(t, "xfs", quirks)
	v = r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	r.device.scribble(t, v.Path.Disk(), "before")
	release = r.server.Device.HoldCopies()
	t.Cleanup(release)
	r.snapshot(t, "snapshot-1", v.ID.Slot)
	ready(t, func() (n int64, half bool, err error) {
		for _, name := range r.images(t) {
			info, err := os.Stat(r.device.host(name))
			if err != nil {
				return 0, false, err
			}
			if name != v.Path.Disk() {
				n = info.Size()
			}
		}
		return n, n >= gib/2, nil
	})
	return r, v, release
}

func (r rig) images(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(r.device.Files(t), func(name string) bool { return !strings.HasSuffix(name, ".img") })
}

// Another controller takes over in the middle: it sees the copy, and begins none of its own.
func TestCopyOutlivesTheController(t *testing.T) {
	r, v, release := copied(t, nil)
	second := rig{RDS: r.as(t, "csi"), server: r.server, device: r.device}
	if s := second.snapshot(t, "snapshot-1", v.ID.Slot); s.Ready || s.Progress != 0.5 {
		t.Errorf("%+v", s)
	}
	if n := r.server.Device.Jobs(); n != 1 {
		t.Errorf("%d jobs", n)
	}
	release()
	s := second.readySnapshot(t, "snapshot-1", v.ID.Slot)
	if !r.device.holds(s.Path.Disk(), "before") || len(r.images(t)) != 2 {
		t.Errorf("%+v, images %v", s, r.images(t))
	}
}

// In whatever form the RDS names the job that it began, it is found again: the copy is not begun anew, its source waits, and who
// deletes the snapshot stops it.
func TestTheJobIsKnownAgain(t *testing.T) {
	for _, form := range []string{"id", "text"} {
		r, v, _ := copied(t, map[string]string{"execute-returns": form})
		for range 2 {
			if s := r.snapshot(t, "snapshot-1", v.ID.Slot); s.Ready || s.Progress != 0.5 {
				t.Errorf("%s: %+v", form, s)
			}
		}
		if _, err := r.Export(t.Context(), v.ID.Slot); !errors.Is(err, appliance.ErrCopying) || r.server.Device.Jobs() != 1 {
			t.Errorf("%s: %v, %d jobs", form, err, r.server.Device.Jobs())
		}
		if err := r.DeleteSnapshot(t.Context(), appliance.SnapshotIDFor("homelab", "snapshot-1")); err != nil {
			t.Errorf("%s: %v", form, err)
		}
		ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 0, nil })
	}
}

// A copy that a reboot has cut off is never ready, and is made anew.
func TestRebootInTheMiddleOfACopy(t *testing.T) {
	for _, size := range []string{"grows", "at-once"} {
		r, v, release := copied(t, map[string]string{"file-copy-size": size})
		if err := r.server.Device.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, err := r.eventuallySnapshot(t, func() (appliance.Snapshot, error) {
			return r.GetSnapshot(t.Context(), appliance.SnapshotIDFor("homelab", "snapshot-1"))
		})
		if err != nil || s.Ready {
			t.Errorf("%s: %+v, %v", size, s, err)
		}
		// The claim is a dead one's: it stands in nobody's way.
		if v, err := r.Export(t.Context(), v.ID.Slot); err != nil || !v.Exported {
			t.Errorf("%s: %+v, %v", size, v, err)
		}
		release()
		s = r.readySnapshot(t, "snapshot-1", v.ID.Slot)
		if !r.device.holds(s.Path.Disk(), "before") || len(r.images(t)) != 2 {
			t.Errorf("%s: %+v, images %v", size, s, r.images(t))
		}
	}
}

func (r rig) eventuallySnapshot(t *testing.T, do func() (appliance.Snapshot, error)) (s appliance.Snapshot, err error) {
	t.Helper()
	for range 5 {
		if s, err = do(); err == nil {
			return s, nil
		}
	}
	return s, err
}

// Neither a target that is large from its beginning nor a copy command that comes back early is taken for a whole.
func TestHalfACopyIsNeverReady(t *testing.T) {
	for name, quirks := range map[string]map[string]string{
		"large at once": {"file-copy-size": "at-once"}, "returns early": {"file-copy-returns": "started"}, "grows": nil,
	} {
		r, v, release := copied(t, quirks)
		if name == "returns early" {
			ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 2, nil })
		}
		for range 3 {
			if s := r.snapshot(t, "snapshot-1", v.ID.Slot); s.Ready {
				t.Errorf("%s: %+v", name, s)
			}
		}
		_, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Snapshot: appliance.SnapshotIDFor("homelab", "snapshot-1")}})
		if !errors.Is(err, appliance.ErrCopying) {
			t.Errorf("%s: restored from half a snapshot: %v", name, err)
		}
		release()
		if s := r.readySnapshot(t, "snapshot-1", v.ID.Slot); !r.device.holds(s.Path.Disk(), "before") {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// A node that gets the volume in the middle spoils the copy: it is given up, whole and at once.
func TestAttachedWhileItIsCopied(t *testing.T) {
	r, v, _ := copied(t, nil)
	for range 2 {
		_, err := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: v.ID.Slot, Attached: true})
		if !errors.Is(err, appliance.ErrAttached) || !strings.Contains(err.Error(), "detach") {
			t.Errorf("%v", err)
		}
	}
	ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 0, nil })
	if on, _ := r.server.Device.Disk(v.ID.Slot); !on.Export || len(r.device.Files(t)) != 1 {
		t.Errorf("%+v, files %v", on, r.device.Files(t))
	}
	if list, err := r.ListSnapshots(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A snapshot that is deleted in the middle of its copy is gone, and nothing comes after it.
func TestDeleteInTheMiddleOfACopy(t *testing.T) {
	r, v, release := copied(t, nil)
	if n := r.commands(func() {
		if err := r.DeleteSnapshot(t.Context(), appliance.SnapshotIDFor("homelab", "snapshot-1")); err != nil {
			t.Error(err)
		}
	}); n != 2 {
		t.Errorf("%d commands", n)
	}
	release()
	ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 0, nil })
	if on, _ := r.server.Device.Disk(v.ID.Slot); !on.Export || len(r.device.Files(t)) != 1 {
		t.Errorf("%+v, files %v", on, r.device.Files(t))
	}
}

// What the job says of its failure reaches whoever asks, once, and the next call begins anew.
func TestCopyThatFailed(t *testing.T) {
	for text, want := range map[string]error{"failure: no space left on disk": appliance.ErrNoSpace, "failure: I/O error": appliance.ErrAnswer} {
		r, v, release := copied(t, nil)
		release()
		s := r.readySnapshot(t, "snapshot-1", v.ID.Slot)
		marks := strings.TrimSuffix(s.Path.Disk(), ".img")
		r.device.console(t, `/file remove [find where name~"[.]done\$"]`)
		r.device.write(t, marks+".failed", []byte("rds-csi/1 size=1073741824 created=1 nonce=x error="+text))
		_, err := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: v.ID.Slot})
		if !errors.Is(err, want) || !strings.Contains(err.Error(), text) || len(r.device.Files(t)) != 1 {
			t.Errorf("%v, files %v", err, r.device.Files(t))
		}
		r.readySnapshot(t, "snapshot-1", v.ID.Slot)
	}
}

func TestPoolWithoutRoomForACopy(t *testing.T) {
	r := startOn(t, "xfs", nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: appliancetest.PoolBytes / 8 * 5})
	_, snapshot := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: v.ID.Slot})
	_, clone := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: v.ID.Slot}})
	if !errors.Is(snapshot, appliance.ErrNoSpace) || !errors.Is(clone, appliance.ErrNoSpace) || len(r.device.Files(t)) != 1 {
		t.Errorf("%v, %v, files %v", snapshot, clone, r.device.Files(t))
	}
	if on, _ := r.server.Device.Disk(v.ID.Slot); !on.Export {
		t.Error("the volume is not exported any more, and nothing is copied")
	}
}

func TestCopiesNeed723(t *testing.T) {
	for version, filesystems := range map[string]map[string]error{
		"7.22.1": {"btrfs": nil, "xfs": appliance.ErrUnsupported}, "7.23": {"btrfs": nil, "xfs": nil},
	} {
		for filesystem, want := range filesystems {
			r := boot(t, version, filesystem, nil)
			v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
			_, err := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: v.ID.Slot})
			if !errors.Is(err, want) || want != nil && !strings.Contains(err.Error(), "7.23") {
				t.Errorf("%s on %s: %v", filesystem, version, err)
			}
			if on, _ := r.server.Device.Disk(v.ID.Slot); want != nil && (!on.Export || len(r.device.Files(t)) != 1) {
				t.Errorf("%s on %s: %+v, files %v", filesystem, version, on, r.device.Files(t))
			}
		}
	}
}

// A plain file on a Btrfs pool, such as the existing driver's volumes are, is no subvolume: it is copied.
func TestFlatVolumesOnBtrfsAreCopied(t *testing.T) {
	r := start(t, map[string]string{"slot-over-32": "accept"})
	d := flatDisk(adoptedSlot)
	d.Cluster, d.Path = "", "/storage-pool/metal-csi/"+adoptedSlot+".img"
	r.device.PutDisk(t, d)
	r.device.scribble(t, d.Path, "old data")
	if _, err := r.Export(t.Context(), adoptedSlot); err != nil { // it has an owner from then on
		t.Fatal(err)
	}
	if _, err := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: adoptedSlot, Attached: true}); !errors.Is(err, appliance.ErrAttached) {
		t.Errorf("%v", err)
	}
	s := r.readySnapshot(t, "snapshot-1", adoptedSlot)
	if s.SourceVolume.String() != adoptedSlot || !r.device.holds(s.Path.Disk(), "old data") {
		t.Errorf("%+v", s)
	}
	for name, source := range map[string]appliance.Source{"restored": {Snapshot: s.ID.Slot}, "cloned": {Volume: adoptedSlot}} {
		v := r.readyVolume(t, appliance.CreateRequest{Name: name, RequiredBytes: 2 * gib, Source: source})
		if !r.device.holds(v.Path.Disk(), "old data") || v.SizeBytes != 2*gib {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

const adoptedSlot = "pvc-2f4a1c8e-7b60-4d5e-9a3b-0c1d2e3f4a5b"

// A device that makes no item of an existing image cannot restore, and says so.
func TestExistingImagesMustBeOpened(t *testing.T) {
	for _, filesystem := range []string{"btrfs", "xfs"} {
		r := startOn(t, filesystem, map[string]string{"existing-file": "error"})
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		var err error
		ready(t, func() (int, bool, error) {
			_, err = r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: v.ID.Slot}})
			return 0, !errors.Is(err, appliance.ErrCopying), nil
		})
		if !errors.Is(err, appliance.ErrUnsupported) || !strings.Contains(err.Error(), "already") {
			t.Errorf("%s: %v", filesystem, err)
		}
		if err := r.Delete(t.Context(), appliance.SlotFor("homelab", "pvc-2")); err != nil || len(r.images(t)) != 1 {
			t.Errorf("%s: %v, images %v", filesystem, err, r.images(t))
		}
	}
}

// Whatever dies, and whenever: there is one snapshot and one restored volume in the end, and their data is right.
func TestFaultsAtEveryMutationOfSnapshots(t *testing.T) {
	for filesystem, mutations := range map[string][]string{
		"btrfs": {"/disk/btrfs/subvolume/add"}, "xfs": {"/file/copy", "/disk/add"},
	} {
		for _, fault := range []string{"drop-before", "drop-after", "garbage", "garbage=cut", "reboot"} {
			for _, mutation := range mutations {
				t.Run(filesystem+" "+fault+mutation, func(t *testing.T) {
					t.Parallel() // most of it is waiting for connections to come back
					r := startOn(t, filesystem, nil)
					v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
					r.device.scribble(t, v.Path.Disk(), "before")
					r.inject(t, fault+"@"+mutation+":1")
					s := r.persistSnapshot(t, v.ID.Slot)
					r.inject(t, fault+"@"+mutation+":1")
					got := r.persistVolume(t, appliance.CreateRequest{Name: "pvc-2", RequiredBytes: 2 * gib, Source: appliance.Source{Snapshot: s.ID.Slot}})
					if got.SizeBytes != 2*gib || !r.device.holds(got.Path.Disk(), "before") || len(r.images(t)) != 3 || len(r.server.Device.Disks()) != 2 {
						t.Errorf("%+v, images %v", got, r.images(t))
					}
					r.server.Device.ClearFaults()
					r.inject(t, fault+"@remove:1")
					for range 5 {
						if err := errors.Join(r.DeleteSnapshot(t.Context(), s.ID.Slot), r.Delete(t.Context(), got.ID.Slot)); err == nil {
							break
						}
					}
					if len(r.device.Files(t)) != 1 {
						t.Errorf("left %v", r.device.Files(t))
					}
				})
			}
		}
	}
}

// persist repeats whatever the error, as a sidecar does.
func (r rig) persistSnapshot(t *testing.T, source string) (s appliance.Snapshot) {
	t.Helper()
	return ready(t, func() (appliance.Snapshot, bool, error) {
		s, err := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: source})
		return s, err == nil && s.Ready, nil
	})
}

func (r rig) persistVolume(t *testing.T, req appliance.CreateRequest) appliance.Volume {
	t.Helper()
	return ready(t, func() (appliance.Volume, bool, error) {
		v, err := r.Create(t.Context(), req)
		return v, err == nil, nil
	})
}

// B5: a copy that somebody keeps elsewhere, a snapshot that somebody looks into, and other clusters' are not touched.
func TestSnapshotsThatAreNotOurs(t *testing.T) {
	for _, filesystem := range []string{"btrfs", "xfs"} {
		r := startOn(t, filesystem, nil)
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		s := r.readySnapshot(t, "snapshot-1", v.ID.Slot)

		theirs := strings.Replace(s.Path.Disk(), s.ID.Slot, appliance.SnapshotIDFor("other", "snapshot-1"), 1)
		r.device.write(t, theirs, []byte("theirs"))
		if list, err := r.ListSnapshots(t.Context()); err != nil || len(list) != 1 || list[0].ID != s.ID {
			t.Errorf("%s: listed %+v, %v", filesystem, list, err)
		}
		if err := r.DeleteSnapshot(t.Context(), appliance.SnapshotIDFor("other", "snapshot-1")); !errors.Is(err, appliance.ErrForeign) {
			t.Errorf("%s: %v", filesystem, err)
		}

		if filesystem == "xfs" { // an item on a read-only subvolume is refused by the device itself
			r.device.console(t, `/disk add type=file slot=look file-path="`+s.Path.Disk()+`" mount-filesystem=no`)
			if err := r.DeleteSnapshot(t.Context(), s.ID.Slot); !errors.Is(err, appliance.ErrInUse) {
				t.Errorf("%s: %v", filesystem, err)
			}
			r.device.console(t, `/disk remove look`)
			r.device.write(t, "/raid10/kept/"+s.Path.Base(), []byte("a copy"))
			if err := r.DeleteSnapshot(t.Context(), s.ID.Slot); !errors.Is(err, appliance.ErrLeftover) || !strings.Contains(err.Error(), "/raid10/kept") {
				t.Errorf("%s: %v", filesystem, err)
			}
		}
		if !slices.Contains(r.images(t), theirs) || !slices.Contains(r.images(t), s.Path.Disk()) {
			t.Errorf("%s: left %v", filesystem, r.images(t))
		}
	}
}
