package nvme

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// machine is a sysfs tree laid out as Linux 6.12 does it (class entries and the
// controllers of a subsystem are symbolic links), with just enough of a kernel
// behind it to connect and to delete controllers.
type machine struct {
	t   *testing.T
	dir string

	mu          sync.Mutex
	controllers int
	connects    []string // option strings that the fabrics device was given
	writes      []string // "nvme0 delete_controller", in order
	busy        map[string]bool
	unclaimed   int // claims that were closed

	noNamespace bool                           // connects show no namespace until a rescan
	onFabrics   func(options string) error     // before a connect takes effect
	onWrite     func(controller, attr string)  // before a write takes effect
	onClaim     func(path string)              // before a claim is decided
	onOpen      func(path string) error        // what an open comes to
	onReplaced  func(controller string) string // what a deletion leaves of the subsystem
}

const hostNQN = "nqn.2014-08.org.nvmexpress:uuid:6f1f5d4e-0000-5000-8000-000000000001"

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, dir: t.TempDir(), busy: map[string]bool{}}
	for _, d := range []string{"sys/class/nvme", "sys/class/nvme-subsystem", "sys/devices/virtual/nvme-subsystem", "sys/devices/virtual/nvme-fabrics/ctl", "dev"} {
		m.mkdir(d)
	}
	return m
}

func (m *machine) initiator() *Initiator {
	i := New(Config{
		SysRoot: filepath.Join(m.dir, "sys"), DevRoot: filepath.Join(m.dir, "dev"),
		Host: Host{NQN: hostNQN, ID: "6f1f5d4e-0000-5000-8000-000000000001"},
	})
	i.kernel = kernel{fabrics: m.fabrics, write: m.write, claim: m.claim, open: m.open, number: m.number, mknod: m.mknod}
	i.tick, i.settle, i.rescanAfter, i.claimLimit, i.openLimit = time.Millisecond, 20*time.Millisecond, 5*time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
	return i
}

// export is one controller and its namespace as they will look in sysfs.
type export struct {
	nqn, host, address, transport, state string
	port                                 int
	noMultipath, noNamespace             bool
	sectors                              int64
}

// add makes a controller and returns its name and its namespace's.
func (m *machine) add(e export) (ctrl, disk string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addLocked(e)
}

func (m *machine) addLocked(e export) (ctrl, disk string) {
	n := m.controllers
	m.controllers++
	ctrl = fmt.Sprintf("nvme%d", n)
	e = e.withDefaults()
	ctl := "sys/devices/virtual/nvme-fabrics/ctl/" + ctrl
	m.mkdir(ctl)
	for attr, v := range map[string]string{
		"subsysnqn": e.nqn, "hostnqn": e.host, "transport": e.transport, "state": e.state,
		"address":           fmt.Sprintf("traddr=%s,trsvcid=%d,src_addr=%s", e.address, e.port, e.address),
		"delete_controller": "", "rescan_controller": "",
	} {
		m.write1(ctl+"/"+attr, v)
	}
	m.link("../../devices/virtual/nvme-fabrics/ctl/"+ctrl, "sys/class/nvme/"+ctrl)
	sub := m.subsystem(e.nqn, n)
	m.link("../../nvme-fabrics/ctl/"+ctrl, sub+"/"+ctrl)
	if !e.noNamespace {
		disk = m.namespace(e, sub, ctl, n)
	}
	return ctrl, disk
}

func (e export) withDefaults() export {
	if e.host == "" {
		e.host = hostNQN
	}
	if e.address == "" {
		e.address, e.port = "192.0.2.1", 4420
	}
	if e.transport == "" {
		e.transport = "tcp"
	}
	if e.state == "" {
		e.state = "live"
	}
	if e.sectors == 0 {
		e.sectors = 2048
	}
	return e
}

// subsystem is the directory of the subsystem with this NQN, made if missing.
func (m *machine) subsystem(nqn string, n int) string {
	dirs, _ := filepath.Glob(filepath.Join(m.dir, "sys/devices/virtual/nvme-subsystem/*"))
	for _, d := range dirs {
		if b, _ := os.ReadFile(filepath.Join(d, "subsysnqn")); strings.TrimSpace(string(b)) == nqn {
			rel, _ := filepath.Rel(m.dir, d)
			return rel
		}
	}
	name := fmt.Sprintf("nvme-subsys%d", n)
	dir := "sys/devices/virtual/nvme-subsystem/" + name
	m.mkdir(dir)
	m.write1(dir+"/subsysnqn", nqn)
	m.link("../../devices/virtual/nvme-subsystem/"+name, "sys/class/nvme-subsystem/"+name)
	return dir
}

// namespace adds the block device: under the subsystem, with a hidden path
// device under the controller; or under the controller without multipath.
func (m *machine) namespace(e export, sub, ctl string, n int) string {
	disk := fmt.Sprintf("nvme%dn1", n)
	dir := sub + "/" + disk
	if e.noMultipath {
		dir = ctl + "/" + disk
	} else {
		m.disk(ctl+"/"+fmt.Sprintf("nvme%dc%dn1", n, n), 99, n, e.sectors)
	}
	m.disk(dir, 259, n, e.sectors)
	m.write1("dev/"+disk, fmt.Sprintf("259:%d", n))
	return disk
}

