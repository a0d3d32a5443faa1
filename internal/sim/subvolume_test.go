package sim_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/sim"
)

const subvolumes = `/disk/btrfs/subvolume`

// addVolume makes a subvolume that holds one image with a text in it, as an exported item.
func (r *rig) addVolume(t *testing.T, name string) string {
	t.Helper()
	if _, ok := r.Device.File("storage-pool/k8s"); !ok {
		r.ok(subvolumes + `/add fs=storage-pool-fs name=k8s`)
	}
	r.ok(subvolumes + `/add fs=storage-pool-fs name=k8s/` + name)
	r.ok(`/disk add type=file slot=` + name + ` file-path=/storage-pool/k8s/` + name + `/volume.img file-size=4M mount-filesystem=no`)
	on, _ := r.Device.Disk(name)
	writeAt(t, on.HostFile, 4096, "first")
	return on.HostFile
}

func TestSubvolumesLookLikeDirectoriesAndAreListed(t *testing.T) {
	r := start(t, sim.Options{})
	r.addVolume(t, "a")
	r.prints(`:put [/file get [find name="storage-pool/k8s/a"] type]`, "directory")
	get := func(prop string) string { return `:put [` + subvolumes + `/get [find where name="a"] ` + prop + `]` }
	r.prints(get("fullname"), "k8s/a")
	r.prints(get("top-level"), "k8s")
	r.prints(get("fs"), "storage-pool-fs")
	r.prints(get("snapshot"), "false")
	r.prints(`:put [`+subvolumes+`/get [find where name="k8s"] top-level]`, "<FS_ROOT>")
	if out := r.run(subvolumes + `/print detail`); !strings.HasPrefix(out, "Flags: * - DEFAULT\r\n") || !strings.Contains(out, `name="<FS_ROOT>"`) {
		t.Errorf("printed %q", out)
	}
	r.fails(subvolumes+`/remove [find where default=true]`, "failure: ")
}

func TestSnapshotsKeepWhatWasThere(t *testing.T) {
	r := start(t, sim.Options{})
	image := r.addVolume(t, "a")
	r.ok(subvolumes + `/add read-only=yes parent=a fs=storage-pool-fs name=k8s/snap`)
	r.ok(subvolumes + `/add parent=snap fs=storage-pool-fs name=k8s/b`)
	writeAt(t, image, 4096, "later")
	snap := filepath.Join(filepath.Dir(filepath.Dir(image)), "snap", "volume.img")
	clone := filepath.Join(filepath.Dir(filepath.Dir(image)), "b", "volume.img")
	writeAt(t, clone, 8192, "mine")
	for file, want := range map[string]string{image: "later", snap: "first", clone: "first"} {
		if got := readAt(t, file, 4096, 5); got != want {
			t.Errorf("%s holds %q, want %q", file, got, want)
		}
	}
	if got := readAt(t, snap, 8192, 4); got == "mine" {
		t.Error("what is written to a clone reaches the snapshot")
	}
	r.prints(`:put [`+subvolumes+`/get [find where name="snap"] parent]`, "a")

	// read-only is read-only
	r.fails(`/file add name=storage-pool/k8s/snap/x type=file`, "read-only file system")
	r.fails(`/file remove [find name="storage-pool/k8s/snap/volume.img"]`, "read-only file system")
	r.fails(`/disk add type=file slot=s file-path=/storage-pool/k8s/snap/volume.img`, "read-only file system")
	r.ok(`/disk add type=file slot=b file-path=/storage-pool/k8s/b/volume.img file-size=4M`)

	// a snapshot outlives what it was taken of
	r.ok(`/disk remove a`)
	r.ok(subvolumes + `/remove [find where name="a"]`)
	if _, err := os.Stat(image); err == nil {
		t.Error("the subvolume is gone and its file is not")
	}
	r.prints(`:put [`+subvolumes+`/get [find where name="snap"] parent]`, "")
	if got := readAt(t, snap, 4096, 5); got != "first" {
		t.Errorf("the snapshot holds %q", got)
	}
}

