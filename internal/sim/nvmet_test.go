package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeKernel is a directory that behaves like nvmet's configfs: what is made gets its attributes, what is in use
// cannot go, a port with a subsystem keeps its address.
type fakeKernel struct {
	t        *testing.T
	root     string
	log      []string
	buffered bool // direct I/O is not possible
	fail     map[string]error
}

func newFakeKernel(t *testing.T) *fakeKernel {
	t.Helper()
	k := &fakeKernel{t: t, root: t.TempDir(), fail: map[string]error{}}
	for _, dir := range []string{"subsystems", "ports", "hosts"} {
		k.must(os.Mkdir(filepath.Join(k.root, dir), 0o750))
	}
	return k
}

func (k *fakeKernel) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// note writes down a step and tells whether the test wants it to fail.
func (k *fakeKernel) note(step, path, value string) (rel string, err error) {
	rel, err = filepath.Rel(k.root, path)
	k.must(err)
	line := strings.TrimSpace(step + " " + rel + " " + value)
	k.log = append(k.log, line)
	return rel, k.fail[line]
}

func (k *fakeKernel) mkdir(path string) error {
	rel, err := k.note("mkdir", path, "")
	if err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o750); err != nil {
		return err
	}
	parts := strings.Split(rel, "/")
	switch {
	case parts[0] == "subsystems" && len(parts) == 2:
		k.fill(path, []string{"attr_allow_any_host", "attr_serial", "attr_model", "attr_firmware"},
			[]string{"namespaces", "allowed_hosts"})
	case parts[0] == "subsystems" && len(parts) == 4 && parts[2] == "namespaces":
		k.fill(path, []string{"device_path", "device_uuid", "buffered_io", "enable", "revalidate_size"}, nil)
	case parts[0] == "ports":
		k.fill(path, []string{"addr_trtype", "addr_adrfam", "addr_traddr", "addr_trsvcid"}, []string{"subsystems"})
	case parts[0] != "hosts":
		return syscall.EPERM
	}
	return nil
}

func (k *fakeKernel) fill(path string, files, dirs []string) {
	for _, name := range files {
		k.must(os.WriteFile(filepath.Join(path, name), nil, 0o600))
	}
	for _, name := range dirs {
		k.must(os.Mkdir(filepath.Join(path, name), 0o750))
	}
}

func (k *fakeKernel) write(path, value string) error {
	rel, err := k.note("write", path, value)
	if err != nil {
		return err
	}
	if !exists(path) {
		return syscall.ENOENT
	}
	dir := filepath.Dir(path)
	if strings.HasPrefix(rel, "ports/") && len(names(filepath.Join(dir, "subsystems"))) > 0 {
		return syscall.EACCES
	}
	if filepath.Base(path) == "enable" && value == "1" && k.buffered && k.read(filepath.Join(dir, "buffered_io")) != "1" {
		return syscall.EINVAL
	}
	return os.WriteFile(path, []byte(value), 0o600)
}

func (k *fakeKernel) read(path string) string {
	data, err := os.ReadFile(path)
	k.must(err)
	return string(data)
}

func (k *fakeKernel) link(target, path string) error {
	if _, err := k.note("link", path, ""); err != nil {
		return err
	}
	if !exists(target) {
		return syscall.ENOENT
	}
	return os.Symlink(target, path)
}

func (k *fakeKernel) remove(path string) error {
	rel, err := k.note("remove", path, "")
	if err != nil {
		return err
	}
	if k.inUse(rel) {
		return fmt.Errorf("%s: %w", rel, syscall.EBUSY)
	}
	return os.RemoveAll(path)
}

// inUse is what the kernel refuses with EBUSY or ENOTEMPTY.
func (k *fakeKernel) inUse(rel string) bool {
	parts, path := strings.Split(rel, "/"), filepath.Join(k.root, rel)
	linked := func(pattern string) bool {
		found, err := filepath.Glob(filepath.Join(k.root, pattern, parts[1]))
		k.must(err)
		return len(found) > 0
	}
	switch {
	case len(parts) != 2:
		return false
	case parts[0] == "subsystems":
		return len(names(filepath.Join(path, "namespaces"))) > 0 || len(names(filepath.Join(path, "allowed_hosts"))) > 0 ||
			linked("ports/*/subsystems")
	case parts[0] == "ports":
		return len(names(filepath.Join(path, "subsystems"))) > 0
	}
	return linked("subsystems/*/allowed_hosts")
}

// take returns the steps since the last call.
func (k *fakeKernel) take() []string {
	steps := k.log
	k.log = nil
	return steps
}

