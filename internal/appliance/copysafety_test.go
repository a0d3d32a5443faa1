package appliance_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// The mark that says which job makes a copy is lost, and the job lives on: once a node may write, nothing that it has copied
// counts.
func TestNoCopyIsProvenAfterItsSourceWasExported(t *testing.T) {
	for _, mark := range []string{"", "*FF 2026-01-01 00:00:00"} {
		r, v, release := copied(t, nil)
		id := appliance.SnapshotIDFor("homelab", "snapshot-1")
		r.device.console(t, `/file remove [find where name~"[.]job\$"]`)
		if mark != "" {
			r.device.write(t, "/storage-pool/k8s/"+id+"."+v.ID.Slot+".job", []byte(mark))
		}
		if v, err := r.Export(t.Context(), v.ID.Slot); err != nil || !v.Exported || r.server.Device.Jobs() != 1 {
			t.Fatalf("%q: %+v, %v, %d jobs", mark, v, err, r.server.Device.Jobs())
		}
		r.device.scribble(t, v.Path.Disk(), "after!")
		release()
		ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 0, nil })
		if s, err := r.GetSnapshot(t.Context(), id); err == nil && s.Ready {
			t.Errorf("%q: %+v of what was written while it was copied", mark, s)
		}
		_, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Snapshot: id}})
		if err == nil {
			t.Errorf("%q: restored from it", mark)
		}
	}
}

// The mark that says which job makes a copy is lost, and whoever asks again finds the job: a second one into the same file is not begun.
func TestACopyIsNotBegunTwice(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		r, v, release := copied(t, nil)
		clone := appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: v.ID.Slot}}
		if _, err := r.Create(t.Context(), clone); !errors.Is(err, appliance.ErrCopying) {
			t.Fatal(err)
		}
		r.device.console(t, `/file remove [find where name~"[.]job\$"]`)
		if reboot {
			if err := r.server.Device.Reboot(t.Context()); err != nil {
				t.Fatal(err)
			}
			release()
		}
		jobs := r.server.Device.Jobs()
		for range 2 {
			s, snapshot := r.eventuallySnapshot(t, func() (appliance.Snapshot, error) {
				return r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: v.ID.Slot})
			})
			if snapshot != nil || s.Ready && !reboot {
				t.Errorf("%+v, %v", s, snapshot)
			}
			if _, err := r.Create(t.Context(), clone); !errors.Is(err, appliance.ErrCopying) && !reboot {
				t.Error(err)
			}
		}
		if n := r.server.Device.Jobs(); !reboot && n != jobs {
			t.Errorf("%d jobs, there were %d", n, jobs)
		}
		release()
		s, got := r.readySnapshot(t, "snapshot-1", v.ID.Slot), r.readyVolume(t, clone)
		if !r.device.holds(s.Path.Disk(), "before") || !r.device.holds(got.Path.Disk(), "before") || len(r.images(t)) != 3 {
			t.Errorf("reboot %t: %+v, %+v, images %v", reboot, s, got, r.images(t))
		}
	}
}

// What the RDS itself may write to, and what has no owner, is not copied in any way.
func TestSourcesThatAreNotCopied(t *testing.T) {
	for _, filesystem := range []string{"btrfs", "xfs"} {
		r := startOn(t, filesystem, map[string]string{"slot-over-32": "accept"})
		flat := flatDisk(adoptedSlot)
		flat.Cluster = ""
		r.device.PutDisk(t, flat)
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		r.device.console(t, `/disk set [find slot="`+v.ID.Slot+`"] mount-filesystem=yes`)
		files := r.device.Files(t)
		for slot, want := range map[string]error{adoptedSlot: appliance.ErrForeign, v.ID.Slot: appliance.ErrMounted} {
			_, snapshot := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: slot})
			_, clone := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: slot}})
			if !errors.Is(snapshot, want) || !errors.Is(clone, want) {
				t.Errorf("%s: %v, %v, want %v", filesystem, snapshot, clone, want)
			}
			if on, _ := r.server.Device.Disk(slot); !on.Export {
				t.Errorf("%s: %+v", filesystem, on)
			}
		}
		if now := r.device.Files(t); !slices.Equal(now, files) {
			t.Errorf("%s: %v, were %v", filesystem, now, files)
		}
		// Attaching puts both right.
		for i, slot := range []string{adoptedSlot, v.ID.Slot} {
			if _, err := r.Export(t.Context(), slot); err != nil {
				t.Fatal(err)
			}
			r.readySnapshot(t, fmt.Sprint("snapshot-", i), slot)
		}
	}
}

