package nvme

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mostQueues is how many I/O queues a Linux target grants (NVMET_NR_QUEUES); a host asks for one per processor.
const mostQueues = 128

// MaxVolumes is how many volumes this node can hold at once, as far as the node sets a limit.
//
// The kernel numbers controllers and namespaces up to 2^20. What ends long before is TCP: a volume is a controller of its
// own, with a connection for its admin queue and one per processor for I/O, all to the one address and port of its RDS.
// Between two addresses and one port there are as many connections as there are local ports (28,232 by default). Half of
// them are left over: a connection that broke keeps its port for a minute while the next one takes another, and when an
// RDS comes back all of them reconnect at once.
func (i *Initiator) MaxVolumes() (int64, error) {
	ports, err := i.localPorts()
	if err != nil {
		return 0, err
	}
	processors, err := i.processors()
	if err != nil {
		return 0, err
	}
	return max(ports/2/(1+min(processors, mostQueues)), 1), nil
}

func (i *Initiator) localPorts() (int64, error) {
	text, err := os.ReadFile(filepath.Join(i.cfg.ProcRoot, "sys/net/ipv4/ip_local_port_range"))
	if err != nil {
		return 0, err
	}
	var low, high int64
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil || high < low {
		return 0, fmt.Errorf("ip_local_port_range says %q: %w", strings.TrimSpace(string(text)), errors.Join(ErrUnsupported, err))
	}
	return high - low + 1, nil
}

// processors are those online, listed as 0-3,8.
func (i *Initiator) processors() (n int64, err error) {
	text, err := attribute(filepath.Join(i.cfg.SysRoot, "devices/system/cpu"), "online")
	if err != nil {
		return 0, err
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err := strconv.ParseInt(first, 10, 32)
		b, err2 := strconv.ParseInt(last, 10, 32)
		if err := errors.Join(err, err2); err != nil || b < a {
			return 0, fmt.Errorf("%w: online processors are %q: %w", ErrUnsupported, text, errors.Join(errors.New("not a list"), err))
		}
		n += b - a + 1
	}
	return n, nil
}