// left is whatever is there.
func (k *fakeKernel) left() []string {
	var list []string
	for _, dir := range []string{"subsystems", "ports", "hosts"} {
		for _, name := range names(filepath.Join(k.root, dir)) {
			list = append(list, dir+"/"+name)
		}
	}
	return list
}

func (k *fakeKernel) options() Options {
	return Options{Users: admin(), NVMe: &NVMeOptions{
		Address: "10.42.68.1", ConfigFS: k.root, SysFS: filepath.Join(k.root, "sys"), kernel: k,
	}, Quirks: map[string]string{quirkRebootTime: "0s"}}
}

const addExported = `/disk/add type=file file-path=storage-pool/a.img file-size=1M slot=a nvme-tcp-export=yes nvme-tcp-server-nqn=nqn.a`

func TestExportIsBuiltFromTheInsideOut(t *testing.T) {
	k := newFakeKernel(t)
	d := device(t, k.options())
	d.quiet(t, addExported)
	a, _ := d.Disk("a")
	want := []string{
		"mkdir subsystems/nqn.a",
		"write subsystems/nqn.a/attr_model Linux",
		"write subsystems/nqn.a/attr_firmware 5.6.3",
		"write subsystems/nqn.a/attr_serial " + a.Serial,
		"write subsystems/nqn.a/attr_allow_any_host 1",
		"mkdir subsystems/nqn.a/namespaces/1",
		"write subsystems/nqn.a/namespaces/1/device_path " + a.HostFile,
		"write subsystems/nqn.a/namespaces/1/device_uuid " + a.UUID,
		"write subsystems/nqn.a/namespaces/1/enable 1",
		"mkdir ports/4420",
		"write ports/4420/addr_trtype tcp",
		"write ports/4420/addr_adrfam ipv4",
		"write ports/4420/addr_traddr 10.42.68.1",
		"write ports/4420/addr_trsvcid 4420",
		"link ports/4420/subsystems/nqn.a",
	}
	if diff := cmp.Diff(want, k.take()); diff != "" {
		t.Error(diff)
	}
	if len(a.Serial) != 16 || len(a.UUID) != 36 || !filepath.IsAbs(a.HostFile) {
		t.Errorf("serial %q, uuid %q, file %q", a.Serial, a.UUID, a.HostFile)
	}
	d.quiet(t, `/disk/remove a`)
	want = []string{
		"remove ports/4420/subsystems/nqn.a",
		"write subsystems/nqn.a/namespaces/1/enable 0",
		"remove subsystems/nqn.a/namespaces/1",
		"remove subsystems/nqn.a",
		"remove ports/4420",
	}
	if diff := cmp.Diff(want, k.take()); diff != "" {
		t.Error(diff)
	}
}

func TestExportsOfOnePortShareIt(t *testing.T) {
	k := newFakeKernel(t)
	d := device(t, k.options())
	d.quiet(t, addExported)
	d.quiet(t, `/disk/add type=file file-path=storage-pool/b.img file-size=1M slot=b nvme-tcp-export=yes nvme-tcp-server-nqn=nqn.b`)
	d.quiet(t, `/disk/remove a`)
	if diff := cmp.Diff([]string{"subsystems/nqn.b", "ports/4420"}, k.left()); diff != "" {
		t.Error(diff)
	}
	d.quiet(t, `/disk/set b nvme-tcp-export=no`)
	if left := k.left(); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
}

func TestRebootOpensAllExportsAtOnceAndClosesThemAtOnce(t *testing.T) {
	k := newFakeKernel(t)
	d := device(t, k.options())
	d.quiet(t, addExported)
	d.quiet(t, `/disk/add type=file file-path=storage-pool/b.img file-size=1M slot=b nvme-tcp-export=yes nvme-tcp-server-nqn=nqn.b`)
	k.take()
	if err := d.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	steps := k.take()
	at := func(step string) int {
		i := slices.Index(steps, step)
		if i < 0 {
			t.Fatalf("no step %q in %v", step, steps)
		}
		return i
	}
	if at("remove ports/4420/subsystems/nqn.b") != at("remove ports/4420/subsystems/nqn.a")+1 {
		t.Errorf("a host finds the port without its subsystem on the way down: %v", steps)
	}
	if at("link ports/4420/subsystems/nqn.b") != at("link ports/4420/subsystems/nqn.a")+1 {
		t.Errorf("a host finds the port without its subsystem on the way up: %v", steps)
	}
}

