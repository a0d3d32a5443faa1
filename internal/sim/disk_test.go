package sim_test

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/sim"
)

const oneExport = `nvme-tcp-export=yes nvme-tcp-server-port=4420 nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:pvc-1"`

func TestAddMakesFileItemAndExportInOneCommand(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("pvc-1", oneExport)
	got, ok := r.Device.Disk("pvc-1")
	if !ok || !got.Export || !got.Up || got.Port != 4420 || got.NQN != "nqn.2000-02.com.mikrotik:pvc-1" ||
		got.FilePath != "/storage-pool/k8s/pvc-1.img" || got.FileSize != 1<<30 || got.MountFilesystem {
		t.Fatalf("the item is %+v", got)
	}
	info, err := os.Stat(got.HostFile)
	if err != nil || info.Size() != 1<<30 {
		t.Fatalf("the backing file: %v, %v", info, err)
	}
	for prop, want := range map[string]string{
		"file-size": "1073741824", "size": "1073741824", "nvme-tcp-export": "true", "mount-filesystem": "false",
		"file-path": "/storage-pool/k8s/pvc-1.img", "fs": "-", "block-device": "true", "mounted": "false",
		"nvme-tcp-server-allow-host-name": "", "sector-size": "512", "slot-default": "",
	} {
		r.prints(`:put [/disk get pvc-1 `+prop+`]`, want)
	}
}

func TestAddYieldsTheIDAndDefaults(t *testing.T) {
	r := start(t, sim.Options{})
	out := r.run(`:put [/disk/add type=file file-path=storage-pool/swap.img file-size=512M]`)
	got, ok := r.Device.Disk("file-storage-pool-swap.img")
	if !ok || out != got.ID+"\r\n" || got.ID[0] != '*' {
		t.Fatalf("add printed %q, the item is %+v", out, got)
	}
	if !got.MountFilesystem || got.Export || got.FileSize != 512<<20 || got.FilePath != "/storage-pool/swap.img" {
		t.Errorf("defaults: %+v", got)
	}
	r.prints(`:put [:len [/disk find where nvme-tcp-server-port=4420]]`, "0") // absent until it is set
	r.ok(`/disk set [find slot="file-storage-pool-swap.img"] nvme-tcp-export=yes`)
	r.prints(`:put [/disk get file-storage-pool-swap.img nvme-tcp-server-port]`, "4420")
}

func TestAddRefusesWhatItCannotDo(t *testing.T) {
	r := start(t, sim.Options{Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: "btrfs", SizeBytes: 1 << 30}}})
	r.ok(`/disk add type=file file-path=storage-pool/a.img file-size=100M slot=a nvme-tcp-export=yes nvme-tcp-server-nqn=nqn.a`)
	for command, want := range map[string]string{
		`slot=b file-size=1M`:                                       "missing value(s) of argument(s) file-path",
		`slot=b file-path=storage-pool/b.img`:                       "missing value(s) of argument(s) file-size",
		`slot=b file-path=storage-pool/b.img file-size=2G`:          "failure: no space left on disk",
		`slot=b file-path=storage-pool/b.img file-size=1X`:          "invalid value for argument file-size",
		`slot=b file-path=../b.img file-size=1M`:                    "invalid value for argument file-path",
		`slot=b file-path=b.img file-size=200M`:                     "failure: no space left on disk", // the flash
		`slot=b file-path=storage-pool/n/b.img file-size=1M`:        "failure: no such directory",
		`slot=a file-path=storage-pool/b.img file-size=1M`:          "failure: already have disk with such slot",
		`slot=storage-pool file-path=storage-pool/b file-size=1M`:   "failure: already have disk with such slot",
		`slot=b file-path=storage-pool file-size=1M`:                "failure: file is a directory",
		`slot=b file-path=storage-pool/b file-size=1M compress=si`:  "input does not match any value of compress",
		`slot=b file-path=storage-pool/b file-size=1M compress=yes`: "compression only available for btrfs",
		`slot=b file-path=storage-pool/b file-size=1M nvme-tcp-server-port=0`: "value of nvme-tcp-server-port out of range" +
			" (1..65535)",
		`slot=b file-path=storage-pool/b file-size=1M nvme-tcp-export=yes nvme-tcp-server-nqn=nqn.a`: "failure: already have",
		`slot=b file-path=storage-pool/b file-size=1M nvme-tcp-server-nqn="a/b"`:                     "invalid value for argument",
	} {
		r.fails(`/disk add type=file `+command, want)
	}
	r.fails(`/disk add type=tmpfs slot=b`, "failure: ")
	r.fails(`/disk add type=nonsense slot=b`, "input does not match any value of type")
	r.fails(`/disk add slot=b file-path=storage-pool/b file-size=1M`, "missing value(s) of argument(s) type")
	if got := r.Device.Disks(); len(got) != 1 {
		t.Errorf("there are %+v", got)
	}
	if _, ok := r.Device.File("storage-pool/b"); ok {
		t.Error("a file was left behind")
	}
}

