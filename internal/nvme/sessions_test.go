package nvme

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSessions(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	if s, err := i.Sessions(); err != nil || len(s) != 0 {
		t.Errorf("%v, %v", s, err)
	}
	m.add(export{nqn: nqn10, address: "192.0.2.2", port: 4420, state: "connecting"})
	m.add(export{nqn: nqn1})
	m.add(export{nqn: nqn1 + "-x", host: "nqn.somebody-else"})
	m.add(export{nqn: "nqn.2014-08.org.nvmexpress.discovery"})
	m.add(export{nqn: nqn1 + "-pci", transport: "pcie"})
	want := []Session{{nqn1, "live", "192.0.2.1 port 4420"}, {nqn10, "connecting", "192.0.2.2 port 4420"}}
	got, err := i.Sessions()
	if err != nil || cmp.Diff(want, got) != "" || !got[0].Live() || got[1].Live() {
		t.Errorf("%v, %v", got, err)
	}
	m.remove("nvme0")
	if got, err := i.Sessions(); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}
