package nvme

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestMaxVolumes(t *testing.T) {
	for _, tt := range []struct {
		ports, processors string
		want              int64 // 0: cannot be told
	}{
		{"32768\t60999", "0", 7058},
		{"32768\t60999", "0-3", 2823},
		{"32768\t60999", "0-1,4-5,9", 2352},
		{"32768\t60999", "0-63", 217},
		{"32768\t60999", "0-255", 109}, // a target grants 128 queues
		{"60000\t60001", "0-7", 1},
		{"60999\t32768", "0", 0},
		{"", "0", 0},
		{"32768\t60999", "", 0},
		{"32768\t60999", "3-1", 0},
		{"32768\t60999", "0-x", 0},
	} {
		m := newMachine(t)
		i := m.initiator()
		i.cfg.ProcRoot = filepath.Join(m.dir, "proc")
		if _, err := i.MaxVolumes(); err == nil {
			t.Error("without proc and sys")
		}
		m.mkdir("proc/sys/net/ipv4")
		m.mkdir("sys/devices/system/cpu")
		m.write1("proc/sys/net/ipv4/ip_local_port_range", tt.ports)
		m.write1("sys/devices/system/cpu/online", tt.processors)
		n, err := i.MaxVolumes()
		if n != tt.want || (tt.want == 0) != errors.Is(err, ErrUnsupported) {
			t.Errorf("%q, %q: %d, %v; want %d", tt.ports, tt.processors, n, err, tt.want)
		}
	}
}