// Where the image of a clone is not what it has to be, no item is made: it would be an empty volume, and be formatted.
func TestNothingIsMadeOfAnImageThatIsNotThere(t *testing.T) {
	r := start(t, nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	s := r.snapshot(t, "snapshot-1", v.ID.Slot)
	parent := s.Path.Dir().Base()
	for name, put := range map[string]func(dir string){
		"a plain directory": func(dir string) { r.device.mkdir(t, dir) },
		"a plain directory with an image": func(dir string) {
			r.device.write(t, dir+"/volume.img", nil)
			if err := os.Truncate(r.device.host(dir+"/volume.img"), gib); err != nil {
				t.Fatal(err)
			}
		},
		"a subvolume without image": func(dir string) {
			r.device.console(t, `/disk/btrfs/subvolume/add fs=storage-pool-fs parent="`+parent+`" name="`+strings.TrimPrefix(dir, "/storage-pool/")+`"`)
			r.device.console(t, `/file remove [find where name="`+dir[1:]+`/volume.img"]`)
		},
		"a subvolume with a short image": func(dir string) {
			r.device.console(t, `/disk/btrfs/subvolume/add fs=storage-pool-fs parent="`+parent+`" name="`+strings.TrimPrefix(dir, "/storage-pool/")+`"`)
			if err := os.Truncate(r.device.host(dir+"/volume.img"), gib/2); err != nil {
				t.Fatal(err)
			}
		},
		"a subvolume of something else": func(dir string) {
			r.device.console(t, `/disk/btrfs/subvolume/add fs=storage-pool-fs parent="`+v.ID.Slot+`" name="`+strings.TrimPrefix(dir, "/storage-pool/")+`"`)
		},
	} {
		dir := "/storage-pool/k8s/" + appliance.SlotFor("homelab", name)
		put(dir)
		files := r.device.Files(t)
		_, err := r.Create(t.Context(), appliance.CreateRequest{Name: name, Source: appliance.Source{Snapshot: s.ID.Slot}})
		if !errors.Is(err, appliance.ErrLeftover) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		if now := r.device.Files(t); !slices.Equal(now, files) || len(r.server.Device.Disks()) != 1 {
			t.Errorf("%s: %v, were %v", name, now, files)
		}
	}
}

// A clone that was cut off between its subvolume and its disk item is finished by the next call, also when its source has grown
// since: its size was written down then. What that does not prove is left to a person.
func TestACloneThatWasCutOffIsFinished(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(r rig, dir, proof string)
		want  error
	}{
		"whole":                 {func(rig, string, string) {}, nil},
		"a short image":         {func(r rig, dir, _ string) { r.device.resize(t, dir+"/volume.img", gib/2) }, appliance.ErrLeftover},
		"nobody wrote it down":  {func(r rig, _, proof string) { r.device.console(t, `/file remove [find where name="`+proof+`"]`) }, appliance.ErrLeftover},
		"something else stands": {func(r rig, _, proof string) { r.device.write(t, proof, []byte("x")) }, appliance.ErrLeftover},
		"another size stands":   {func(r rig, _, proof string) { r.device.write(t, proof, []byte("2147483648")) }, appliance.ErrLeftover},
	} {
		r := start(t, map[string]string{"existing-file": "error"}) // so that it fails there
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		r.device.scribble(t, v.Path.Disk(), "before")
		req := appliance.CreateRequest{Name: "pvc-2", RequiredBytes: gib, Source: appliance.Source{Volume: v.ID.Slot}}
		if _, err := r.Create(t.Context(), req); !errors.Is(err, appliance.ErrUnsupported) {
			t.Fatalf("%s: %v", name, err)
		}
		r.device.setQuirk(t, "existing-file", "reuse")
		if _, err := r.Expand(t.Context(), v.ID.Slot, 3*gib, 0); err != nil {
			t.Fatal(err)
		}
		r.device.scribble(t, v.Path.Disk(), "after!")
		dir := "/storage-pool/k8s/" + appliance.SlotFor("homelab", "pvc-2")
		c.spoil(r, dir, dir[1:]+"."+v.ID.Slot+".cloning")
		got, err := r.Create(t.Context(), req)
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want == nil && (got.SizeBytes != gib || !r.device.holds(got.Path.Disk(), "before") || len(r.device.Files(t)) != 2) {
			t.Errorf("%s: %+v, files %v", name, got, r.device.Files(t))
		}
		if c.want != nil && len(r.server.Device.Disks()) != 1 {
			t.Errorf("%s: %+v", name, r.server.Device.Disks())
		}
		if err := r.Delete(t.Context(), appliance.SlotFor("homelab", "pvc-2")); err != nil || len(r.device.Files(t)) != 1 {
			t.Errorf("%s: %v, files %v", name, err, r.device.Files(t))
		}
	}
}

