package appliancetest

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// B5: anything that looked alike was fair game, whoever owned it. A cluster's id may be the beginning of another's.
func testForeign(t *testing.T, s scene) {
	items := []Disk{foreign("other"), foreign("homelab2"), foreign("home"), foreign("")}
	hand := adoptable() // somebody has written a comment: it is his now
	hand.Cluster, hand.Name = "other", "taken"
	plain := adoptable()
	plain.Slot, plain.Path, plain.NQN = "backup", "/storage-pool/k8s/backup.img", appliance.NQNFor("backup")
	for _, d := range append(items, hand, plain) {
		s.device.PutDisk(t, d)
		s.unchanged(t, func() {
			v, err := s.Get(t.Context(), d.Slot)
			if err != nil || v.Owner != appliance.OwnerForeign {
				t.Errorf("%s: %+v, %v", d.Slot, v, err)
			}
			is(t, s.Delete(t.Context(), d.Slot), appliance.ErrForeign)
			_, err = s.Export(t.Context(), d.Slot)
			is(t, err, appliance.ErrForeign)
		})
	}
	for _, d := range items {
		s.unchanged(t, func() {
			_, err := s.Create(t.Context(), appliance.CreateRequest{Name: "taken by " + d.Cluster, RequiredBytes: gib})
			is(t, err, appliance.ErrForeign)
		})
	}
}

func testDelete(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	for _, slot := range []string{v.ID.Slot, v.ID.Slot, s.slot("never"), "not-ours"} {
		if err := s.Delete(t.Context(), slot); err != nil {
			t.Errorf("delete %s: %v", slot, err)
		}
	}
	if disks, files := s.device.Disks(t), s.device.Files(t); len(disks) != 0 || len(files) != 0 {
		t.Errorf("left: %+v %v", disks, files)
	}
	s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: 2 * gib})
}

// B5: a sibling directory whose name begins alike, a copy that the user keeps, and other volumes stay.
func testDeleteSparesOthers(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	other := s.create(t, appliance.CreateRequest{Name: "pvc-10", RequiredBytes: gib})
	keep := []string{
		"/storage-pool/k8s-backup/" + v.ID.Slot + ".img",
		"/storage-pool/k8s-backup/" + v.ID.Slot + "/volume.img",
		"/storage-pool/k8s/old/" + v.ID.Slot + ".img",
		"/storage-pool/k8s/" + v.ID.Slot + ".img.bak",
		"/storage-pool/k8s/" + v.ID.Slot + "x/volume.img",
		"/storage-pool/" + v.ID.Slot + ".img",
	}
	for _, file := range keep {
		s.device.PutFile(t, file)
	}
	if err := s.Delete(t.Context(), v.ID.Slot); err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(slices.Concat(keep, []string{other.Path.Disk()})))
	if got := s.device.Files(t); !slices.Equal(got, want) {
		t.Errorf("files left: %v, want %v", got, want)
	}
	if disks := s.device.Disks(t); len(disks) != 1 || disks[other.ID.Slot].Slot == "" {
		t.Errorf("disks left: %+v", disks)
	}
}

// A file that any other item names is never removed, however the item writes the path.
func testDeleteNamedFiles(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	second := foreign("other")
	second.Path = v.Path.Disk()
	s.device.PutDisk(t, second)
	s.unchanged(t, func() { is(t, s.Delete(t.Context(), v.ID.Slot), appliance.ErrInUse) })

	// The item is gone, and the file lives on under another one.
	orphan := foreign("another")
	orphan.Path = s.file("pvc-2")
	s.device.PutDisk(t, orphan)
	s.unchanged(t, func() { is(t, s.Delete(t.Context(), s.slot("pvc-2")), appliance.ErrInUse) })

	// Our item, but its file is somebody's who has given it his own name.
	renamed := foreign("homelab")
	renamed.Path = "/storage-pool/k8s/precious.img"
	s.device.PutDisk(t, renamed)
	s.unchanged(t, func() { is(t, s.Delete(t.Context(), renamed.Slot), appliance.ErrForeign) })
}

// The RDS went down between the two removals: the next call finishes the work, in either layout.
func testDeleteOrphanFile(t *testing.T, s scene) {
	s.device.PutFile(t, "/storage-pool/k8s/"+s.slot("pvc-1")+".img")
	s.device.PutFile(t, "/storage-pool/k8s/mailbox.img")
	for _, slot := range []string{s.slot("pvc-1"), "mailbox"} {
		if err := s.Delete(t.Context(), slot); err != nil {
			t.Errorf("delete %s: %v", slot, err)
		}
	}
	if files := s.device.Files(t); !slices.Equal(files, []string{"/storage-pool/k8s/mailbox.img"}) {
		t.Errorf("left: %v, want the one that no driver can have named", files)
	}
}

// The RDS went down between the two removals, and the image lay where only the item said: it is found, named and not removed.
func testDeleteFileElsewhere(t *testing.T, s scene) {
	s.device.PutFile(t, s.image("/storage-pool/fast", s.slot("pvc-1")))
	s.unchanged(t, func() { is(t, s.Delete(t.Context(), s.slot("pvc-1")), appliance.ErrLeftover) })
}

