package sim_test

import (
	"os"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/sim"
)

// /disk shows paths with a leading slash, /file without one: a mismatch here once cost somebody 114 live volumes.
func TestFileNamesHaveNoLeadingSlash(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("a", "")
	r.prints(`:put [/disk get a file-path]`, "/storage-pool/k8s/a.img")
	r.prints(`:put [:len [/file find name="storage-pool/k8s/a.img"]]`, "1")
	r.prints(`:put [:len [/file find name="/storage-pool/k8s/a.img"]]`, "0")
	r.ok(`/file remove [find name="/storage-pool/k8s/a.img"]`) // finds nothing, says nothing
	if _, ok := r.Device.File("storage-pool/k8s/a.img"); !ok {
		t.Error("the file is gone")
	}
}

func TestFileProperties(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("a", "")
	r.ok(`/file add name=notes.txt contents="a; b"`)
	for name, want := range map[string]string{
		"storage-pool": "disk", "storage-pool/k8s": "directory", "storage-pool/k8s/a.img": ".img file", "notes.txt": ".txt file",
	} {
		r.prints(`:put [/file get `+name+` type]`, want)
	}
	r.prints(`:put [/file get storage-pool/k8s/a.img size]`, "1073741824")
	r.prints(`:put [/file get notes.txt contents]`, "a; b")
	r.ok(`/file set notes.txt contents="c"`)
	r.prints(`:put [/file get notes.txt contents]`, "c")
	r.prints(`:put [:len [/file get notes.txt last-modified]]`, "19")
}

func TestFileAddRefuses(t *testing.T) {
	r := start(t, sim.Options{})
	r.ok(`/file add name=storage-pool/d type=directory`)
	for command, want := range map[string]string{
		`name=storage-pool/d type=directory`: "failure: file already exists",
		`name=storage-pool/d/../x`:           "invalid value for argument name",
		`name=storage-pool/x type=pipe`:      "input does not match any value of type",
		`type=directory`:                     "missing value(s) of argument(s) name",
		`name=` + strings.Repeat("x", 300):   "invalid value for argument name",
	} {
		r.fails(`/file add `+command, want)
	}
}

func TestRemoveUsedFile(t *testing.T) {
	for value, stays := range map[string]bool{"allow": false, "refuse": true} {
		r := start(t, quirk("remove-used-file", value))
		r.add("a", oneExport)
		out := r.run(`/file remove [find name="storage-pool/k8s/a.img"]`)
		if _, ok := r.Device.File("storage-pool/k8s/a.img"); ok != stays || (out == "") == stays {
			t.Errorf("%s: printed %q, the file is there: %v", value, out, ok)
		}
		if _, ok := r.Device.Disk("a"); !ok {
			t.Errorf("%s: the item has gone with its file", value)
		}
		r.prints(`:put [/disk get a block-device]`, map[bool]string{true: "true", false: "false"}[stays])
	}
}

func TestDirectoriesAndPoolsAreNotRemovedWithWhatIsInThem(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("a", "")
	r.fails(`/file remove storage-pool/k8s`, "failure: directory is not empty")
	r.fails(`/file remove storage-pool`, "failure: cannot remove a disk")
	r.fails(`/file remove absent`, "no such item")
	if _, ok := r.Device.File("storage-pool/k8s/a.img"); !ok {
		t.Error("the file is gone")
	}
}

func TestBackingFilesAreSparse(t *testing.T) {
	r := start(t, sim.Options{})
	r.ok(`/disk add type=file file-path=storage-pool/big.img file-size=900G slot=big`)
	big, _ := r.Device.Disk("big")
	info, err := os.Stat(big.HostFile)
	if err != nil || info.Size() != 900<<30 {
		t.Fatal(info, err)
	}
	r.fails(`/disk add type=file file-path=storage-pool/more.img file-size=900G slot=more`, "no space left")
}
