package nvme

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	nqn1  = "nqn.2000-02.com.mikrotik:disk-1"
	nqn10 = "nqn.2000-02.com.mikrotik:disk-10"
)

func TestFindTellsTheStatesApart(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(m *machine)
		want    error
		device  string // name of the device that must come with it
	}{
		{"nothing", func(*machine) {}, ErrNotConnected, ""},
		{"only a lookalike NQN (B7)", func(m *machine) { m.add(export{nqn: nqn10}) }, ErrNotConnected, ""},
		{"live", func(m *machine) { m.add(export{nqn: nqn1}) }, nil, "nvme0n1"},
		{"live, beside lookalikes", func(m *machine) {
			m.add(export{nqn: nqn10})
			m.add(export{nqn: nqn1})
			m.add(export{nqn: nqn1 + "-clone"})
		}, nil, "nvme1n1"},
		{"live without native multipath", func(m *machine) { m.add(export{nqn: nqn1, noMultipath: true}) }, nil, "nvme0n1"},
		{"target is down", func(m *machine) { m.add(export{nqn: nqn1, state: "connecting"}) }, ErrNotLive, "nvme0n1"},
		{"one of two paths is live", func(m *machine) {
			m.add(export{nqn: nqn1, state: "connecting", noNamespace: true})
			m.add(export{nqn: nqn1})
		}, nil, "nvme1n1"},
		{"live without a device", func(m *machine) { m.add(export{nqn: nqn1, noNamespace: true}) }, ErrNoNamespace, ""},
		{"two devices for one namespace", func(m *machine) {
			m.add(export{nqn: nqn1, noMultipath: true})
			m.add(export{nqn: nqn1, noMultipath: true})
		}, ErrIdentity, ""},
		{"subsystem outlived its controllers", func(m *machine) {
			m.onReplaced = func(string) string { return "subsystem" }
			ctrl, _ := m.add(export{nqn: nqn1})
			m.remove(ctrl)
		}, ErrNoPath, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			tt.prepare(m)
			ns, err := m.initiator().Find(nqn1)
			if !errors.Is(err, tt.want) || (tt.want == nil && err != nil) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if ns.Name != tt.device {
				t.Fatalf("device %q, want %q", ns.Name, tt.device)
			}
			if err != nil && !strings.Contains(err.Error(), nqn1) {
				t.Errorf("error does not name the volume: %v", err)
			}
		})
	}
}

// The class entries of the fixture are symbolic links, as the kernel's are: B22
// was a cleaner that looked for directories and saw nothing.
func TestFindReadsTheWholeNamespaceThroughSymlinks_B22(t *testing.T) {
	m := newMachine(t)
	m.add(export{nqn: nqn10})
	m.add(export{nqn: nqn1, sectors: 4096})
	got, err := m.initiator().Find(nqn1)
	if err != nil {
		t.Fatal(err)
	}
	want := Namespace{
		NQN: nqn1, NSID: 1, Name: "nvme1n1", DevicePath: filepath.Join(m.dir, "dev/nvme1n1"),
		Major: 259, Minor: 1, SizeBytes: 4096 * 512, UUID: "8f6f2d7e-6f0f-4a1c-9a53-000000000001",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// A device node is believed for its number, not for its name (B9).
func TestDeviceNodeOfAnotherDeviceIsNotUsed_B9(t *testing.T) {
	for name, stale := range map[string]string{"stale": "259:77", "a file": "hello", "missing": ""} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			_, disk := m.add(export{nqn: nqn1})
			if stale == "" {
				if err := os.Remove(filepath.Join(m.dir, "dev", disk)); err != nil {
					t.Fatal(err)
				}
			} else {
				m.write1("dev/"+disk, stale)
			}
			for range 2 { // the second finds the node that the first made
				ns, err := m.initiator().Find(nqn1)
				if err != nil {
					t.Fatal(err)
				}
				if major, minor, err := m.number(ns.DevicePath); err != nil || major != 259 || minor != 0 {
					t.Fatalf("%s is %d:%d (%v)", ns.DevicePath, major, minor, err)
				}
			}
		})
	}
}

// What cannot be read is unknown, not absent (B7): Disconnect must not report
// success for it.
func TestUnknownStateIsAnError_B7(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	dir := "sys/class/nvme-subsystem/nvme-subsys9"
	m.mkdir(dir + "/subsysnqn") // reading a directory fails, and not with "not found"
	if _, err := i.Find(nqn1); err == nil || errors.Is(err, ErrNotConnected) {
		t.Errorf("Find: %v", err)
	}
	if err := i.Disconnect(t.Context(), nqn1); err == nil {
		t.Error("Disconnect reported success")
	}
	i.cfg.SysRoot = filepath.Join(m.dir, "not-mounted")
	if err := i.Disconnect(t.Context(), nqn1); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Disconnect without sysfs: %v", err)
	}
	if _, err := i.Connections(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Connections without sysfs: %v", err)
	}
}

