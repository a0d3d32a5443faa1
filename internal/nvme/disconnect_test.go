package nvme

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDisconnectTouchesOnlyItsNQN(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	m.add(export{nqn: nqn10})
	m.add(export{nqn: nqn1})
	m.add(export{nqn: nqn1 + "a"})
	m.add(export{nqn: "nqn.2014-08.org.example:root-disk", host: "nqn.somebody:else"})
	for range 2 { // absent is success
		if err := i.Disconnect(t.Context(), nqn1); err != nil {
			t.Fatal(err)
		}
	}
	if _, writes := m.log(); len(writes) != 1 || writes[0] != "nvme1 delete_controller" {
		t.Fatalf("%q", writes)
	}
	for _, nqn := range []string{nqn10, nqn1 + "a", "nqn.2014-08.org.example:root-disk"} {
		if _, err := i.Find(nqn); err != nil {
			t.Errorf("%s: %v", nqn, err)
		}
	}
}

func TestDisconnectDeletesEveryPath(t *testing.T) {
	m := newMachine(t)
	m.onReplaced = func(ctrl string) string {
		if ctrl == "nvme0" {
			return "subsystem" // the second path keeps it
		}
		return ""
	}
	m.add(export{nqn: nqn1})
	m.add(export{nqn: nqn1, noNamespace: true})
	if err := m.initiator().Disconnect(t.Context(), nqn1); err != nil {
		t.Fatal(err)
	}
	if _, writes := m.log(); len(writes) != 2 {
		t.Fatalf("%q", writes)
	}
}

// The guard asks the kernel (an exclusive open and the holders in sysfs), for a
// list of processes can be read wrongly and then says "free" (B8).
func TestDisconnectRefusesADeviceInUse_B8(t *testing.T) {
	for name, use := range map[string]func(m *machine, disk string){
		"mounted": func(m *machine, disk string) { m.busy[disk] = true },
		"held": func(m *machine, disk string) {
			m.mkdir("sys/devices/virtual/nvme-subsystem/nvme-subsys0/" + disk + "/holders/dm-0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			_, disk := m.add(export{nqn: nqn1})
			use(m, disk)
			err := m.initiator().Disconnect(t.Context(), nqn1)
			if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), nqn1) {
				t.Fatalf("%v", err)
			}
			if _, writes := m.log(); len(writes) != 0 {
				t.Fatalf("%q", writes)
			}
		})
	}
}

func TestDisconnectDoesNotTouchAnotherTransport(t *testing.T) {
	m := newMachine(t)
	m.add(export{nqn: nqn1, transport: "pcie"})
	if err := m.initiator().Disconnect(t.Context(), nqn1); !errors.Is(err, ErrIdentity) {
		t.Fatalf("%v", err)
	}
	if _, writes := m.log(); len(writes) != 0 {
		t.Fatalf("%q", writes)
	}
}

// Between the look and the deletion the number went to somebody else's disk.
func TestRenumberedControllerIsNotHit(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	ctrl, _ := m.add(export{nqn: nqn1})
	m.onClaim = func(string) {
		m.onClaim = nil
		// nvme0 is now the controller of another subsystem, and the stale link of
		// the old subsystem leads to it.
		m.set(ctrl, "subsysnqn", nqn10)
	}
	err := i.Disconnect(t.Context(), nqn1)
	if !errors.Is(err, ErrIdentity) {
		t.Fatalf("%v", err)
	}
	if _, writes := m.log(); len(writes) != 0 {
		t.Fatalf("somebody else's controller was deleted: %q", writes)
	}
}

// Rule 8: the write hangs in the kernel under a dead target. Each caller leaves
// at his deadline, there is one write, and a late success is found.
func TestHungDisconnectIsBoundedAndSingle_B22(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	m.add(export{nqn: nqn1})
	m.add(export{nqn: nqn10})
	hang, begun := make(chan struct{}), make(chan string, 8)
	ctx, leave := context.WithCancel(t.Context())
	m.onWrite = func(ctrl, _ string) {
		if ctrl == "nvme0" {
			begun <- ctrl
			leave()
			<-hang
		}
	}
	for range 3 {
		if err := i.Disconnect(ctx, nqn1); !errors.Is(err, ErrTimeout) {
			t.Fatalf("%v", err)
		}
	}
	if err := i.Disconnect(t.Context(), nqn10); err != nil { // another volume goes on
		t.Fatal(err)
	}
	if len(begun) != 1 {
		t.Fatalf("%d writes at once", len(begun))
	}
	close(hang)
	if err := i.Disconnect(t.Context(), nqn1); err != nil {
		t.Fatal(err)
	}
}