func (m *machine) disk(dir string, major, minor int, sectors int64) {
	m.mkdir(dir + "/holders")
	m.write1(dir+"/nsid", "1")
	m.write1(dir+"/dev", fmt.Sprintf("%d:%d", major, minor))
	m.write1(dir+"/size", fmt.Sprint(sectors))
	m.write1(dir+"/uuid", "8f6f2d7e-6f0f-4a1c-9a53-000000000001")
}

// remove takes a controller away as the kernel does: with its namespace, and
// with the subsystem if it was the last one.
func (m *machine) remove(ctrl string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removeLocked(ctrl)
}

func (m *machine) removeLocked(ctrl string) {
	ctl := filepath.Join(m.dir, "sys/devices/virtual/nvme-fabrics/ctl", ctrl)
	nqn, _ := os.ReadFile(filepath.Join(ctl, "subsysnqn"))
	_ = os.Remove(filepath.Join(m.dir, "sys/class/nvme", ctrl))
	_ = os.RemoveAll(ctl)
	dirs, _ := filepath.Glob(filepath.Join(m.dir, "sys/devices/virtual/nvme-subsystem/*"))
	for _, d := range dirs {
		if b, _ := os.ReadFile(filepath.Join(d, "subsysnqn")); string(b) != string(nqn) {
			continue
		}
		_ = os.Remove(filepath.Join(d, ctrl))
		disks, _ := filepath.Glob(filepath.Join(d, "nvme*n1"))
		for _, disk := range disks {
			_ = os.Remove(filepath.Join(m.dir, "dev", filepath.Base(disk)))
			_ = os.RemoveAll(disk)
		}
		if m.onReplaced != nil && m.onReplaced(ctrl) == "subsystem" {
			continue
		}
		_ = os.Remove(filepath.Join(m.dir, "sys/class/nvme-subsystem", filepath.Base(d)))
		_ = os.RemoveAll(d)
	}
}

func (m *machine) fabrics(_, options string) (string, error) {
	if m.onFabrics != nil {
		if err := m.onFabrics(options); err != nil {
			return "", err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connects = append(m.connects, options)
	e := export{noNamespace: m.noNamespace}
	for f := range strings.SplitSeq(options, ",") {
		k, v, _ := strings.Cut(f, "=")
		switch k {
		case "nqn":
			e.nqn = v
		case "hostnqn":
			e.host = v
		case "traddr":
			e.address = v
		case "trsvcid":
			_, _ = fmt.Sscan(v, &e.port)
		}
	}
	ctrl, _ := m.addLocked(e)
	return "instance=" + strings.TrimPrefix(ctrl, "nvme") + ",cntlid=1", nil
}

func (m *machine) write(dir *os.Root, attr, value string) error {
	ctrl := filepath.Base(dir.Name())
	if m.onWrite != nil {
		m.onWrite(ctrl, attr)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := dir.OpenFile(attr, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_ = f.Close()
	m.writes = append(m.writes, ctrl+" "+attr)
	if value != "1" {
		return syscall.EINVAL
	}
	switch attr {
	case "delete_controller":
		m.removeLocked(ctrl)
	case "rescan_controller":
		m.rescanned(ctrl)
	}
	return nil
}

// rescanned: the namespace that a lost notice had hidden appears.
func (m *machine) rescanned(ctrl string) {
	var n int
	_, _ = fmt.Sscanf(ctrl, "nvme%d", &n)
	ctl := "sys/devices/virtual/nvme-fabrics/ctl/" + ctrl
	nqn, _ := os.ReadFile(filepath.Join(m.dir, ctl, "subsysnqn"))
	sub := m.subsystem(strings.TrimSpace(string(nqn)), n)
	if _, err := os.Stat(filepath.Join(m.dir, sub, fmt.Sprintf("nvme%dn1", n))); err != nil {
		m.namespace(export{}.withDefaults(), sub, ctl, n)
	}
}

type closer func()

func (c closer) Close() error { c(); return nil }

func (m *machine) claim(path string) (io.Closer, error) {
	if m.onClaim != nil {
		m.onClaim(path)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[filepath.Base(path)] {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.EBUSY}
	}
	return closer(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.unclaimed++
	}), nil
}

func (m *machine) open(path string) error {
	if m.onOpen != nil {
		return m.onOpen(path)
	}
	return nil
}

// number reads a device node, which in this tree is a file that holds a number.
func (m *machine) number(path string) (major, minor uint32, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil {
		return 0, 0, fmt.Errorf("%s is not a block device: %w", path, err)
	}
	return major, minor, nil
}

func (m *machine) mknod(path string, major, minor uint32) error {
	if _, err := os.Lstat(path); err == nil {
		return &os.PathError{Op: "mknod", Path: path, Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%d:%d", major, minor), 0o600)
}

func (m *machine) mkdir(p string) {
	if err := os.MkdirAll(filepath.Join(m.dir, p), 0o755); err != nil {
		m.t.Error(err)
	}
}

func (m *machine) write1(p, v string) {
	if err := os.WriteFile(filepath.Join(m.dir, p), []byte(v+"\n"), 0o644); err != nil {
		m.t.Error(err)
	}
}

func (m *machine) link(to, p string) {
	if err := os.Symlink(to, filepath.Join(m.dir, p)); err != nil {
		m.t.Error(err)
	}
}

// set changes an attribute of a controller.
func (m *machine) set(ctrl, attr, v string) {
	m.write1("sys/devices/virtual/nvme-fabrics/ctl/"+ctrl+"/"+attr, v)
}

func (m *machine) log() (connects, writes []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.connects...), append([]string(nil), m.writes...)
}
