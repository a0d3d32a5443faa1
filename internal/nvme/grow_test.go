package nvme

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func (m *machine) resize(disk string, sectors int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.write1("sys/class/nvme-subsystem/nvme-subsys0/"+disk+"/size", fmt.Sprint(sectors))
}

func TestGrown(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(m *machine, disk string)
		want    int64
		err     error
		rescans bool
	}{
		"large already":            {func(*machine, string) {}, 2048 * 512, nil, false},
		"no size asked":            {func(*machine, string) {}, 0, nil, false},
		"announced":                {func(m *machine, disk string) { m.resize(disk, 4096) }, 4096 * 512, nil, false},
		"seen after a rescan":      {func(m *machine, disk string) { m.onWrite = func(_, _ string) { m.resize(disk, 4096) } }, 4096 * 512, nil, true},
		"never seen":               {func(*machine, string) {}, 4096 * 512, ErrOldSize, true},
		"grown, but not so far":    {func(m *machine, disk string) { m.resize(disk, 4095) }, 4096 * 512, ErrOldSize, true},
		"the target is away":       {func(m *machine, _ string) { m.set("nvme0", "state", "connecting") }, 4096 * 512, ErrNotLive, false},
		"disconnected meanwhile":   {func(m *machine, _ string) { m.onWrite = func(ctrl, _ string) { m.remove(ctrl) } }, 4096 * 512, ErrNotConnected, false},
		"nothing of it is there":   {func(m *machine, _ string) { m.remove("nvme0") }, 4096 * 512, ErrNotConnected, false},
		"a lookalike is not grown": {func(m *machine, _ string) { m.add(export{nqn: nqn10, sectors: 4096}) }, 4096 * 512, ErrOldSize, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			_, disk := m.add(export{nqn: nqn1})
			tt.prepare(m, disk)
			i := m.initiator()
			i.growLimit = time.Minute
			if errors.Is(tt.err, ErrOldSize) {
				i.growLimit = 200 * time.Millisecond
			}
			ns, err := i.Grown(t.Context(), nqn1, tt.want)
			if !errors.Is(err, tt.err) || tt.err == nil && (err != nil || ns.SizeBytes < tt.want) {
				t.Errorf("%+v %v", ns, err)
			}
			_, writes := m.log()
			if rescanned := len(writes) > 0; tt.rescans != rescanned && !errors.Is(tt.err, ErrNotConnected) {
				t.Errorf("%q", writes)
			}
			for _, w := range writes {
				if w != "nvme0 rescan_controller" {
					t.Errorf("%q", w)
				}
			}
			if len(writes) > 10 {
				t.Errorf("%d rescans", len(writes))
			}
		})
	}
}

func TestGrownEndsWithItsCaller(t *testing.T) {
	m := newMachine(t)
	m.add(export{nqn: nqn1})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	i := m.initiator()
	i.growLimit = time.Minute
	began := time.Now()
	if _, err := i.Grown(ctx, nqn1, 1<<40); !errors.Is(err, ErrTimeout) || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