func (d *device) resize(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(d.host(path), size); err != nil {
		t.Fatal(err)
	}
}

func (d *device) mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(d.host(dir), 0o750); err != nil {
		t.Fatal(err)
	}
}

// A copy that is whole becomes the volume, also when its source is gone by then.
func TestACopyOutlivesItsSource(t *testing.T) {
	r := startOn(t, "xfs", nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	r.device.scribble(t, v.Path.Disk(), "before")
	req := appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: v.ID.Slot}}
	if _, err := r.Create(t.Context(), req); !errors.Is(err, appliance.ErrCopying) {
		t.Fatal(err)
	}
	ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 0, nil })
	if err := r.Delete(t.Context(), v.ID.Slot); err != nil {
		t.Fatal(err)
	}
	if got := r.readyVolume(t, req); !r.device.holds(got.Path.Disk(), "before") {
		t.Errorf("%+v", got)
	}
}

// Two subvolumes of one name: nobody knows which one is meant, and the error says where they are.
func TestNamesakesAreNotGuessedAt(t *testing.T) {
	r := start(t, nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	s := r.snapshot(t, "snapshot-1", v.ID.Slot)
	r.device.console(t, `/disk/btrfs/subvolume/add fs=storage-pool-fs name="backup"`)
	r.device.console(t, `/disk/btrfs/subvolume/add fs=storage-pool-fs parent="`+s.Path.Dir().Base()+`" name="backup/`+v.ID.Slot+`"`)
	_, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: v.ID.Slot}})
	if !errors.Is(err, appliance.ErrLeftover) || !strings.Contains(err.Error(), "/storage-pool/backup/"+v.ID.Slot) || !strings.Contains(err.Error(), v.Path.Dir().Disk()) {
		t.Errorf("%v", err)
	}
	if len(r.server.Device.Disks()) != 1 {
		t.Errorf("%+v", r.server.Device.Disks())
	}
}

// A create that was cut off is completed whatever else of the request has changed, and handed to nobody before.
func TestUnfinishedVolumesAreNotHandedOut(t *testing.T) {
	for _, filesystem := range []string{"btrfs", "xfs"} {
		r := startOn(t, filesystem, nil)
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		req := appliance.CreateRequest{Name: "pvc-2", Claim: "a/b", RequiredBytes: 2 * gib, Source: appliance.Source{Volume: v.ID.Slot}}
		slot := r.readyVolume(t, req).ID.Slot
		on, _ := r.server.Device.Disk(slot)
		r.device.console(t, `/disk set [find slot="`+slot+`"] comment="`+on.Comment+` unfinished=yes"`)
		if _, err := r.Export(t.Context(), slot); !errors.Is(err, appliance.ErrCopying) {
			t.Errorf("%s: %v", filesystem, err)
		}
		req.Claim = "a/c"
		got, err := r.Create(t.Context(), req)
		if err != nil || got.Unfinished || got.Claim != "a/c" || got.SizeBytes != 2*gib {
			t.Errorf("%s: %+v, %v", filesystem, got, err)
		}
	}
}

