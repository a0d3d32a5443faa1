package reconcile

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/kube"
)

// Ledger is what the attachments are known by.
type Ledger interface {
	// Attachments are all VolumeAttachments of this driver.
	Attachments() []attach.Attachment
	// KnownNodes are all Node objects.
	KnownNodes() []attach.Node
	// Words are what kubelets have in use, and what that proves.
	Words() []attach.Word
	// Migrations are the volumes that are attached to two nodes.
	Migrations() []attach.Migration
}

// Events tells people.
type Events interface {
	// Volume records an event on the claim of a volume; it does not wait.
	Volume(volume string, kind kube.EventType, reason, message string)
	// Node records an event on a node; it does not wait.
	Node(name string, kind kube.EventType, reason, message string)
}

// DriftConfig of a Drift.
type DriftConfig struct {
	Surveys  []*Survey
	Interval time.Duration // of the surveys; what is older than three of them is not known any more
	Grace    time.Duration
	Logger   *slog.Logger

	// Ledger is nil without Kubernetes: then nothing is an authority for attachments, and only the stock is counted.
	Ledger Ledger
	// Known says whether the API server has told all of it: VolumeAttachments, PersistentVolumes and Nodes.
	Known func() bool
	// Claimed are the handles of the PersistentVolumes of this driver; known is false before the first list.
	Claimed func() (handles []string, known bool)
	Events  Events
	// Repair makes sure that an attached volume is exported. done says whether anything was settled: not when the
	// volume was busy or detached since, or the RDS did not answer. Then the next look decides.
	Repair   func(ctx context.Context, volume string) (done bool, err error)
	Repaired func(kind, result string) // counts; may be nil
}

// State is what the last comparison said. Nobody changes one that was handed out.
type State struct {
	At    time.Time
	Drift map[Kind]int     // the kinds of which the number is known
	Stock map[string]Stock // by the name of the RDS; those with a list that is not too old
}

// repairLimit is for one volume.
const repairLimit = 30 * time.Second

// Drift compares again and again, reports what lasts, and repairs lost exports.
// Its memory (since when) is rebuilt by the grace time.
type Drift struct {
	cfg      DriftConfig
	findings *tracker
	orphans  *tracker
	state    atomic.Pointer[State]
	wake     chan struct{}
	busy     map[string]*atomic.Bool // RDSs whose lost exports are being repaired
}

// NewDrift makes one that knows nothing until Watch has looked.
func NewDrift(cfg DriftConfig) *Drift {
	d := &Drift{
		cfg: cfg, findings: newTracker(cfg.Grace), orphans: newTracker(cfg.Grace),
		wake: make(chan struct{}, 1), busy: map[string]*atomic.Bool{},
	}
	for _, s := range cfg.Surveys {
		d.busy[s.RDS()] = &atomic.Bool{}
	}
	if d.cfg.Repaired == nil {
		d.cfg.Repaired = func(string, string) {}
	}
	d.state.Store(&State{})
	return d
}

// State is what is known now: nothing, when the last comparison is older than
// three intervals. It reads memory only.
func (d *Drift) State() *State {
	if s := d.state.Load(); time.Since(s.At) <= Stale*d.cfg.Interval {
		return s
	}
	return &State{}
}

// Wake asks for a comparison now: a survey has looked, a migration is overdue.
func (d *Drift) Wake() {
	select {
	case d.wake <- struct{}{}:
	default: // one is asked for already
	}
}

// Watch compares at once, after each look at an RDS, and every interval, until
// ctx ends.
func (d *Drift) Watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var repairs sync.WaitGroup
	defer repairs.Wait()
	defer cancel()
	for {
		d.compare(ctx, &repairs)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.wake:
		case <-time.After(d.cfg.Interval):
		}
	}
}

// compare reads the lists first and the cluster after them, so that what a list
// lacks is held against what is attached still.
func (d *Drift) compare(ctx context.Context, repairs *sync.WaitGroup) {
	now := time.Now()
	if now.Sub(d.state.Load().At) > Stale*d.cfg.Interval { // the first time, or this process stood still
		d.forget()
	}
	lists := d.lists(now)
	state := &State{At: now}
	switch {
	case d.cfg.Ledger == nil:
		state.Stock = d.stock(ctx, lists, nil)
	case !d.cfg.Known():
		d.forget()
	default:
		v := View{
			Now: now, Lists: lists, Attachments: d.cfg.Ledger.Attachments(),
			Nodes: d.cfg.Ledger.KnownNodes(), Words: d.cfg.Ledger.Words(), Migrations: d.cfg.Ledger.Migrations(),
		}
		looks := answered(lists)
		looks[byKubernetes] = now
		for _, o := range d.findings.update(Findings(v), looks) {
			d.report(ctx, o)
		}
		d.tellNodes(v)
		d.repairLost(ctx, repairs)
		state.Drift = d.counted(len(looks) == len(lists)+1)
		state.Stock = d.stock(ctx, lists, v.Attachments)
	}
	d.state.Store(state)
}

func (d *Drift) forget() {
	d.findings.forget()
	d.orphans.forget()
}

