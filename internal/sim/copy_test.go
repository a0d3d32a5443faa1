package sim_test

import (
	"os"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/sim"
)

func (r *rig) adminAuth() ssh.AuthMethod { return ssh.PublicKeys(r.AdminSigner) }

func (r *rig) hostFile(name string) string {
	r.tb.Helper()
	file, ok := r.Device.File(name)
	if !ok {
		r.tb.Fatalf("no %s", name)
	}
	return file
}

func TestFileCopy(t *testing.T) {
	r := start(t, sim.Options{})
	r.add("a", "")
	a, _ := r.Device.Disk("a")
	writeAt(t, a.HostFile, 1<<29, "in the middle")
	r.ok(`/file/copy "storage-pool/k8s/a.img" name="raid10/b.img"`)
	b := r.hostFile("raid10/b.img")
	if info, err := os.Stat(b); err != nil || info.Size() != 1<<30 || readAt(t, b, 1<<29, 13) != "in the middle" {
		t.Errorf("%v, %v", info, err)
	}
	r.ok(`/file copy [find name="raid10/b.img"] name=raid10/c.img`)
	writeAt(t, b, 0, "b only")
	if got := readAt(t, r.hostFile("raid10/c.img"), 0, 6); got == "b only" {
		t.Error("a copy follows its source")
	}
	for command, want := range map[string]string{
		`storage-pool/k8s/a.img name=raid10/b.img`:   "file already exists",
		`storage-pool/k8s/none.img name=raid10/x`:    "no such item",
		`storage-pool/k8s/a.img name=raid10/none/x`:  "failure: no such directory",
		`storage-pool/k8s/a.img name=x.img`:          "failure: no space left on disk", // the flash
		`storage-pool/k8s/a.img name=../x`:           "invalid value for argument name",
		`storage-pool/k8s name=raid10/x`:             "failure: file is a directory",
		`storage-pool/k8s/a.img raid10/b.img name=x`: "",
	} {
		r.fails(`/file/copy `+command, want)
	}
}

func TestFileCopyOverwrites(t *testing.T) {
	r := start(t, quirk("file-copy-existing", "overwrite"))
	r.ok(`/file add name=storage-pool/a contents=new`)
	r.ok(`/file add name=storage-pool/b contents="much older"`)
	r.ok(`/file/copy storage-pool/a name=storage-pool/b`)
	r.prints(`:put [/file get storage-pool/b contents]`, "new")
}

func TestFileCopyIsOf723(t *testing.T) {
	for version, want := range map[string]string{"7.22": "bad command name copy", "7.23": ""} {
		r := start(t, sim.Options{Version: version})
		r.ok(`/file add name=storage-pool/a contents=x`)
		r.fails(`/file copy storage-pool/a name=storage-pool/b`, want)
	}
}

// What :execute returns finds its job in a where clause, or silently does not; as text it is the same.
func TestWhatExecuteReturns(t *testing.T) {
	for form, found := range map[string]string{"id": "1", "text": "0"} {
		r := start(t, quirk("file-copy-time", "1h", "execute-returns", form))
		r.add("a", "")
		r.prints(`:local j [:execute script="/file/copy storage-pool/k8s/a.img name=storage-pool/b.img"]; :put [:len [/system/script/job find where .id=$j]]`, found)
		r.prints(`:local w 0; :foreach n in=[/system/script/job find] do={:if (("" . $n)="*1") do={:set w ($w+1)}}; :put $w`, "1")
	}
}

// A job goes on when the session that began it is gone, and ends with a reboot; what it has copied by then stays.
func TestCopyInTheBackground(t *testing.T) {
	r := start(t, quirk("file-copy-time", "1h", "reboot-time", "1ms"))
	r.add("a", "")
	out := r.run(`:put [:execute script="/file/copy storage-pool/k8s/a.img name=storage-pool/b.img; /file add name=storage-pool/done"]`)
	if out != "*1\r\n" {
		t.Errorf("execute printed %q", out)
	}
	within(t, "the copy begins", func() bool { _, ok := r.Device.File("storage-pool/b.img"); return ok })
	r.prints(`:put [:len [/system/script/job find where .id=*1]]`, "1")
	if err := r.admin.Close(); err != nil {
		t.Fatal(err)
	}
	if r.Device.Jobs() != 1 {
		t.Error("the job ended with its session")
	}
	if err := r.Device.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(r.hostFile("storage-pool/b.img"))
	if r.Device.Jobs() != 0 || err != nil || info.Size() == 1<<30 {
		t.Errorf("after the reboot: %d jobs, %v, %v", r.Device.Jobs(), info, err)
	}
	if _, ok := r.Device.File("storage-pool/done"); ok {
		t.Error("the script went on after a copy that was cut off")
	}
}

func TestCopyGrowsOrIsLargeAtOnce(t *testing.T) {
	for value, want := range map[string]bool{"grows": false, "at-once": true} {
		r := start(t, quirk("file-copy-time", "1h", "file-copy-size", value))
		r.add("a", "")
		r.run(`:execute script="/file/copy storage-pool/k8s/a.img name=storage-pool/b.img"`)
		within(t, "the copy begins", func() bool { _, ok := r.Device.File("storage-pool/b.img"); return ok })
		within(t, value, func() bool {
			info, err := os.Stat(r.hostFile("storage-pool/b.img"))
			return err == nil && (info.Size() == 1<<30) == want
		})
		r.ok(`/system/script/job remove [find]`)
		within(t, "the job ends", func() bool { return r.Device.Jobs() == 0 })
	}
}

func TestCopyThatReturnsAtOnce(t *testing.T) {
	r := start(t, quirk("file-copy-time", "1h", "file-copy-returns", "started"))
	r.add("a", "")
	r.ok(`/file/copy storage-pool/k8s/a.img name=storage-pool/b.img`)
	if r.Device.Jobs() != 1 {
		t.Error("nothing is being copied")
	}
}

func TestCopyOfWhatDoesNotFitLeavesSomething(t *testing.T) {
	r := start(t, sim.Options{Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: "xfs", SizeBytes: 3 << 29}}})
	r.add("a", "")
	r.fails(`/file/copy storage-pool/k8s/a.img name=storage-pool/b.img`, "failure: no space left on disk")
	if _, ok := r.Device.File("storage-pool/b.img"); !ok {
		t.Error("a copy that failed in the middle leaves nothing: too kind")
	}
}

// What a script may do in the background is what its user may do.
func TestExecuteHasThePoliciesOfItsUser(t *testing.T) {
	r := start(t, sim.Options{})
	for _, script := range []string{"/system reboot", "/file add name=storage-pool/x contents=y"} { // csi may not reboot
		if res := execOn(r.csi, `:execute script="`+script+`"`); res.out != "" || res.err != nil {
			t.Errorf("%s: %+v", script, res)
		}
		within(t, "jobs end", func() bool { return r.Device.Jobs() == 0 })
	}
	r.prints(`:put [/file get storage-pool/x contents]`, "y")
	r.prints(`:put [/system/clock get gmt-offset]`, "+00:00")
}