// democratic-csi#496: an appliance may come back without its exports, and what is Bound can then not be attached.
func testExport(t *testing.T, s scene) {
	v := s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	right := s.device.Disks(t)[v.ID.Slot]
	export := func() {
		t.Helper()
		wrong := s.device.Disks(t)[v.ID.Slot] != right
		got, err := s.Export(t.Context(), v.ID.Slot)
		if (got.Repaired != "") != wrong {
			t.Errorf("says that it repaired %q", got.Repaired)
		}
		if got.Repaired = ""; err != nil || got != v {
			t.Errorf("exported\n%+v, %v, want\n%+v", got, err, v)
		}
		if now := s.device.Disks(t)[v.ID.Slot]; now != right {
			t.Errorf("on the device\n%+v, want\n%+v", now, right)
		}
	}
	s.unchanged(t, export)
	for _, wrong := range []func(*Disk){
		func(d *Disk) { d.Exported = false },
		func(d *Disk) { d.MountFilesystem = true },
		func(d *Disk) { d.NQN = "nqn.2000-02.com.mikrotik:other" },
		func(d *Disk) { d.Exported, d.MountFilesystem, d.NQN = false, true, "nqn.2000-02.com.mikrotik:other" },
	} {
		d := right
		wrong(&d)
		s.device.PutDisk(t, d)
		export()
	}
	_, err := s.Export(t.Context(), s.slot("absent"))
	is(t, err, appliance.ErrNotFound)
}

// The volumes of the existing driver: bare handle, no comment, another directory, mount-filesystem=yes (B6).
func testAdopt(t *testing.T, s scene) {
	s.device.PutDisk(t, adoptable())
	v, err := s.Get(t.Context(), adoptedSlot)
	if v.ID.String() != adoptedSlot || v.ID.Key() != "rds1/"+adoptedSlot {
		t.Errorf("handle %s, key %s", v.ID, v.ID.Key())
	}
	if err != nil || v.Owner != appliance.OwnerNone || v.Path != parse(t, adoptedPath) || v.SizeBytes != 10*gib || !v.MountFilesystem {
		t.Errorf("got %+v, %v", v, err)
	}
	for _, repaired := range []bool{true, false} { // once, and it is told
		v, err = s.Export(t.Context(), adoptedSlot)
		if err != nil || v.MountFilesystem || !v.Exported || v.NQN != appliance.NQNFor(adoptedSlot) || v.Owner != appliance.OwnerOurs || (v.Repaired != "") != repaired {
			t.Errorf("exported %+v, %v", v, err)
		}
		if v.ID.String() != adoptedSlot {
			t.Errorf("its handle became %s", v.ID)
		}
	}
	if d := s.device.Disks(t)[adoptedSlot]; d.MountFilesystem || !d.Exported || d.Cluster != "homelab" || d.Name != adoptedSlot {
		t.Errorf("on the device: %+v", d)
	}
	copied := "/storage-pool/k8s/" + path.Base(adoptedPath)
	s.device.PutFile(t, copied)
	if err := s.Delete(t.Context(), adoptedSlot); err != nil {
		t.Error(err)
	}
	if disks, files := s.device.Disks(t), s.device.Files(t); len(disks) != 0 || !slices.Equal(files, []string{copied}) {
		t.Errorf("left: %+v %v", disks, files)
	}
}

func testMounted(t *testing.T, s scene) {
	d := adoptable()
	d.Mounted = true
	s.device.PutDisk(t, d)
	s.unchanged(t, func() {
		_, err := s.Export(t.Context(), adoptedSlot)
		is(t, err, appliance.ErrMounted)
	})
}

func testCapacity(t *testing.T, s scene) {
	before, err := s.Capacity(t.Context(), appliance.Path{})
	if err != nil || before.SizeBytes != PoolBytes || before.FreeBytes > PoolBytes || before.FreeBytes < PoolBytes/2 {
		t.Fatalf("%+v, %v", before, err)
	}
	if before.Path != s.settings.Pool || before.Filesystem == "" || before.Label == "" || before.State != "clean" {
		t.Errorf("%+v", before)
	}
	s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: tib})
	after, err := s.Capacity(t.Context(), parse(t, "/storage-pool/elsewhere"))
	if err != nil || before.FreeBytes-after.FreeBytes != tib {
		t.Errorf("after 1 TiB: %+v, %v", after, err)
	}
	_, err = s.Capacity(t.Context(), parse(t, "/no-such-pool/x"))
	is(t, err, appliance.ErrPoolNotFound)
	if err != nil && !strings.Contains(err.Error(), "/no-such-pool/x") {
		t.Errorf("%q does not name the path", err)
	}
}

// B15: a look-up that failed says nothing about what is there.
func testCancelled(t *testing.T, s scene) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, create := s.Create(ctx, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	_, get := s.Get(ctx, s.slot("pvc-1"))
	_, export := s.Export(ctx, s.slot("pvc-1"))
	_, capacity := s.Capacity(ctx, appliance.Path{})
	_, expand := s.Expand(ctx, s.slot("pvc-1"), gib, 0)
	list, listed := s.List(ctx)
	for what, err := range map[string]error{
		"create": create, "get": get, "export": export, "expand": expand, "capacity": capacity, "list": listed, "delete": s.Delete(ctx, s.slot("pvc-1")),
	} {
		if err == nil || errors.Is(err, appliance.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(list) != 0 {
		t.Errorf("listed %+v", list)
	}
}