func TestSlotOver32(t *testing.T) {
	long := "pvc-" + strings.Repeat("a", 36)
	for value, want := range map[string]string{"truncate": long[:32], "accept": long} {
		r := start(t, quirk("slot-over-32", value))
		r.add(long, "")
		if _, ok := r.Device.Disk(want); !ok {
			t.Errorf("%s: there are %+v", value, r.Device.Disks())
		}
	}
	r := start(t, sim.Options{})
	r.fails(`/disk add type=file file-path=storage-pool/x.img file-size=1M slot=`+long, "invalid value for argument slot")
	r.add(long[:32], "")
}

func TestDuplicateSlotAccepted(t *testing.T) {
	r := start(t, quirk("duplicate-slot", "accept"))
	r.add("a", "")
	r.ok(`/disk add type=file file-path=storage-pool/other.img file-size=1M slot=a`)
	r.prints(`:put [:len [/disk find slot=a]]`, "2")
}

func TestExistingFile(t *testing.T) {
	for value, want := range map[string]string{"reuse": "", "error": "failure: file already exists"} {
		r := start(t, quirk("existing-file", value))
		r.add("a", "")
		a, _ := r.Device.Disk("a")
		writeAt(t, a.HostFile, 4096, "old data")
		r.ok(`/disk remove a`)
		out := r.run(`/disk add type=file file-path=storage-pool/k8s/a.img file-size=1M slot=b`)
		if !strings.HasPrefix(out, want) || (out == "") != (want == "") {
			t.Errorf("%s: add printed %q", value, out)
		}
		if got := readAt(t, a.HostFile, 4096, 8); got != "old data" {
			t.Errorf("%s: the old data is now %q", value, got)
		}
		if b, ok := r.Device.Disk("b"); ok != (want == "") || ok && b.FileSize != 1<<30 {
			t.Errorf("%s: the item is %+v", value, b)
		}
	}
}

func TestExistingFileGrowsToWhatIsAskedFor(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("a", "")
	r.ok(`/disk remove a`)
	r.ok(`/disk add type=file file-path=storage-pool/k8s/a.img file-size=2G slot=b`)
	if b, _ := r.Device.Disk("b"); b.FileSize != 2<<30 {
		t.Errorf("%+v", b)
	}
	r.ok(`/disk remove b`)
	r.ok(`/disk add type=file file-path=storage-pool/k8s/a.img file-size=auto slot=c`)
	if c, _ := r.Device.Disk("c"); c.FileSize != 2<<30 {
		t.Errorf("%+v", c)
	}
}

func TestMissingDirectory(t *testing.T) {
	r := start(t, quirk("missing-directory", "create"))
	r.ok(`/disk add type=file file-path=storage-pool/a/b/x.img file-size=1M slot=x`)
	r.ok(`/file add name=storage-pool/c/d type=directory`)
	for _, dir := range []string{"storage-pool/a/b", "storage-pool/c/d"} {
		if _, ok := r.Device.File(dir); !ok {
			t.Errorf("no %s", dir)
		}
	}
	r = start(t, sim.Options{})
	r.fails(`/file add name=storage-pool/c/d type=directory`, "failure: no such directory")
}

