//go:build kernel

package kernel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/nvme"
)

const (
	configfs = "/sys/kernel/config/nvmet"
	mib      = int64(1) << 20
)

// export is one volume as an RDS exports it: a subsystem of the kernel's own
// target with NSID 1, 512-byte blocks [R], on a TCP port of its own, backed by a
// sparse file through a loop device.
type export struct {
	t                *testing.T
	nqn, file        string
	loop             *os.File
	port             int
	subsystem, entry string // configfs directories of the subsystem and of the port
}

// newExport exports a blank volume and takes it away at the end of the test.
func newExport(t *testing.T, name string, size int64) *export {
	t.Helper()
	e := &export{t: t, nqn: "nqn.2000-02.com.mikrotik:" + name, file: filepath.Join(t.TempDir(), name+".img"), port: newPort()}
	e.subsystem = filepath.Join(configfs, "subsystems", e.nqn)
	e.entry = filepath.Join(configfs, "ports", strconv.Itoa(e.port))
	must(t, os.WriteFile(e.file, nil, 0o600))
	must(t, os.Truncate(e.file, size))
	t.Cleanup(e.remove)
	must(t, os.MkdirAll(e.namespace(), 0o755))
	e.set(e.subsystem+"/attr_allow_any_host", "1")
	e.attachLoop()
	e.set(e.namespace()+"/device_path", e.loop.Name())
	e.enable(true)
	must(t, os.Mkdir(e.entry, 0o755))
	for attr, v := range map[string]string{"addr_trtype": "tcp", "addr_adrfam": "ipv4", "addr_traddr": "127.0.0.1", "addr_trsvcid": strconv.Itoa(e.port)} {
		e.set(e.entry+"/"+attr, v)
	}
	e.up()
	return e
}

// attachLoop gives the file to a free loop device. A namespace on the file itself
// would have blocks of 4096 bytes, as tmpfs has.
func (e *export) attachLoop() {
	e.t.Helper()
	control, err := os.Open("/dev/loop-control")
	must(e.t, err)
	defer func() { _ = control.Close() }()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	must(e.t, err)
	file, err := os.OpenFile(e.file, os.O_RDWR, 0)
	must(e.t, err)
	defer func() { _ = file.Close() }()
	e.loop, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
	must(e.t, err)
	must(e.t, unix.IoctlSetInt(int(e.loop.Fd()), unix.LOOP_SET_FD, int(file.Fd())))
}

func (e *export) namespace() string { return e.subsystem + "/namespaces/1" }
func (e *export) link() string      { return e.entry + "/subsystems/" + e.nqn }

func (e *export) set(path, value string) {
	e.t.Helper()
	must(e.t, os.WriteFile(path, []byte(value), 0o644))
}

// enable shows or hides the namespace; the subsystem stays.
func (e *export) enable(on bool) {
	e.t.Helper()
	e.set(e.namespace()+"/enable", map[bool]string{true: "1", false: "0"}[on])
}

// up makes the target listen, as after a reboot of the RDS.
func (e *export) up() {
	e.t.Helper()
	must(e.t, os.Symlink(e.subsystem, e.link()))
}

// down closes the connections and the port.
func (e *export) down() {
	e.t.Helper()
	must(e.t, os.Remove(e.link()))
}

// also keeps the port listening, with another's subsystem, when this one is down.
func (e *export) also(other *export) {
	e.t.Helper()
	link := e.entry + "/subsystems/" + other.nqn
	must(e.t, os.Symlink(other.subsystem, link))
	e.t.Cleanup(func() { _ = os.Remove(link) })
}

func (e *export) resize(size int64) {
	e.t.Helper()
	must(e.t, os.Truncate(e.file, size))
	must(e.t, unix.IoctlSetInt(int(e.loop.Fd()), unix.LOOP_SET_CAPACITY, 0))
	e.set(e.namespace()+"/revalidate_size", "1")
}

func (e *export) target() nvme.Target {
	return nvme.Target{NQN: e.nqn, Address: "127.0.0.1", Port: e.port}
}

func (e *export) remove() {
	for _, c := range controllersOf(e.t, e.nqn) {
		_ = os.WriteFile(filepath.Join(c, "delete_controller"), []byte("1"), 0o200)
	}
	_ = os.Remove(e.link())
	_ = os.Remove(e.entry)
	_ = os.WriteFile(e.namespace()+"/enable", []byte("0"), 0o644)
	_ = os.Remove(e.namespace())
	_ = os.Remove(e.subsystem)
	if e.loop != nil {
		_ = unix.IoctlSetInt(int(e.loop.Fd()), unix.LOOP_CLR_FD, 0)
		_ = e.loop.Close()
	}
}

// controllersOf looks with as little code as possible, none of it the driver's.
func controllersOf(t *testing.T, nqn string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/class/nvme/nvme*/subsysnqn")
	must(t, err)
	var dirs []string
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) == nqn {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	return dirs
}