// What a power loss has left of a copy that was done is lost, and neither on its way for ever nor restored from.
func TestACopyThatWasCutShortAfterwardsIsLost(t *testing.T) {
	r := startOn(t, "xfs", nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	s := r.readySnapshot(t, "snapshot-1", v.ID.Slot)
	if err := os.Truncate(r.device.host(s.Path.Disk()), gib/2); err != nil {
		t.Fatal(err)
	}
	_, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Snapshot: s.ID.Slot}})
	if !errors.Is(err, appliance.ErrLeftover) {
		t.Errorf("%v", err)
	}
	if got, err := r.GetSnapshot(t.Context(), s.ID.Slot); err != nil || got.Ready {
		t.Errorf("%+v, %v", got, err)
	}
	if got := r.readySnapshot(t, "snapshot-1", v.ID.Slot); got.SizeBytes != gib {
		t.Errorf("%+v", got)
	}
}

// A snapshot that somebody can write to is none, is not absent, and is nobody's to remove.
func TestAWritableSnapshotIsNone(t *testing.T) {
	r := start(t, nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	s := r.snapshot(t, "snapshot-1", v.ID.Slot)
	r.device.console(t, `/disk/btrfs/subvolume/set [find where name~"^snap-"] read-only=no`)
	files := r.device.Files(t)
	_, get := r.GetSnapshot(t.Context(), s.ID.Slot)
	_, restore := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Snapshot: s.ID.Slot}})
	_, again := r.CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: v.ID.Slot, Attached: true})
	for what, err := range map[string]error{"get": get, "restore": restore, "again": again, "delete": r.DeleteSnapshot(t.Context(), s.ID.Slot)} {
		if !errors.Is(err, appliance.ErrLeftover) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := r.ListSnapshots(t.Context()); err != nil || len(list) != 1 || list[0].Ready {
		t.Errorf("%+v, %v", list, err)
	}
	if now := r.device.Files(t); !slices.Equal(now, files) {
		t.Errorf("%v, were %v", now, files)
	}
}

// What is being copied is not deleted, neither the source nor what the copy is to become; a claim of nobody stands in no way.
func TestWhatIsCopiedIsNotDeleted(t *testing.T) {
	r := startOn(t, "xfs", nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	release := r.server.Device.HoldCopies()
	defer release()
	req := appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: v.ID.Slot}}
	if _, err := r.Create(t.Context(), req); !errors.Is(err, appliance.ErrCopying) {
		t.Fatal(err)
	}
	ready(t, func() (int, bool, error) { n := len(r.images(t)); return n, n == 2, nil })
	files, target := r.device.Files(t), appliance.SlotFor("homelab", "pvc-2")
	for _, slot := range []string{v.ID.Slot, target} {
		if err := r.Delete(t.Context(), slot); !errors.Is(err, appliance.ErrCopying) {
			t.Errorf("%s: %v", slot, err)
		}
	}
	if now := r.device.Files(t); !slices.Equal(now, files) {
		t.Errorf("%v, were %v", now, files)
	}
	r.device.console(t, `/file remove [find where name~"[.]job\$"]`)
	for _, slot := range []string{target, v.ID.Slot} {
		if err := r.Delete(t.Context(), slot); err != nil {
			t.Errorf("%s: %v", slot, err)
		}
	}
	release()
	ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 0, nil })
	if files := r.device.Files(t); slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, ".done") }) {
		t.Errorf("left %v", files)
	}
}

// An item without owner gets one before it is deleted: whatever is cut off then, it is known whose it was.
func TestDeleteClaimsFirst(t *testing.T) {
	r := start(t, map[string]string{"slot-over-32": "accept", "remove-while-connected": "refuse"})
	d := flatDisk(adoptedSlot)
	d.Cluster = ""
	r.device.PutDisk(t, d)
	r.server.Device.PretendHosts(adoptedSlot, 1)
	if err := r.Delete(t.Context(), adoptedSlot); !errors.Is(err, appliance.ErrInUse) {
		t.Errorf("%v", err)
	}
	r.server.Device.PretendHosts(adoptedSlot, 0)
	if on, _ := r.server.Device.Disk(adoptedSlot); !strings.HasPrefix(on.Comment, "rds-csi/1 cluster=homelab ") {
		t.Errorf("%+v", on)
	}
	if err := r.Delete(t.Context(), adoptedSlot); err != nil || len(r.device.Files(t)) != 0 {
		t.Errorf("%v, %v", err, r.device.Files(t))
	}
}