func TestNewFileContent(t *testing.T) {
	for value, blank := range map[string]bool{"zero": true, "random": false} {
		r := start(t, quirk("new-file-content", value))
		r.add("a", "")
		a, _ := r.Device.Disk("a")
		for _, at := range []int64{0, 1<<30 - 4096} {
			if got := readAt(t, a.HostFile, at, 4096) == strings.Repeat("\x00", 4096); got != blank {
				t.Errorf("%s: at %d blank is %v", value, at, got)
			}
		}
	}
}

func TestShrink(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("a", "")
	r.fails(`/disk set a file-size=1M`, "failure: file-size cannot be made smaller")
	if err := r.Device.SetQuirk("shrink", "accept"); err != nil {
		t.Fatal(err)
	}
	r.ok(`/disk set a file-size=1M`)
	if a, _ := r.Device.Disk("a"); a.FileSize != 1<<20 {
		t.Errorf("%+v", a)
	}
}

func TestGrowth(t *testing.T) {
	r := start(t, sim.Options{Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: "btrfs", SizeBytes: 8 << 30}}})
	r.add("a", oneExport)
	r.ok(`/disk set [find slot="a"] file-size=2147483648`)
	r.prints(`:put [/disk get a size]`, "2147483648")
	r.fails(`/disk set a file-size=9G`, "failure: no space left on disk")
	r.prints(`:put [/disk get a size]`, "2147483648")
	r.ok(`/disk set [find slot="absent"] file-size=1`) // an empty list does nothing and says nothing
	r.fails(`/disk set absent file-size=1`, "no such item")
}

// B10 of the existing driver rests on this: removing the item does not remove the file.
func TestRemoveLeavesTheFile_B10(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("a", oneExport)
	a, _ := r.Device.Disk("a")
	r.ok(`/disk remove [find slot="a"]`)
	if _, ok := r.Device.Disk("a"); ok {
		t.Error("the item is still there")
	}
	if _, err := os.Stat(a.HostFile); err != nil {
		t.Error(err)
	}
	r.fails(`/disk remove a`, "no such item")
	r.ok(`/disk remove [find slot="a"]`)
}

func TestRemoveWhileConnected(t *testing.T) {
	r := start(t, quirk("remove-while-connected", "refuse"))
	r.add("a", oneExport)
	r.Device.PretendHosts("a", 1)
	r.fails(`/disk remove a`, "failure: could not remove, stop using it first")
	r.Device.PretendHosts("a", 0)
	r.ok(`/disk remove a`)
	r = start(t, sim.Options{})
	r.add("a", oneExport)
	r.Device.PretendHosts("a", 1)
	r.ok(`/disk remove a`)
}

func TestHardwareAndPoolsCannotBeChanged(t *testing.T) {
	r := start(t, sim.Options{})
	for _, command := range []string{`remove nvme1`, `remove storage-pool`, `set raid10 slot=x`} {
		r.fails(`/disk `+command, "failure: ")
	}
}

