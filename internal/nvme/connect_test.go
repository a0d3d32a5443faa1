package nvme

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func target(nqn string) Target { return Target{NQN: nqn, Address: "192.0.2.1", Port: 4420} }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestConnectSaysEverythingToTheKernel(t *testing.T) {
	m := newMachine(t)
	ns, err := m.initiator().Connect(t.Context(), target(nqn1), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if ns.Name != "nvme0n1" || ns.SizeBytes != 1<<20 {
		t.Errorf("%+v", ns)
	}
	want := "transport=tcp,traddr=192.0.2.1,trsvcid=4420,nqn=" + nqn1 + ",hostnqn=" + hostNQN +
		",hostid=6f1f5d4e-0000-5000-8000-000000000001,ctrl_loss_tmo=-1,reconnect_delay=2,keep_alive_tmo=5"
	if connects, _ := m.log(); len(connects) != 1 || connects[0] != want {
		t.Errorf("told the kernel\n%q, want\n%q", connects, want)
	}
}

func TestOptions(t *testing.T) {
	host := Host{NQN: hostNQN, ID: "id"}
	ok := []struct {
		o    Options
		want string
	}{
		{Options{CtrlLossTimeout: -1}, "ctrl_loss_tmo=-1,reconnect_delay=2,keep_alive_tmo=5"},
		{Options{CtrlLossTimeout: 10 * time.Minute, ReconnectDelay: 10 * time.Second, KeepAlive: time.Minute}, "ctrl_loss_tmo=600,reconnect_delay=10,keep_alive_tmo=60"},
		{Options{CtrlLossTimeout: time.Millisecond, ReconnectDelay: 1500 * time.Millisecond, KeepAlive: 1}, "ctrl_loss_tmo=1,reconnect_delay=2,keep_alive_tmo=1"},
	}
	for _, tt := range ok {
		if got, err := target(nqn1).options(tt.o, host); err != nil || !strings.HasSuffix(got, ","+tt.want) {
			t.Errorf("%+v: %s, %v", tt.o, got, err)
		}
	}
	bad := []struct {
		name string
		t    Target
		h    Host
	}{
		{"comma in the NQN", target(nqn1 + ",hostnqn=evil"), host},
		{"newline in the NQN", target(nqn1 + "\n"), host},
		{"NUL in the NQN", target(nqn1 + "\x00"), host},
		{"not an NQN", target("disk-1"), host},
		{"too long", target("nqn." + strings.Repeat("x", 220)), host},
		{"host name as address", Target{nqn1, "rds.example", 4420}, host},
		{"option in the address", Target{nqn1, "192.0.2.1,nr_io_queues=1", 4420}, host},
		{"option in the zone", Target{nqn1, "fe80::1%eth0,x=1", 4420}, host},
		{"port 0", Target{nqn1, "192.0.2.1", 0}, host},
		{"port 65536", Target{nqn1, "192.0.2.1", 65536}, host},
		{"comma in the host NQN", target(nqn1), Host{"nqn.a,b", "id"}},
		{"no host id", target(nqn1), Host{NQN: hostNQN}},
		{"no host NQN", target(nqn1), Host{ID: "id"}},
	}
	for _, tt := range bad {
		m := newMachine(t)
		i := m.initiator()
		i.cfg.Host = tt.h
		if _, err := i.Connect(t.Context(), tt.t, Options{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if connects, _ := m.log(); len(connects) != 0 {
			t.Errorf("%s: reached the kernel: %q", tt.name, connects)
		}
	}
}

func TestRepeatedConnectConnectsOnce(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	var all sync.WaitGroup
	for range 8 { // at once, then once more
		all.Go(func() {
			if ns, err := i.Connect(t.Context(), target(nqn1), Options{}); err != nil || ns.Name != "nvme0n1" {
				t.Errorf("%+v %v", ns, err)
			}
		})
	}
	all.Wait()
	if _, err := i.Connect(t.Context(), target(nqn1), Options{}); err != nil {
		t.Error(err)
	}
	if connects, _ := m.log(); len(connects) != 1 {
		t.Errorf("%d connects", len(connects))
	}
}

// Another plugin process of the same host was faster.
func TestAlreadyConnectedIsProvedInSysfs(t *testing.T) {
	for _, errno := range []error{syscall.EALREADY, syscall.EINPROGRESS} {
		t.Run(errno.Error(), func(t *testing.T) {
			m := newMachine(t)
			m.onFabrics = func(string) error {
				m.add(export{nqn: nqn1})
				return errno
			}
			if _, err := m.initiator().Connect(t.Context(), target(nqn1), Options{}); err != nil {
				t.Fatal(err)
			}
			lying := newMachine(t)
			lying.onFabrics = func(string) error { return errno }
			if _, err := lying.initiator().Connect(t.Context(), target(nqn1), Options{}); !errors.Is(err, ErrRefused) {
				t.Fatalf("believed without proof: %v", err)
			}
		})
	}
}

func TestConnectErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want error
		text string
	}{
		{&os.PathError{Op: "open", Path: "/dev/nvme-fabrics", Err: syscall.ENOENT}, ErrUnsupported, "load the kernel module nvme-tcp"},
		{syscall.ECONNREFUSED, ErrRefused, "connection refused"},
		{syscall.EIO, ErrRefused, "kernel log"},
	} {
		m := newMachine(t)
		m.onFabrics = func(string) error { return tt.err }
		_, err := m.initiator().Connect(t.Context(), target(nqn1), Options{})
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), nqn1) {
			t.Errorf("%v: %v", tt.err, err)
		}
	}
}