// A caller who has given up no longer changes anything: the claim hung, and by
// the time it came back the volume may belong to a new call.
func TestNothingIsDeletedAfterTheCallerLeft(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	m.add(export{nqn: nqn1})
	hang := make(chan struct{})
	m.onClaim = func(string) { <-hang }
	if err := i.Disconnect(within(t, 20*time.Millisecond), nqn1); !errors.Is(err, ErrTimeout) {
		t.Fatalf("%v", err)
	}
	close(hang)
	leave, err := i.lanes.Enter(t.Context(), nqn1) // the operation has ended
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if _, writes := m.log(); len(writes) != 0 {
		t.Fatalf("%q", writes)
	}
}

// The target fell silent before the kernel had read the partition table: the
// exclusive open hangs until the controller is deleted, so it cannot be what the
// deletion waits for. While a controller lives it is, and is refused as ever.
func TestClaimThatHangsUnderADeadTarget(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	ctrl, _ := m.add(export{nqn: nqn1})
	hang := make(chan struct{})
	m.onClaim = func(string) { <-hang }
	if err := i.Disconnect(within(t, 50*time.Millisecond), nqn1); !errors.Is(err, ErrTimeout) {
		t.Fatalf("under a live controller: %v", err)
	}
	if _, writes := m.log(); len(writes) != 0 {
		t.Fatalf("%q", writes)
	}
	m.set(ctrl, "state", "connecting")
	if err := i.Disconnect(t.Context(), nqn1); err != nil {
		t.Fatal(err)
	}
	close(hang)
	i.waitFor(t, func() bool { // both opens are closed when they come back
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.unclaimed == 2
	})
}

// Rule 7: a subsystem without paths is a state of its own.
func TestSubsystemThatStaysWithoutPath(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	m.onReplaced = func(string) string { return "subsystem" }
	m.add(export{nqn: nqn1})
	if err := i.Disconnect(t.Context(), nqn1); !errors.Is(err, ErrNoPath) {
		t.Fatalf("%v", err)
	}
	if err := i.Disconnect(within(t, 10*time.Millisecond), nqn1); !errors.Is(err, ErrNoPath) {
		t.Fatalf("again, with a short deadline: %v", err)
	}
	// Its next connect joins that subsystem and gets a device of its own.
	if _, err := i.Connect(t.Context(), target(nqn1), Options{}); err != nil {
		t.Fatal(err)
	}
}

// Success is that the NQN has left sysfs, not that the write returned.
func TestDisconnectWaitsUntilTheNQNHasLeft(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	i.settle = time.Hour
	m.onReplaced = func(string) string { return "subsystem" }
	m.add(export{nqn: nqn1})
	result := make(chan error, 1)
	go func() { result <- i.Disconnect(t.Context(), nqn1) }()
	i.waitFor(t, func() bool { _, err := i.Find(nqn1); return errors.Is(err, ErrNoPath) })
	select {
	case err := <-result:
		t.Fatalf("returned while the NQN was there: %v", err)
	default:
	}
	if err := os.Remove(filepath.Join(m.dir, "sys/class/nvme-subsystem/nvme-subsys0")); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

func (i *Initiator) waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	if err := i.until(within(t, 10*time.Second), func() (bool, error) { return cond(), nil }); err != nil {
		t.Fatal(err)
	}
}

func TestPrivateNodeGoesWithTheDevice(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	_, disk := m.add(export{nqn: nqn1})
	if err := os.Remove(filepath.Join(m.dir, "dev", disk)); err != nil {
		t.Fatal(err)
	}
	ns, err := i.Find(nqn1)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Disconnect(t.Context(), nqn1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(ns.DevicePath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", ns.DevicePath, err)
	}
}