func TestCopyFromCopiesSettingsAndNoData(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("a", `comment="mine" nvme-tcp-server-port=4421`)
	a, _ := r.Device.Disk("a")
	writeAt(t, a.HostFile, 0, "precious")
	r.ok(`/disk add type=file copy-from=a slot=b file-path=storage-pool/k8s/b.img`)
	b, ok := r.Device.Disk("b")
	if !ok || b.FileSize != a.FileSize || b.Comment != "mine" || b.Port != 4421 || b.MountFilesystem {
		t.Errorf("the copy is %+v", b)
	}
	if got := readAt(t, b.HostFile, 0, 8); got != strings.Repeat("\x00", 8) {
		t.Errorf("the copy has data: %q", got)
	}
	r.ok(`/disk set a ` + oneExport)
	r.ok(`/disk add type=file copy-from=a slot=c file-path=storage-pool/k8s/c.img nvme-tcp-server-nqn=nqn.c`)
	a, _ = r.Device.Disk("a")
	if c, ok := r.Device.Disk("c"); !ok || !c.Up || c.UUID == a.UUID || c.Serial == a.Serial {
		t.Errorf("an exported item %+v and its copy %+v", a, c)
	}
	r.fails(`/disk add type=file copy-from=a slot=d file-path=storage-pool/k8s/d.img`, "failure: already have disk with such")
	r.fails(`/disk add type=file copy-from=absent slot=c file-path=storage-pool/k8s/c.img`, "no such item")
}

// The device mounts what it recognises, unless mount-filesystem=no: two writers on one file system.
func TestMountFilesystemIsATrap(t *testing.T) {
	r := start(t, quirk("reboot-time", "0s"))
	r.add("a", "")
	a, _ := r.Device.Disk("a")
	writeAt(t, a.HostFile, 0x438, "\x53\xef") // as mkfs.ext4 on a host leaves it
	mounted := func(want bool, after string) {
		t.Helper()
		if got, _ := r.Device.Disk("a"); got.Mounted != want {
			t.Errorf("%s: mounted %v", after, got.Mounted)
		}
	}
	mounted(false, "mount-filesystem=no")
	r.ok(`/disk set a mount-filesystem=yes`)
	mounted(true, "mount-filesystem=yes")
	r.prints(`:put [/disk get a fs]`, "ext4")
	r.ok(`/disk set a mount-filesystem=no`)
	mounted(false, "mount-filesystem=no again")
	r.ok(`/disk remove a`)
	r.ok(`/disk add type=file slot=a file-path=storage-pool/k8s/a.img file-size=1G`)
	mounted(true, "added anew with the default")
	if err := r.Device.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	mounted(true, "a reboot")
}

func TestFreeSpaceIsWhatFilesLeave(t *testing.T) {
	r := start(t, sim.Options{Pools: []sim.Pool{
		{Slot: "storage-pool", Filesystem: "btrfs", SizeBytes: 10 << 30}, {Slot: "raid10", Filesystem: "xfs", SizeBytes: 10 << 30},
	}})
	r.prints(`:put ([/disk get storage-pool free] < [/disk get storage-pool size])`, "true")
	r.add("a", "")
	r.prints(`:put ([/disk get storage-pool size] - [/disk get storage-pool free] > 1073741824)`, "true")
	before := r.run(`:put [/disk get raid10 free]`)
	r.ok(`/disk remove a`)
	r.prints(`:put ([/disk get storage-pool size] - [/disk get storage-pool free] > 1073741824)`, "true") // the file is there
	r.ok(`/file remove [find name="storage-pool/k8s/a.img"]`)
	r.prints(`:put ([/disk get storage-pool size] - [/disk get storage-pool free] > 1073741824)`, "false")
	if after := r.run(`:put [/disk get raid10 free]`); after != before {
		t.Errorf("the other pool had %q, now %q", before, after)
	}
}

func TestEnableAndDisable(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("a", oneExport)
	r.ok(`/disk disable a`)
	if a, _ := r.Device.Disk("a"); a.Up || !a.Export {
		t.Errorf("disabled: %+v", a)
	}
	r.prints(`:put [/disk get a disabled]`, "true")
	r.ok(`/disk enable a`)
	if a, _ := r.Device.Disk("a"); !a.Up {
		t.Errorf("enabled: %+v", a)
	}
}

func writeAt(t *testing.T, file string, at int64, data string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // checked by WriteAt
	if _, err := f.WriteAt([]byte(data), at); err != nil {
		t.Fatal(err)
	}
}

func readAt(t *testing.T, file string, at int64, n int) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.NewSectionReader(f, at, int64(n))); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