func TestPresent(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	if _, err := i.Present(259, 3); !errors.Is(err, ErrUnsupported) {
		t.Errorf("without a list of devices: %v", err) // B7: not known is not gone
	}
	m.mkdir("sys/dev/block")
	m.link("../../devices/virtual/nothing", "sys/dev/block/259:30") // a link that leads nowhere is a device all the same
	for minor, want := range map[uint32]bool{30: true, 3: false} {
		if got, err := i.Present(259, minor); err != nil || got != want {
			t.Errorf("259:%d: %v %v", minor, got, err)
		}
	}
}

func TestConnectionsCountsOnlyThisHost(t *testing.T) {
	m := newMachine(t)
	for _, e := range []export{
		{nqn: nqn1}, {nqn: nqn10}, {nqn: "nqn.x:c", state: "connecting"}, {nqn: "nqn.x:r", state: "resetting"},
		{nqn: "nqn.x:d", state: "deleting"}, {nqn: "nqn.x:dn", state: "deleting (no IO)"}, {nqn: "nqn.x:n", state: "new"},
		{nqn: "nqn.x:other-host", host: "nqn.2014-08.org.nvmexpress:uuid:somebody-else"},
		{nqn: "nqn.x:rdma", transport: "rdma"},
	} {
		m.add(e)
	}
	m.mkdir("sys/devices/pci0000:00/nvme/nvme99") // a local disk has neither attribute
	m.link("../../devices/pci0000:00/nvme/nvme99", "sys/class/nvme/nvme99")
	got, err := m.initiator().Connections()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"live": 2, "connecting": 1, "resetting": 1, "deleting": 2, "other": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// B7: a kernel that does not tell whose a controller is gets no count at all.
func TestConnectionsOnAKernelWithoutHostNames(t *testing.T) {
	m := newMachine(t)
	ctrl, _ := m.add(export{nqn: "nqn.2014-08.org.example:root-disk"})
	remove := func(ctrl string) {
		if err := os.Remove(filepath.Join(m.dir, "sys/class/nvme", ctrl, "hostnqn")); err != nil {
			t.Fatal(err)
		}
	}
	remove(ctrl)
	if counts, err := m.initiator().Connections(); err != nil || counts["live"] != 0 {
		t.Errorf("somebody else's: %v %v", counts, err)
	}
	ctrl, _ = m.add(export{nqn: nqn1})
	remove(ctrl)
	if counts, err := m.initiator().Connections(); !errors.Is(err, ErrUnsupported) || counts != nil {
		t.Errorf("%v %v", counts, err)
	}
}

func TestConnectionsCountDeadSubsystems(t *testing.T) {
	m := newMachine(t)
	m.onReplaced = func(string) string { return "subsystem" }
	for _, nqn := range []string{nqn1, nqn10, "nqn.2014-08.org.example:root-disk"} {
		ctrl, _ := m.add(export{nqn: nqn})
		if nqn != nqn10 {
			m.remove(ctrl)
		}
	}
	if counts, err := m.initiator().Connections(); err != nil || counts["other"] != 1 || counts["live"] != 1 {
		t.Errorf("%v %v", counts, err)
	}
}

func TestConnectionsWithoutTheModule(t *testing.T) {
	m := newMachine(t)
	if err := os.Remove(filepath.Join(m.dir, "sys/class/nvme")); err != nil {
		t.Fatal(err)
	}
	got, err := m.initiator().Connections()
	if err != nil || got["live"] != 0 || len(got) != 5 {
		t.Fatalf("%v %v", got, err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string][2]bool{
		"nvme0": {true, false}, "nvme12": {true, false}, "nvme0n1": {false, true}, "nvme10n22": {false, true},
		"nvme0c0n1": {false, false}, "nvme": {false, false}, "nvmen1": {false, false}, "0n1": {false, false},
		"nvme0n": {false, false}, "nvme0n1p1": {false, false}, "nvme-subsys0": {false, false}, "power": {false, false}, "": {false, false},
	} {
		if got := [2]bool{controllerName(name), diskName(name)}; got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

// Every node has a name of its own at the target, so that a target can tell nodes apart at all.
func TestHostPairIsStableAndUnique_B28(t *testing.T) {
	a := HostFor("rds.csi.srvlab.io", "homelab", "node-1")
	if a != HostFor("rds.csi.srvlab.io", "homelab", "node-1") {
		t.Error("not stable")
	}
	if a.NQN != "nqn.2014-08.org.nvmexpress:uuid:"+a.ID || len(a.ID) != 36 || a.ID[14] != '5' {
		t.Errorf("not a pair with a version 5 UUID: %+v", a)
	}
	seen := map[string]bool{a.ID: true}
	for _, o := range []Host{
		HostFor("rds.csi.srvlab.io", "homelab", "node-2"), HostFor("rds.csi.srvlab.io", "homelabn", "ode-1"),
		HostFor("rds.csi.srvlab.io", "other", "node-1"), HostFor("other", "homelab", "node-1"),
	} {
		if seen[o.ID] {
			t.Errorf("%s twice", o.ID)
		}
		seen[o.ID] = true
	}
	// RFC 4122, appendix of implementations: the URL name space, "www.example.com"
	// hashed by an independent implementation (Python's uuid.uuid5).
	if got := uuid5("www.example.com"); got != "b63cdfa4-3df9-568e-97ae-006c5b8fd652" {
		t.Errorf("uuid5: %s", got)
	}
}