// lists has every RDS; the value is empty where nothing is known that is fresh.
func (d *Drift) lists(now time.Time) map[string]Reading[[]appliance.Volume] {
	lists := map[string]Reading[[]appliance.Volume]{}
	for _, s := range d.cfg.Surveys {
		lists[s.RDS()] = s.Latest().Volumes.orNothing(now, Stale*d.cfg.Interval)
	}
	return lists
}

// answered are the times of the lists of which something is known.
func answered(lists map[string]Reading[[]appliance.Volume]) map[string]time.Time {
	looks := map[string]time.Time{}
	for rds, list := range lists {
		if !list.Came.IsZero() {
			looks[rds] = list.Asked
		}
	}
	return looks
}

// counted are the numbers of findings that are known. While an RDS is silent the
// others' findings are told, but not that there is none.
func (d *Drift) counted(complete bool) map[Kind]int {
	out := map[Kind]int{}
	for _, k := range Kinds() {
		n, known := d.findings.count(func(f Finding) bool { return f.Kind == k })
		if k == InUseUnattached && n == 0 && d.unproven() {
			known = false
		}
		if known && (n > 0 || complete || !k.byRDS()) {
			out[k] = n
		}
	}
	return out
}

// unproven says whether a kubelet may have something mounted that nothing puts there.
func (d *Drift) unproven() bool {
	for _, o := range d.findings.open {
		if o.Kind == inUseUnproven {
			return true
		}
	}
	return false
}

// stock counts what each RDS has of this cluster.
func (d *Drift) stock(ctx context.Context, lists map[string]Reading[[]appliance.Volume], attachments []attach.Attachment) map[string]Stock {
	claimed, known := d.claimed()
	ours := map[string]bool{}
	for handle := range claimed {
		ours[handle] = true
	}
	for _, a := range attachments {
		ours[a.Volume] = true
	}
	if known {
		d.lookForOrphans(ctx, lists, claimed)
	} else {
		d.orphans.forget()
	}
	out := map[string]Stock{}
	for rds := range answered(lists) {
		s := stock(lists[rds], ours)
		s.Orphaned, s.OrphansKnown = d.orphans.count(func(f Finding) bool { return f.authority() == rds })
		s.OrphansKnown = s.OrphansKnown && known
		out[rds] = s
	}
	return out
}

func (d *Drift) lookForOrphans(ctx context.Context, lists map[string]Reading[[]appliance.Volume], claimed map[string]bool) {
	found := make([]Finding, 0, len(lists))
	for _, list := range lists {
		found = append(found, orphans(list, claimed)...)
	}
	for _, o := range d.orphans.update(found, answered(lists)) {
		d.cfg.Logger.WarnContext(ctx, "orphaned volume", "volume", o.Volume, "what", o.Detail, "next", orphan.nextStep())
	}
}

func (d *Drift) claimed() (map[string]bool, bool) {
	if d.cfg.Claimed == nil {
		return nil, false
	}
	handles, known := d.cfg.Claimed()
	claimed := make(map[string]bool, len(handles))
	for _, h := range handles {
		claimed[h] = true
	}
	return claimed, known
}

// report tells once that a finding counts. Of an overdue migration Migrations
// tells, at the minute; what is not proven is for the log alone.
func (d *Drift) report(ctx context.Context, o *occurrence) {
	d.cfg.Logger.WarnContext(ctx, "attachment drift", "kind", string(o.Kind), "volume", o.Volume, "node", o.Node,
		"what", o.Detail, "next", o.Kind.nextStep())
	if o.Kind == MigrationOverdue || o.Kind == inUseUnproven {
		return
	}
	d.cfg.Events.Volume(o.Volume, kube.Warning, kube.AttachmentDrift, o.message())
}

// tellNodes tells a Node once of what counts about it. One that is gone is told when
// it is made again: who set the machine up anew looks there.
func (d *Drift) tellNodes(v View) {
	for _, o := range d.findings.open {
		if o.counts && !o.onNode && (o.Kind == NodeGone || o.Kind == InUseUnattached) && v.hasNode(o.Node) {
			o.onNode = true
			d.cfg.Events.Node(o.Node, kube.Warning, kube.AttachmentDrift, o.message())
		}
	}
}

// repairLost exports again what counts as lost, once per occurrence, one volume
// after the other on each RDS, and beside the comparison: an RDS that falls silent
// now must not delay what is known of the others.
func (d *Drift) repairLost(ctx context.Context, repairs *sync.WaitGroup) {
	lost := map[string][]lostExport{}
	for _, o := range d.findings.open {
		if o.Kind == ExportLost && o.counts && !o.repaired.Load() {
			rds, _, _ := strings.Cut(o.Volume, "/")
			lost[rds] = append(lost[rds], lostExport{o, o.Volume})
		}
	}
	for rds, volumes := range lost {
		if busy := d.busy[rds]; busy.CompareAndSwap(false, true) {
			repairs.Go(func() {
				defer busy.Store(false)
				err := Loop{Run: func(ctx context.Context) error { return d.repairAll(ctx, volumes) }}.guarded(ctx)
				if err != nil && ctx.Err() == nil {
					d.cfg.Logger.WarnContext(ctx, "repairing goes on after the next look", "rds", rds, "err", err)
				}
			})
		}
	}
}