// A controller that is trying again is a connection: no second one is made, and
// the caller gets the device once it is live, or his deadline.
func TestConnectWaitsForAReconnect(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	ctrl, _ := m.add(export{nqn: nqn1, state: "connecting"})
	_, err := i.Connect(within(t, 500*time.Millisecond), target(nqn1), Options{})
	if !errors.Is(err, ErrTimeout) || !errors.Is(err, ErrNotLive) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	m.set(ctrl, "state", "live")
	if _, err := i.Connect(t.Context(), target(nqn1), Options{}); err != nil {
		t.Fatal(err)
	}
	if connects, _ := m.log(); len(connects) != 0 {
		t.Fatalf("connected again: %q", connects)
	}
}

func TestConnectWaitsForADyingController(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	ctrl, _ := m.add(export{nqn: nqn1, state: "deleting"})
	result := make(chan error, 1)
	go func() {
		ns, err := i.Connect(t.Context(), target(nqn1), Options{})
		if err == nil && ns.Name != "nvme1n1" {
			err = fmt.Errorf("old device %s", ns.Name)
		}
		result <- err
	}()
	m.remove(ctrl)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// The same NQN somewhere else may be another appliance with other data.
func TestConnectionToAnotherTargetIsRefused(t *testing.T) {
	for name, e := range map[string]export{
		"another address": {nqn: nqn1, address: "192.0.2.9", port: 4420},
		"another port":    {nqn: nqn1, address: "192.0.2.1", port: 4421},
		"not tcp":         {nqn: nqn1, transport: "rdma"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.add(e)
			if _, err := m.initiator().Connect(t.Context(), target(nqn1), Options{}); !errors.Is(err, ErrIdentity) {
				t.Fatalf("%v", err)
			}
			if connects, writes := m.log(); len(connects)+len(writes) != 0 {
				t.Fatalf("touched: %q %q", connects, writes)
			}
		})
	}
}

func TestSameAddressInAnotherSpellingIsTheSame(t *testing.T) {
	m := newMachine(t)
	m.add(export{nqn: nqn1, address: "fd00:0:0:0::1", port: 4420})
	if _, err := m.initiator().Connect(t.Context(), Target{nqn1, "fd00::1", 4420}, Options{}); err != nil {
		t.Fatal(err)
	}
}

// Rule 9: connected, but the notice of the namespace got lost.
func TestMissingNamespaceIsRescanned(t *testing.T) {
	m := newMachine(t)
	m.noNamespace = true
	ns, err := m.initiator().Connect(t.Context(), target(nqn1), Options{})
	if err != nil || ns.Name != "nvme0n1" {
		t.Fatalf("%+v %v", ns, err)
	}
	if _, writes := m.log(); len(writes) != 1 || writes[0] != "nvme0 rescan_controller" {
		t.Fatalf("%q", writes)
	}
}

