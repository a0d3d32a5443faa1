package appliance_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

func (r rig) create(t *testing.T, req appliance.CreateRequest) appliance.Volume {
	t.Helper()
	v, err := r.Create(t.Context(), req)
	if err != nil {
		t.Fatalf("create %s: %v", req.Name, err)
	}
	return v
}

// subvolumes are the names of those that the device lists, in its own words.
func (d *device) subvolumes(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(d.ask(t, `:foreach i in=[/disk/btrfs/subvolume print detail as-value where default=false] do={:put ($i->"fullname")}`))
}

// On a Btrfs pool every directory of the pool's path and every volume is a subvolume; on any other pool none is.
func TestVolumesAreSubvolumesOnBtrfs(t *testing.T) {
	for filesystem, want := range map[string]string{"btrfs": "k8s\r\nk8s/%s", "xfs": ""} {
		r := startOn(t, filesystem, nil)
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		if want != "" {
			want = fmt.Sprintf(want, v.ID.Slot)
		}
		if got := r.device.subvolumes(t); got != want {
			t.Errorf("%s: %q, want %q", filesystem, got, want)
		}
		if pool, err := r.Capacity(t.Context(), appliance.Path{}); err != nil || pool.CopyOnWrite() != (filesystem == "btrfs") || pool.Label != "storage-pool-fs" {
			t.Errorf("%+v, %v", pool, err)
		}
		if err := r.Delete(t.Context(), v.ID.Slot); err != nil {
			t.Error(err)
		}
		if got := r.device.subvolumes(t); strings.Contains(got, v.ID.Slot) {
			t.Errorf("%s: left %q", filesystem, got)
		}
	}
}

// A plain directory where the pool is to be may hold subvolumes or may not [U]. If not, the error says what to do.
func TestPoolInAPlainDirectory(t *testing.T) {
	for allowed, want := range map[string]error{"accept": nil, "error": appliance.ErrUnsupported} {
		r := start(t, map[string]string{"subvolume-in-directory": allowed})
		r.device.console(t, `/file add name=storage-pool/k8s type=directory`)
		_, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", allowed, err)
		}
		if want != nil && (!strings.Contains(err.Error(), "plain directory") || len(r.server.Device.Disks()) != 0) {
			t.Errorf("%s: %v, left %+v", allowed, err, r.server.Device.Disks())
		}
	}
}

// What is left of a volume by a power loss at any point of its removal is removed by the next call, and an image that was never
// made does not stand in the way of making it.
func TestSubvolumesLeftBehind(t *testing.T) {
	r := start(t, map[string]string{"subvolume-removal": "dead"})
	slot := appliance.SlotFor("homelab", "pvc-1")
	for _, again := range []bool{false, true} {
		r.device.console(t, `:if ([:len [/file find where name="storage-pool/k8s"]]=0) do={/disk/btrfs/subvolume add fs=storage-pool-fs name=k8s}`)
		r.device.console(t, `/disk/btrfs/subvolume add fs=storage-pool-fs name=k8s/`+slot)
		if again {
			r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		}
		if err := r.Delete(t.Context(), slot); err != nil {
			t.Errorf("made again %t: %v", again, err)
		}
		if _, err := os.Stat(r.device.host("/storage-pool/k8s/" + slot)); err == nil {
			t.Error("the subvolume is still there")
		}
	}
}

// A subvolume goes with all that is in it, so it stays when somebody has put something of his own there.
func TestSubvolumeWithSomethingElseInIt(t *testing.T) {
	r := start(t, nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	r.device.write(t, v.Path.Dir().Disk()+"/notes.txt", []byte("mine"))
	if err := r.Delete(t.Context(), v.ID.Slot); !errors.Is(err, appliance.ErrLeftover) {
		t.Errorf("%v", err)
	}
	if files := r.device.Files(t); len(files) != 1 || !strings.HasSuffix(files[0], "/notes.txt") {
		t.Errorf("left: %v", files)
	}
}

// A subvolume of the same name in another place is a backup that somebody keeps, even when it is the same place of another pool.
func TestSubvolumesOfTheSameNameStay(t *testing.T) {
	r := start(t, nil)
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	s := r.snapshot(t, "snapshot-1", v.ID.Slot)
	for _, parent := range []string{v.ID.Slot, s.Path.Dir().Base()} {
		r.device.console(t, `:if ([:len [/file find where name="storage-pool/keep"]]=0) do={/disk/btrfs/subvolume add fs=storage-pool-fs name=keep}`)
		r.device.console(t, `:if ([:len [/file find where name="raid1/k8s"]]=0) do={/disk/btrfs/subvolume add fs=raid1-fs name=k8s}`)
		r.device.console(t, `/disk/btrfs/subvolume add fs=raid1-fs name=k8s/`+parent)
		if parent == v.ID.Slot {
			r.device.console(t, `/disk/btrfs/subvolume add fs=storage-pool-fs name=keep/`+parent+` parent=`+parent+` read-only=yes`)
		}
	}
	if err := errors.Join(r.Delete(t.Context(), v.ID.Slot), r.DeleteSnapshot(t.Context(), s.ID.Slot)); err != nil {
		t.Error(err)
	}
	want := strings.Join([]string{"k8s", "keep", "k8s", "k8s/" + v.ID.Slot, "keep/" + v.ID.Slot, "k8s/" + s.Path.Dir().Base()}, "\r\n")
	if got := r.device.subvolumes(t); got != want {
		t.Errorf("left %q, want %q", got, want)
	}
}

// A volume that was there before, as a plain file on a Btrfs pool, goes on working.
func TestFlatVolumesOnBtrfsGoOn(t *testing.T) {
	r := start(t, nil)
	slot := appliance.SlotFor("homelab", "pvc-1")
	r.device.PutDisk(t, flatDisk(slot))
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib, Pool: path(t, "/storage-pool/k8s")})
	if v.Path.Base() != slot+".img" {
		t.Errorf("%+v", v)
	}
	if v, err := r.Expand(t.Context(), slot, 2*gib, 0); err != nil || v.SizeBytes != 2*gib {
		t.Errorf("%+v, %v", v, err)
	}
	if err := r.Delete(t.Context(), slot); err != nil || len(r.device.Files(t)) != 0 {
		t.Errorf("%v, left %v", err, r.device.Files(t))
	}
}
