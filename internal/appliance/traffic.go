package appliance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// Traffic is what an RDS says about the work of one disk item at one moment. A field means something only where Have says
// so: what the RDS did not say, or said in a way that we cannot read, is not 0.
type Traffic struct {
	Slot                  string
	ReadOps, WriteOps     float64 // per second
	ReadBytes, WriteBytes float64 // per second; RouterOS says bits [R]
	InFlight              float64 // operations under way
	// Active is how long the item was busy, Wait how long operations stood in its queue [V]. That both add up since the
	// counters began, as in Linux, is inferred [I]; on a real array both were 0ms beside 243 401 reads [R].
	Active, Wait time.Duration
	Have         Counters
}

// Counters is a set of fields of Traffic.
type Counters uint8

// The fields of Traffic that may be absent.
const (
	HaveReadOps Counters = 1 << iota
	HaveWriteOps
	HaveReadBytes
	HaveWriteBytes
	HaveInFlight
	HaveActive
	HaveWait
)

// Has says whether all of these were read.
func (t Traffic) Has(c Counters) bool { return t.Have&c == c }

// Traffic reads the counters of disk items: of a pool (Pool.Slot), of volumes. One command for all. A slot that does not exist, or
// for which the RDS has no counters, is absent: whether items of type file have any is not known [U]. The answers come in
// the order in which the slots were given.
func (r *RDS) Traffic(ctx context.Context, slots ...string) ([]Traffic, error) {
	const subject = "traffic"
	if len(slots) == 0 {
		return nil, nil
	}
	reply, err := r.read(ctx, subject, trafficScript(slots))
	if err != nil {
		return nil, err
	}
	list := make([]Traffic, 0, len(reply.Lines))
	for _, line := range reply.Lines {
		t, err := trafficOf(line, slots)
		if err != nil {
			return nil, r.about(subject, err)
		}
		if t.Have != 0 && !slices.ContainsFunc(list, func(had Traffic) bool { return had.Slot == t.Slot }) {
			list = append(list, t)
		}
	}
	return list, nil
}

// trafficCommand is how metrics and errors call it.
const trafficCommand = "disk_traffic"

// trafficScript asks for one item after the other. Asked for several at once, a monitor is told to answer a list [S], and
// one that cannot be answered would take the others away. Only when none could be answered is the reason an error.
func trafficScript(slots []string) *routeros.Builder {
	list := routeros.Text(slots[0])
	for _, slot := range slots[1:] {
		list = routeros.Part(`?;?`, list, routeros.Text(slot))
	}
	return routeros.NewScript(trafficCommand).
		Add(`:local n 0; :local x ""`).
		Add(`:foreach s in={?} do={
			:local d [/disk find where slot=$s];
			:if ([:len $d]=1) do={:onerror w in={
				:local m [/disk monitor-traffic $d once as-value];
				:put ($s . " " . [:serialize to=json options=json.no-string-conversion $m]);
				:set n ($n+1)} do={:set x $w}}}`, list).
		Add(`:if (($n=0) && ([:len $x]>0)) do={:error $x}`)
}

// trafficOf reads a line: a slot, and what a monitor says of it, a map [S] or a list that holds one. Nothing at all is no
// counters.
func trafficOf(line string, slots []string) (Traffic, error) {
	i := slices.IndexFunc(slots, func(slot string) bool { return strings.HasPrefix(line, slot+" ") })
	if i < 0 {
		return Traffic{}, fmt.Errorf("%w: %.40q, which was not asked for", ErrAnswer, line)
	}
	t, text := Traffic{Slot: slots[i]}, line[len(slots[i])+1:]
	if text == "" || text == "[]" {
		return t, nil
	}
	if strings.HasPrefix(text, "{") {
		text = "[" + text + "]"
	}
	rows, err := records(routeros.Reply{Lines: []string{text}}, 0)
	if err != nil {
		return t, err
	}
	if len(rows) != 1 {
		return t, fmt.Errorf("%w: %d rows about disk item %s", ErrAnswer, len(rows), t.Slot)
	}
	t.read(rows[0])
	return t, nil
}

// read takes over what can be read.
func (t *Traffic) read(row record) {
	t.float(HaveReadOps, &t.ReadOps, count, row.text("read-ops-per-second"))
	t.float(HaveWriteOps, &t.WriteOps, count, row.text("write-ops-per-second"))
	t.float(HaveReadBytes, &t.ReadBytes, rate, row.text("read-rate"))
	t.float(HaveWriteBytes, &t.WriteBytes, rate, row.text("write-rate"))
	t.float(HaveInFlight, &t.InFlight, count, row.text("in-flight-ops"))
	t.time(HaveActive, &t.Active, row.text("active-time"))
	t.time(HaveWait, &t.Wait, row.text("wait-time"))
}

func (t *Traffic) float(which Counters, to *float64, parse func(string) (float64, bool), text string) {
	if value, ok := parse(text); ok {
		*to = value
		t.Have |= which
	}
}

func (t *Traffic) time(which Counters, to *time.Duration, text string) {
	if value, ok := span(text); ok {
		*to = value
		t.Have |= which
	}
}