func TestSnapshotsTakeNoSpace(t *testing.T) {
	r := start(t, sim.Options{})
	r.addVolume(t, "a")
	free := r.run(`:put [/disk get storage-pool free]`)
	r.ok(subvolumes + `/add read-only=yes parent=a fs=storage-pool-fs name=snap`)
	r.prints(`:put [/disk get storage-pool free]`, strings.TrimSpace(free))
	r.ok(subvolumes + `/remove [find where name="snap"]`)
	r.prints(`:put [/disk get storage-pool free]`, strings.TrimSpace(free))
}

func TestSubvolumeRefusals(t *testing.T) {
	r := start(t, sim.Options{})
	r.addVolume(t, "a")
	r.ok(`/file add name=storage-pool/plain type=directory`)
	for command, want := range map[string]string{
		`add name=x`:                                        "missing value(s) of argument(s) fs",
		`add fs=storage-pool-fs`:                            "missing value(s) of argument(s) name",
		`add fs=raid10-fs name=x`:                           "input does not match any value of fs",
		`add fs=storage-pool name=x`:                        "input does not match any value of fs",
		`add fs=storage-pool-fs name=k8s/a`:                 "File exists",
		`add fs=storage-pool-fs name=plain`:                 "File exists",
		`add fs=storage-pool-fs name=none/x`:                "No such file or directory",
		`add fs=storage-pool-fs name=../x`:                  "invalid value for argument name",
		`add fs=storage-pool-fs name=x parent=none`:         "input does not match any value of parent",
		`add fs=storage-pool-fs name=x parent=plain`:        "input does not match any value of parent",
		`remove [find where name="k8s"]`:                    "Directory not empty",
		`set [find where name="a"] name=b`:                  "failure: ",
		`add fs=storage-pool-fs name=x read-only=perhaps`:   "input does not match any value of read-only",
		`remove none`:                                       "no such item",
		`add fs=storage-pool-fs name=x parent="<FS_ROOT>"`:  "input does not match any value of parent",
		`add fs=storage-pool-fs name=k8s/a/volume.img/deep`: "No such file or directory",
	} {
		r.fails(subvolumes+`/`+command, want)
	}
	r.ok(subvolumes + `/remove [find where name="none"]`)
	r.ok(subvolumes + `/add fs=storage-pool-fs name=plain/x`)
	r.fails(`/file remove [find name="storage-pool/plain/x"]`, "failure: ")

	r = start(t, quirk("subvolume-in-directory", "error"))
	r.ok(`/file add name=storage-pool/plain type=directory`)
	r.fails(subvolumes+`/add fs=storage-pool-fs name=plain/x`, "No such file or directory")
}

func TestSubvolumeRemoval(t *testing.T) {
	for value, left := range map[string]string{"at-once": "0", "dead": "1"} {
		r := start(t, quirk("subvolume-removal", value, "reboot-time", "1ms"))
		r.ok(subvolumes + `/add fs=storage-pool-fs name=x`)
		r.ok(subvolumes + `/remove [find where name="x"]`)
		r.prints(`:put [:len [`+subvolumes+`/find where name="x"]]`, left)
		r.prints(`:put [:len [`+subvolumes+`/find where name="x" and dead=false]]`, "0")
		if _, ok := r.Device.File("storage-pool/x"); ok {
			t.Errorf("%s: the directory is still there", value)
		}
		r.ok(subvolumes + `/add fs=storage-pool-fs name=x`)
		if err := r.Device.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		r = &rig{Server: r.Server, tb: t}
		r.admin = r.dial("admin", r.adminAuth())
		r.prints(`:put [:len [`+subvolumes+`/find where name="x"]]`, "1")
	}
}

func TestSubvolumesOfAUsedFile(t *testing.T) {
	r := start(t, quirk("remove-used-file", "refuse"))
	r.addVolume(t, "a")
	r.fails(subvolumes+`/remove [find where name="a"]`, "stop using it first")
	r.ok(`/disk remove a`)
	r.ok(subvolumes + `/remove [find where name="a"]`)
}

func TestNoBtrfsMenuBefore717(t *testing.T) {
	r := start(t, sim.Options{Version: "7.16"})
	r.fails(subvolumes+`/print`, "bad command name subvolume")
}