func TestIdentifiersOnReexport(t *testing.T) {
	for value, stable := range map[string]bool{"stable": true, change: false} {
		o := newFakeKernel(t).options()
		o.Quirks[quirkIdentifiers] = value
		d := device(t, o)
		d.quiet(t, addExported)
		before, _ := d.Disk("a")
		d.quiet(t, `/disk/set a nvme-tcp-export=no`)
		d.quiet(t, `/disk/set a nvme-tcp-export=yes`)
		again, _ := d.Disk("a")
		if err := d.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		rebooted, _ := d.Disk("a")
		for _, after := range []Disk{again, rebooted} {
			if (after.UUID == before.UUID) != stable || (after.Serial == before.Serial) != stable || !after.Up {
				t.Errorf("%s: %+v, then %+v", value, before, after)
			}
		}
	}
}

func TestBufferedIOOnlyWhereDirectIOIsImpossible(t *testing.T) {
	k := newFakeKernel(t)
	k.buffered = true
	d := device(t, k.options())
	d.quiet(t, addExported)
	steps := k.take()
	i := slices.Index(steps, "write subsystems/nqn.a/namespaces/1/enable 1")
	want := []string{
		"write subsystems/nqn.a/namespaces/1/enable 1",
		"write subsystems/nqn.a/namespaces/1/buffered_io 1",
		"write subsystems/nqn.a/namespaces/1/enable 1",
	}
	if diff := cmp.Diff(want, steps[i:i+3]); diff != "" {
		t.Error(diff)
	}
}

func TestAllowHostName(t *testing.T) {
	k := newFakeKernel(t)
	d := device(t, k.options())
	d.quiet(t, addExported+` nvme-tcp-server-allow-host-name=nqn.host`)
	if got := k.read(filepath.Join(k.root, "subsystems/nqn.a/attr_allow_any_host")); got != "0" {
		t.Errorf("attr_allow_any_host is %q", got)
	}
	if !exists(filepath.Join(k.root, "subsystems/nqn.a/allowed_hosts/nqn.host")) {
		t.Error("the host is not let in")
	}
	d.quiet(t, `/disk/set a nvme-tcp-server-allow-host-name=""`)
	if got := k.read(filepath.Join(k.root, "subsystems/nqn.a/attr_allow_any_host")); got != "1" {
		t.Errorf("attr_allow_any_host is %q after it was emptied", got)
	}
	if left := k.left(); slices.Contains(left, "hosts/nqn.host") {
		t.Errorf("still there: %v", left)
	}
	if out := d.script(t, `/disk/set a nvme-tcp-server-allow-host-name="../../x"`); !strings.HasPrefix(out, "failure: ") {
		t.Errorf("a path as a host name: %q", out)
	}
	if a, _ := d.Disk("a"); !a.Up || a.AllowHostName != "" {
		t.Errorf("after the failure: %+v", a)
	}
}

func TestLeftOversOfAKilledRunGoAndNobodyElses(t *testing.T) {
	k := newFakeKernel(t)
	k.must(k.mkdir(filepath.Join(k.root, "subsystems/nqn.other")))
	k.must(k.mkdir(filepath.Join(k.root, "ports/4420"))) // somebody else's: ours gets another number
	o := k.options()
	o.Dir = t.TempDir()
	first := device(t, o)
	first.quiet(t, addExported)
	want := []string{"subsystems/nqn.a", "subsystems/nqn.other", "ports/4420", "ports/4421"}
	if diff := cmp.Diff(want, k.left()); diff != "" {
		t.Fatal(diff)
	}
	k.take()
	second := device(t, o) // as after kill -9: nothing was taken away
	if a, ok := second.Disk("a"); !ok || !a.Up {
		t.Errorf("after the kill: %+v", a)
	}
	if diff := cmp.Diff(want, k.left()); diff != "" {
		t.Error(diff)
	}
	if steps := k.take(); steps[0] != "remove ports/4421/subsystems/nqn.a" {
		t.Errorf("the left-overs did not go first: %v", steps)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"subsystems/nqn.other", "ports/4420"}, k.left()); diff != "" {
		t.Error(diff)
	}
}

func TestAnExportThatCannotBeMadeLeavesNothing(t *testing.T) {
	for _, step := range []string{
		"mkdir subsystems/nqn.a", "write subsystems/nqn.a/namespaces/1/enable 1", "mkdir ports/4420",
		"write ports/4420/addr_traddr 10.42.68.1", "link ports/4420/subsystems/nqn.a",
	} {
		k := newFakeKernel(t)
		k.fail[step] = errors.New("the kernel says no")
		d := device(t, k.options())
		if out := d.script(t, addExported); !strings.HasPrefix(out, "failure: could not export") {
			t.Errorf("%s: printed %q", step, out)
		}
		if _, ok := d.Disk("a"); ok {
			t.Errorf("%s: the item is there", step)
		}
		if _, ok := d.File("storage-pool/a.img"); ok {
			t.Errorf("%s: the file is there", step)
		}
		if left := k.left(); len(left) > 0 {
			t.Errorf("%s: still there: %v", step, left)
		}
		delete(k.fail, step)
		d.quiet(t, addExported)
	}
}

