package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// jobs are the scripts that run in the background. They outlive the session that began them [R] and end with a reboot.
type jobs struct {
	mu      sync.Mutex
	life    context.Context // ends when the device goes down
	end     context.CancelFunc
	next    int64 // begins anew at every boot [I]
	running []*job
	work    sync.WaitGroup
}

type job struct {
	id      console.ID
	owner   string
	started time.Time
	stop    context.CancelFunc
}

// boot lets jobs begin.
func (j *jobs) boot() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.life, j.end = context.WithCancel(context.Background())
	j.next = 1
}

// halt ends every job and waits for it.
func (j *jobs) halt() {
	j.mu.Lock()
	if j.end != nil {
		j.end()
	}
	j.mu.Unlock()
	j.work.Wait()
}

// begin runs something in the background.
func (j *jobs) begin(owner string, do func(context.Context)) (console.ID, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.life == nil || j.life.Err() != nil {
		return "", errors.New("failure: the device goes down")
	}
	ctx, stop := context.WithCancel(j.life)
	one := &job{id: itemID(j.next), owner: owner, started: time.Now(), stop: stop}
	j.next++
	j.running = append(j.running, one)
	j.work.Go(func() {
		defer j.forget(one)
		do(ctx)
	})
	return one.id, nil
}

func (j *jobs) forget(one *job) {
	one.stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.running = slices.DeleteFunc(j.running, func(other *job) bool { return other == one })
}

func (j *jobs) list() []*job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.running)
}

// Execute implements console.Executor. What the script prints is lost, as it is on the device without `file=`.
func (d *Device) Execute(user, script string) (console.Value, error) {
	id, err := d.jobs.begin(user, func(ctx context.Context) {
		failed, err := console.Run(ctx, d, user, script, io.Discard)
		d.log.DebugContext(ctx, "a job has ended", "failed", failed, "error", err)
	})
	if err == nil && d.quirks.is(quirkExecuteReturns, asText) {
		return string(id), nil
	}
	return id, err
}

// Jobs counts the scripts that run in the background.
func (d *Device) Jobs() int { return len(d.jobs.list()) }

// jobMenu is /system/script/job.
type jobMenu struct{ d *Device }

// Columns are those of the table.
func (jobMenu) Columns() []string { return []string{"type", "owner", "started"} }

// Verbs are print and remove.
func (jobMenu) Verbs() map[string][]string {
	return map[string][]string{"print": {}, "remove": {"numbers"}}
}

// Items are the jobs that run.
func (m jobMenu) Items(context.Context) ([]console.Item, error) {
	list := m.d.jobs.list()
	all := make([]*row, 0, len(list))
	for _, j := range list {
		all = append(all, &row{id: j.id, fields: []field{
			{name: "type", value: "command"},
			{name: "owner", value: j.owner},
			{name: "started", value: timestamp(j.started)},
		}})
	}
	return items(all), nil
}

// Print writes the table.
func (m jobMenu) Print(ctx context.Context, w io.Writer, list []console.Item, style console.PrintStyle) error {
	return listing{width: widthOf(ctx), columns: m.Columns()}.print(w, rows(list), style)
}

// Call stops jobs.
func (m jobMenu) Call(
	_ context.Context, verb string, list []console.Item, _ []console.Arg, _ io.Writer,
) (console.Value, error) {
	if verb != "remove" {
		return nil, fmt.Errorf("failure: %s is not part of this simulator", verb)
	}
	for _, r := range rows(list) {
		for _, j := range m.d.jobs.list() {
			if j.id == r.id {
				j.stop()
			}
		}
	}
	return nil, nil //nolint:nilnil // nothing to say
}

// timestamp is how the device writes a time [R].
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// clockMenu is /system/clock. The device's own time is UTC here.
func clockMenu() console.Menu {
	return fixedMenu{single: true, rows: func() []*row {
		now := time.Now().UTC()
		return []*row{{fields: []field{
			{name: "time", value: now.Format("15:04:05")},
			{name: "date", value: now.Format("2006-01-02")},
			{name: "time-zone-autodetect", value: true},
			{name: "time-zone-name", value: "UTC"},
			{name: "gmt-offset", value: "+00:00"},
			{name: "dst-active", value: false},
		}}}
	}}
}