func TestRescansAreBounded(t *testing.T) {
	m := newMachine(t)
	m.add(export{nqn: nqn1, noNamespace: true})
	i := m.initiator()
	rescans := 0
	i.kernel.write = func(*os.Root, string, string) error { rescans++; return nil }
	if _, err := i.Connect(t.Context(), target(nqn1), Options{}); !errors.Is(err, ErrNoNamespace) {
		t.Fatalf("%v", err)
	}
	if rescans != rescanMax {
		t.Fatalf("%d rescans", rescans)
	}
}

// The kernel shows a disk before it opens it.
func TestConnectWaitsUntilTheDeviceOpens(t *testing.T) {
	for name, early := range map[string]error{"no device behind the node": syscall.ENXIO, "no node": syscall.ENOENT} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			opened := 0
			m.onOpen = func(path string) error {
				if opened++; opened < 3 {
					return &os.PathError{Op: "open", Path: path, Err: early}
				}
				return nil
			}
			if _, err := m.initiator().Connect(t.Context(), target(nqn1), Options{}); err != nil || opened != 3 {
				t.Errorf("%d opens: %v", opened, err)
			}
			if connects, writes := m.log(); len(connects) != 1 || len(writes) != 0 {
				t.Errorf("%v %v", connects, writes)
			}
		})
	}
	t.Run("never", func(t *testing.T) {
		m := newMachine(t)
		m.onOpen = func(path string) error { return &os.PathError{Op: "open", Path: path, Err: syscall.ENXIO} }
		_, err := m.initiator().Connect(within(t, 50*time.Millisecond), target(nqn1), Options{})
		if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "nvme0n1 was not opened") {
			t.Error(err)
		}
	})
}