func TestASubsystemOfSomebodyElseIsNotTouched(t *testing.T) {
	k := newFakeKernel(t)
	k.must(k.mkdir(filepath.Join(k.root, "subsystems/nqn.a")))
	d := device(t, k.options())
	if out := d.script(t, addExported); !strings.HasPrefix(out, "failure: could not export") {
		t.Errorf("printed %q", out)
	}
	if diff := cmp.Diff([]string{"subsystems/nqn.a"}, k.left()); diff != "" {
		t.Error(diff)
	}
}

func TestGrowthReachesHostsAsTheSwitchSays(t *testing.T) {
	const revalidate = "write subsystems/nqn.a/namespaces/1/revalidate_size 1"
	for value, want := range map[string]struct {
		notified bool
		size     int64 // of the file right after the command
	}{notify: {true, 2 << 20}, "rescan": {false, 2 << 20}, reconnect: {false, 2 << 20}, reexport: {false, 1 << 20}} {
		k := newFakeKernel(t)
		o := k.options()
		o.Quirks[quirkGrowthVisible] = value
		d := device(t, o)
		d.quiet(t, addExported)
		k.take()
		d.quiet(t, `/disk/set a file-size=2M`)
		a, _ := d.Disk("a")
		info, err := os.Stat(a.HostFile)
		if err != nil || info.Size() != want.size || a.FileSize != 2<<20 {
			t.Errorf("%s: the file has %d bytes (%v), the table says %d", value, info.Size(), err, a.FileSize)
		}
		if got := slices.Contains(k.take(), revalidate); got != want.notified {
			t.Errorf("%s: notified %v", value, got)
		}
		d.quiet(t, `/disk/set a nvme-tcp-export=no`)
		d.quiet(t, `/disk/set a nvme-tcp-export=yes`)
		if info, err := os.Stat(a.HostFile); err != nil || info.Size() != 2<<20 {
			t.Errorf("%s: after the item was exported anew the file has %d bytes (%v)", value, info.Size(), err)
		}
	}
}

func TestResizeBouncesTheExportIfTheSwitchSaysSo(t *testing.T) {
	for value, want := range map[string]bool{yes: true, no: false} {
		k := newFakeKernel(t)
		o := k.options()
		o.Quirks[quirkResizeBouncesExport] = value
		d := device(t, o)
		d.quiet(t, addExported)
		k.take()
		d.quiet(t, `/disk/set a file-size=2M`)
		if got := slices.Contains(k.take(), "remove ports/4420/subsystems/nqn.a"); got != want {
			t.Errorf("%s: bounced %v", value, got)
		}
		if a, _ := d.Disk("a"); !a.Up || a.FileSize != 2<<20 {
			t.Errorf("%s: %+v", value, a)
		}
	}
}

func TestConnectedHostsAreSeen(t *testing.T) {
	k := newFakeKernel(t)
	o := k.options()
	o.Quirks[quirkRemoveWhileConnected] = refuse
	d := device(t, o)
	for _, path := range []string{"class/nvme/nvme3/subsysnqn", "kernel/debug/nvmet/nqn.a/ctrl1/state"} {
		d.quiet(t, addExported)
		file := filepath.Join(k.root, "sys", path)
		k.must(os.MkdirAll(filepath.Dir(file), 0o750))
		k.must(os.WriteFile(file, []byte("nqn.a\n"), 0o600))
		if out := d.script(t, `/disk/remove a`); !strings.HasPrefix(out, "failure: could not remove") {
			t.Errorf("%s: remove printed %q", path, out)
		}
		k.must(os.RemoveAll(filepath.Join(k.root, "sys")))
		d.quiet(t, `/disk/remove a`)
		d.quiet(t, `/file/remove [find name="storage-pool/a.img"]`)
	}
}

func TestNoTargetIsSaid(t *testing.T) {
	_, err := New(Options{Dir: t.TempDir(), HostKey: testKey(t), NVMe: &NVMeOptions{
		Address: "127.0.0.1", ConfigFS: filepath.Join(t.TempDir(), "absent"),
	}})
	if err == nil || !strings.Contains(err.Error(), "nvmet-tcp") {
		t.Errorf("got %v, want what to load", err)
	}
	_, err = New(Options{Dir: t.TempDir(), HostKey: testKey(t), NVMe: &NVMeOptions{
		Address: "rds.example", ConfigFS: newFakeKernel(t).root,
	}})
	if err == nil || !strings.Contains(err.Error(), "IP address") {
		t.Errorf("got %v, want a word about the address", err)
	}
}