// connectRaw connects under a host of its own, with options of its own.
func connectRaw(t *testing.T, e *export, host nvme.Host, extra string) (controller string) {
	t.Helper()
	f, err := os.OpenFile("/dev/nvme-fabrics", os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = f.Close() }()
	_, err = fmt.Fprintf(f, "transport=tcp,traddr=127.0.0.1,trsvcid=%d,nqn=%s,hostnqn=%s,hostid=%s%s", e.port, e.nqn, host.NQN, host.ID, extra)
	must(t, err)
	reply := make([]byte, 128)
	n, err := f.Read(reply)
	must(t, err)
	var instance int
	_, err = fmt.Sscanf(string(reply[:n]), "instance=%d", &instance)
	must(t, err)
	return fmt.Sprintf("/sys/class/nvme/nvme%d", instance)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return strings.TrimSpace(string(b))
}

// silencer stands between initiator and target. Frozen, it keeps connections
// open, takes new ones, and passes nothing on: a target that hangs.
type silencer struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	frozen bool
	thawed *sync.Cond
	open   []net.Conn
	ended  bool
	wait   sync.WaitGroup
}

func newSilencer(t *testing.T, e *export) *silencer {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	s := &silencer{listener: l, to: net.JoinHostPort("127.0.0.1", strconv.Itoa(e.port))}
	s.thawed = sync.NewCond(&s.mu)
	s.wait.Go(s.serve)
	t.Cleanup(s.close)
	return s
}

func (s *silencer) target(e *export) nvme.Target {
	return nvme.Target{NQN: e.nqn, Address: "127.0.0.1", Port: s.listener.Addr().(*net.TCPAddr).Port}
}

func (s *silencer) freeze(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = on
	s.thawed.Broadcast()
}

func (s *silencer) close() {
	s.mu.Lock()
	s.ended, s.frozen = true, false
	for _, c := range s.open {
		_ = c.Close()
	}
	s.thawed.Broadcast()
	s.mu.Unlock()
	_ = s.listener.Close()
	s.wait.Wait()
}

func (s *silencer) serve() {
	for {
		client, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.wait.Go(func() { s.pass(client) })
	}
}

// pass connects to the target when it is not frozen.
func (s *silencer) pass(client net.Conn) {
	defer func() { _ = client.Close() }()
	if !s.keep(client) {
		return
	}
	server, err := net.Dial("tcp4", s.to)
	if err != nil || !s.keep(server) {
		return
	}
	defer func() { _ = server.Close() }()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(gate{way[1], s}, way[0])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	both.Wait()
}

// keep waits while frozen and says whether to go on.
func (s *silencer) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, c)
	for s.frozen {
		s.thawed.Wait()
	}
	if s.ended {
		_ = c.Close()
	}
	return !s.ended
}

type gate struct {
	to net.Conn
	s  *silencer
}

func (g gate) Write(p []byte) (int, error) {
	g.s.mu.Lock()
	for g.s.frozen {
		g.s.thawed.Wait()
	}
	g.s.mu.Unlock()
	return g.to.Write(p)
}

// choke stands between initiator and target, and lets nothing but the set-up of
// I/O queues through to the target: the first read gets no answer.
type choke struct{ *silencer }

// What a host sends on a queue until it is connected: ICReq (128 bytes), then the
// Connect command (8 + 64) with its 1024 bytes of data.
const queueSetup = 128 + 8 + 64 + 1024

func newChoke(t *testing.T, e *export) choke {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	s := &silencer{listener: l, to: net.JoinHostPort("127.0.0.1", strconv.Itoa(e.port))}
	s.thawed = sync.NewCond(&s.mu)
	c := choke{s}
	s.wait.Go(c.serve)
	t.Cleanup(s.close)
	return c
}

func (c choke) serve() {
	for first := true; ; first = false {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp4", c.to)
		if err != nil || !c.keep(client) || !c.keep(server) {
			_ = client.Close()
			continue
		}
		c.wait.Go(func() { _, _ = io.Copy(client, server) })
		c.wait.Go(func() {
			if first { // the admin queue
				_, _ = io.Copy(server, client)
			} else {
				_, _ = io.CopyN(server, client, queueSetup)
			}
		})
	}
}

// lastPort is below those that the kernel gives to connections of its own choice (from 32768): an export that is down for a
// while finds its port free again, although initiators try to connect all the time.
var lastPort atomic.Int32

func newPort() int { return 20000 + int(lastPort.Add(1)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually is for states of the kernel that announce themselves to nobody. They come, on a busy machine late.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(3 * time.Minute)
	defer deadline.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("in three minutes not: %s", what)
		}
	}
}

// kernelLog returns what the kernel says from now on. A message is there before the call that caused it returns, so there is
// nothing to wait for: it is read until there is no more. With a deadline os.File gives nothing after it, whatever is there.
func kernelLog(t *testing.T) func() string {
	t.Helper()
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	_, err = unix.Seek(fd, 0, io.SeekEnd)
	must(t, err)
	return func() string {
		t.Helper()
		var text strings.Builder
		line := make([]byte, 8192)
		for {
			n, err := unix.Read(fd, line)
			switch {
			case err == nil:
				text.Write(line[:n])
			case errors.Is(err, unix.EAGAIN):
				return text.String()
			case errors.Is(err, unix.EPIPE): // messages were overwritten; the next read gives the oldest that is left
				t.Log("kernel log: some of it came too fast")
			case !errors.Is(err, unix.EINTR):
				t.Fatalf("kernel log: %v", err)
			}
		}
	}
}
