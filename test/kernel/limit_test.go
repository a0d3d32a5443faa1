//go:build kernel

package kernel

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// What the attach limit counts with: a volume is one connection and one more per processor, to one port of its target.
func TestConnectionsPerVolume(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "pvc-1", 16*mib)
	connect(t, i, e)
	to := fmt.Sprintf("0100007F:%04X", e.port)
	connections := 0
	for line := range strings.Lines(read(t, "/proc/net/tcp")) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == to && f[3] == "01" { // established
			connections++
		}
	}
	if want := 1 + runtime.NumCPU(); connections != want {
		t.Errorf("%d connections with %d processors", connections, runtime.NumCPU())
	}
	limit, err := i.MaxVolumes()
	if err != nil || limit < 100 || limit > 28232/2/int64(1+runtime.NumCPU()) {
		t.Errorf("%d volumes, %v", limit, err)
	}
	must(t, i.Disconnect(soon(t), e.nqn))
}