// A device that is there and whose open hangs, or fails as something there can, is the business of who uses it. However
// often a silent target's device is asked for, one open hangs.
func TestConnectLeavesADeviceThatDoesNotOpenToItsUser(t *testing.T) {
	m := newMachine(t)
	hang := make(chan struct{})
	var opened atomic.Int32
	m.onOpen = func(string) error { opened.Add(1); <-hang; return syscall.EIO }
	i := m.initiator()
	for range 3 {
		if _, err := i.Connect(t.Context(), target(nqn1), Options{}); err != nil {
			t.Error(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d opens at once", n)
	}
	close(hang)
	i.openLimit = time.Minute
	if _, err := i.Connect(t.Context(), target(nqn1), Options{}); err != nil {
		t.Error(err)
	}
}

// A silent target holds the write in the kernel. The caller leaves at his
// deadline, a second caller starts no second write, and a connect that comes
// about late is found by the next Connect and taken down by a Disconnect.
func TestConnectThatOutlivesItsCallerLeaksNothing(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	answer, asked := make(chan struct{}), make(chan struct{}, 8)
	ctx, leave := context.WithCancel(t.Context())
	m.onFabrics = func(string) error {
		asked <- struct{}{}
		leave()
		<-answer
		return nil
	}
	for range 3 {
		if _, err := i.Connect(ctx, target(nqn1), Options{}); !errors.Is(err, ErrTimeout) {
			t.Fatalf("%v", err)
		}
	}
	if err := i.Disconnect(within(t, 20*time.Millisecond), nqn1); !errors.Is(err, ErrTimeout) {
		t.Fatalf("disconnect during a connect: %v", err)
	}
	if len(asked) != 1 {
		t.Fatalf("%d writes in the kernel at once", len(asked))
	}
	close(answer)
	if err := i.Disconnect(t.Context(), nqn1); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Find(nqn1); !errors.Is(err, ErrNotConnected) {
		t.Fatalf("the late connect was left behind: %v", err)
	}
	connects, writes := m.log()
	if len(connects) != 1 || len(writes) != 1 {
		t.Fatalf("%q %q", connects, writes)
	}
}

// One dead target has one write in the kernel at a time, whatever the number of
// its volumes; a volume of another target does not wait for them
// (longhorn/longhorn#13236).
func TestDeadTargetDoesNotBlockOthers(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	release, dead := make(chan struct{}), make(chan struct{}, 8)
	m.onFabrics = func(options string) error {
		if strings.Contains(options, "traddr=192.0.2.1,") {
			dead <- struct{}{}
			<-release
			return syscall.EIO
		}
		return nil
	}
	var all sync.WaitGroup
	ctx, leave := context.WithCancel(t.Context())
	for n := range 4 {
		all.Go(func() {
			if _, err := i.Connect(ctx, target(fmt.Sprintf("%s-%d", nqn1, n)), Options{}); !errors.Is(err, ErrTimeout) {
				t.Errorf("dead target: %v", err)
			}
		})
	}
	<-dead
	if _, err := i.Connect(t.Context(), Target{nqn10, "192.0.2.2", 4420}, Options{}); err != nil {
		t.Error(err)
	}
	leave()
	all.Wait()
	if len(dead) != 0 {
		t.Errorf("%d more writes to the dead target", len(dead))
	}
	close(release)
}

// Devices are found by NQN after a renumbering (rule 1).
func TestRenumberedDevicesAreFoundByNQN(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	for _, order := range [][]string{{nqn1, nqn10}, {nqn10, nqn1}} {
		for _, nqn := range order {
			if _, err := i.Connect(t.Context(), target(nqn), Options{}); err != nil {
				t.Fatal(err)
			}
		}
		for n, nqn := range order {
			ns, err := i.Find(nqn)
			dir, _ := filepath.Glob(filepath.Join(m.dir, "sys/devices/virtual/nvme-subsystem/*", ns.Name))
			if err != nil || len(dir) != 1 {
				t.Fatalf("%d: %+v %v", n, ns, err)
			}
			if owner, _ := attribute(filepath.Dir(dir[0]), "subsysnqn"); owner != nqn {
				t.Fatalf("%s belongs to %s, not to %s", ns.Name, owner, nqn)
			}
		}
		for _, nqn := range order {
			if err := i.Disconnect(t.Context(), nqn); err != nil {
				t.Fatal(err)
			}
		}
		m.controllers = 0 // the kernel gives the numbers out again
	}
}

type events struct {
	mu   sync.Mutex
	seen []string
}

func (e *events) ObserveConnect(status string, _ time.Duration) { e.add("connect " + status) }
func (e *events) ObserveDisconnect(status string)               { e.add("disconnect " + status) }
func (e *events) add(s string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, s)
}

func TestObserverHearsEventsOnly(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	heard := &events{}
	i.cfg.Observer = heard
	step := func(want string, f func() error) {
		t.Helper()
		heard.seen = nil
		_ = f()
		if got := strings.Join(heard.seen, ";"); got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
	connect := func() error { _, err := i.Connect(t.Context(), target(nqn1), Options{}); return err }
	disconnect := func() error { return i.Disconnect(t.Context(), nqn1) }
	step("", disconnect)
	step("connect ok", connect)
	step("", connect)
	m.busy["nvme0n1"] = true
	step("disconnect in_use", disconnect)
	m.busy["nvme0n1"] = false
	step("disconnect ok", disconnect)
	m.onFabrics = func(string) error { return syscall.EIO }
	step("connect error", connect)
}

// The caller left; what the kernel made of the connect counts all the same, once.
func TestLateConnectIsObservedAsWhatItBecame(t *testing.T) {
	for want, outcome := range map[string]error{"connect ok": nil, "connect error": syscall.EIO} {
		m := newMachine(t)
		i := m.initiator()
		heard, answer := &events{}, make(chan struct{})
		i.cfg.Observer = heard
		ctx, leave := context.WithCancel(t.Context())
		m.onFabrics = func(string) error {
			leave()
			<-answer
			return outcome
		}
		if _, err := i.Connect(ctx, target(nqn1), Options{}); !errors.Is(err, ErrTimeout) {
			t.Fatalf("%v", err)
		}
		close(answer)
		exit, err := i.lanes.Enter(t.Context(), nqn1) // the operation has ended
		if err != nil {
			t.Fatal(err)
		}
		exit()
		if got := strings.Join(heard.seen, ";"); got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
}
