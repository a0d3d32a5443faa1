package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// story is what people and Prometheus were told.
type story struct {
	mu    sync.Mutex
	lines []string
}

func (s *story) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// Volume and Node are Events, of which the first word of the message is kept.
func (s *story) Volume(volume, kind, reason, message string) {
	s.add("%s %s %s %s", kind, reason, volume, strings.Fields(message)[0])
}

func (s *story) Node(name, kind, reason, message string) {
	s.add("%s %s node %s %s", kind, reason, name, strings.Fields(message)[0])
}

func (s *story) repaired(kind, result string) { s.add("repaired %s %s", kind, result) }

// take returns what was told since the last take.
func (s *story) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines
	s.lines = nil
	slices.Sort(lines)
	return lines
}

// scene is a Drift over the real ledger and a fake RDS with one volume, which node a has.
type scene struct {
	*Drift
	t       *testing.T
	rds     *appliancetest.Fake
	ledger  *attach.Ledger
	story   *story
	slot    string
	volume  string
	known   atomic.Bool
	claimed atomic.Pointer[[]string]
	repair  func(context.Context, string) (bool, error)
}

const grace = 2 * time.Minute

func newScene(t *testing.T) *scene {
	s := &scene{t: t, rds: fakeRDS(t), ledger: attach.NewLedger(attach.Options{}), story: &story{}}
	s.known.Store(true)
	s.slot = appliance.SlotFor("homelab", "pvc-1")
	s.volume = "rds1/" + s.slot
	s.claims(s.volume)
	s.repair = func(ctx context.Context, volume string) (bool, error) {
		_, err := s.rds.Export(ctx, strings.TrimPrefix(volume, "rds1/"))
		return !errors.Is(err, appliance.ErrUnavailable), err
	}
	s.ledger.ReplaceNodes([]attach.Node{nodeOf("a"), nodeOf("b")})
	s.ledger.Replace([]attach.Attachment{attachmentOf(s.volume, "a")})
	return s
}

// begin starts the survey and the comparison; without a ledger it is a controller without Kubernetes.
func (s *scene) begin(ledger Ledger) (stop func()) {
	looks := NewSurvey(SurveyConfig{RDS: "rds1", Interval: time.Minute, Looked: func() { s.Wake() }, Logger: quietLogger()})
	s.Drift = NewDrift(DriftConfig{
		Surveys: []*Survey{looks}, Interval: time.Minute, Grace: grace, Logger: quietLogger(),
		Ledger: ledger, Known: s.known.Load,
		Claimed:  func() ([]string, bool) { return *s.claimed.Load(), s.known.Load() },
		Events:   s.story,
		Repair:   func(ctx context.Context, volume string) (bool, error) { return s.repair(ctx, volume) },
		Repaired: s.story.repaired,
	})
	stopSurvey := run(s.t, func(ctx context.Context) error { return looks.Watch(ctx, s.rds) })
	stopDrift := run(s.t, s.Watch)
	return func() { stopSurvey(); stopDrift() }
}

func (s *scene) claims(volumes ...string) { s.claimed.Store(&volumes) }

func (s *scene) unexport() {
	disk := s.rds.Disks(s.t)[s.slot]
	disk.Exported = false
	s.rds.PutDisk(s.t, disk)
}

func (s *scene) tells(step string, want ...string) {
	s.t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(want, s.story.take()); diff != "" {
		s.t.Errorf("%s: %s", step, diff)
	}
}

func (s *scene) counts(step string, k Kind, want int) {
	s.t.Helper()
	if n, known := s.State().Drift[k]; n != want || !known {
		s.t.Errorf("%s: %d of %s (known: %t), want %d", step, n, k, known, want)
	}
}

// A lost export counts after the grace time, is repaired once and visibly, and then it is gone; lost again it is a new occurrence.
func TestLostExportIsRepairedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		defer s.begin(s.ledger)()
		for range 2 {
			let(time.Minute)
			s.counts("all is well", ExportLost, 0)
			s.unexport()
			let(grace) // two looks, at most two minutes apart
			s.tells("within the grace time")
			let(grace + time.Minute)
			lost := "Warning AttachmentDrift " + s.volume + " export_lost:"
			s.tells("after it", "Normal ExportRepaired "+s.volume+" the", lost, "repaired export_lost ok")
			if !s.rds.Disks(t)[s.slot].Exported {
				t.Error("it is not exported")
			}
			let(2 * time.Minute)
			s.counts("repaired", ExportLost, 0)
			s.tells("and nothing more")
		}
	})
}

// What was tried and refused is not tried again for the same occurrence; what could not be tried is, at the next look.
func TestRepairIsTriedUntilItWasTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		const later = 3
		var tried atomic.Int64
		s.repair = func(context.Context, string) (bool, error) {
			if tried.Add(1) <= later {
				return false, errors.New("the volume is busy")
			}
			return true, errors.New("the rds refuses")
		}
		s.unexport()
		defer s.begin(s.ledger)()
		let(30 * time.Minute)
		if n := tried.Load(); n != later+1 {
			t.Errorf("tried %d times", n)
		}
		s.counts("at the end", ExportLost, 1)
		s.tells("at the end", "Warning AttachmentDrift "+s.volume+" export_lost:", "Warning RepairFailed "+s.volume+" volume", "repaired export_lost error")
	})
}

// A repair that hangs or panics delays no comparison.
func TestRepairDelaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		var tried atomic.Int64
		s.repair = func(ctx context.Context, _ string) (bool, error) {
			if tried.Add(1) == 1 {
				panic("in a repair")
			}
			<-ctx.Done()
			return false, ctx.Err()
		}
		s.unexport()
		defer s.begin(s.ledger)()
		for range 20 {
			let(time.Minute)
			if age := time.Since(s.State().At); age > time.Minute {
				t.Fatalf("the last comparison is %s old", age)
			}
		}
		if n := tried.Load(); n < 5 {
			t.Errorf("tried %d times only", n)
		}
	})
}

// Unknown is not none: before all of it was read there is no number, and none of the numbers that need the RDS says 0 while it is silent.
func TestUnknownDriftHasNoNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.known.Store(false)
		defer s.begin(s.ledger)()
		let(time.Minute)
		if got := s.State(); got.Drift != nil || got.Stock != nil {
			t.Errorf("before Kubernetes was read: %+v", got)
		}
		s.known.Store(true)
		let(time.Minute)
		if n := len(s.State().Drift); n != len(Kinds()) {
			t.Errorf("%d kinds after the first look, want all", n)
		}
		release := s.rds.Hold(appliancetest.List)
		let(Stale*time.Minute + 2*time.Minute)
		got := s.State()
		for _, k := range Kinds() {
			if _, there := got.Drift[k]; there == k.byRDS() {
				t.Errorf("%s while the rds is silent: there %t", k, there)
			}
		}
		if len(got.Stock) != 0 {
			t.Errorf("the stock of a silent rds: %+v", got.Stock)
		}
		release()
		let(2 * time.Minute)
		if n := len(s.State().Drift); n != len(Kinds()) {
			t.Errorf("%d kinds after it answers again", n)
		}
	})
}

// Two looks before and after a long silence prove nothing about the time between, and one look is no two.
func TestSilenceIsNoGraceTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.unexport()
		defer s.begin(s.ledger)()
		release := s.rds.Hold(appliancetest.List)
		let(10 * time.Minute)
		s.tells("one look, ten minutes ago")
		release()
		let(90 * time.Second)
		s.tells("the second look, after silence")
	})
}

// Of a vanished node the claim hears, and the Node if there is one again; the finding goes at once with the VolumeAttachment.
func TestVanishedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		defer s.begin(s.ledger)()
		s.ledger.RemoveNode("a")
		let(grace + 3*time.Minute)
		s.counts("the Node is gone", NodeGone, 1)
		s.tells("the Node is gone", "Warning AttachmentDrift "+s.volume+" node_gone:")
		again := nodeOf("a")
		again.UID = "another"
		s.ledger.UpsertNode(again)
		let(time.Minute)
		s.counts("made again", NodeGone, 1)
		s.tells("the same finding, for whoever made the Node", "Warning AttachmentDrift node a node_gone:")
		let(time.Minute)
		s.tells("and once")
		s.ledger.Replace(nil)
		let(time.Minute)
		s.counts("detached", NodeGone, 0)
		s.ledger.Replace([]attach.Attachment{attachmentOf(s.volume, "a")})
		let(grace + 3*time.Minute)
		s.tells("attached, and the Node is another one", "Warning AttachmentDrift "+s.volume+" node_gone:", "Warning AttachmentDrift node a node_gone:")
	})
}

// The stock is this cluster's: its own volumes, and those of the existing driver that it has PersistentVolumes for.
func TestStockAndOrphans(t *testing.T) {
	const adopted, other = "pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11", "pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a12"
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		put := func(d appliancetest.Disk) {
			d.Path, d.SizeBytes, d.Exported = "/storage-pool/k8s/"+d.Slot+".img", 64*mib, true
			s.rds.PutDisk(t, d)
		}
		put(appliancetest.Disk{Slot: adopted})
		put(appliancetest.Disk{Slot: other})
		put(appliancetest.Disk{Slot: "theirs", Cluster: "another", Name: "x"})
		put(appliancetest.Disk{Slot: "lonely", Cluster: "homelab", Name: "pvc-lonely"})
		s.claims(s.volume, "rds1/"+adopted)
		defer s.begin(s.ledger)()
		want := func(step string, volumes, orphaned int, known bool) {
			t.Helper()
			got := s.State().Stock["rds1"]
			if got.Volumes != volumes || got.Bytes != int64(volumes)*64*mib || got.Orphaned != orphaned || got.OrphansKnown != known {
				t.Errorf("%s: %+v, want %d volumes, %d orphaned", step, got, volumes, orphaned)
			}
		}
		let(time.Minute)
		want("at first, with one that may be old", 3, 0, false)
		let(grace + time.Minute)
		want("after the grace time", 3, 1, true)
		s.claims(s.volume, "rds1/"+adopted, "rds1/lonely")
		let(time.Minute)
		want("with a PersistentVolume", 3, 0, true)
		s.claims(s.volume, "rds1/"+adopted)
		let(time.Minute)
		want("and without it again, not for long yet", 3, 0, true)
	})
}

// Without Kubernetes nothing is an authority for attachments: the stock is counted, drift is not.
func TestStockWithoutKubernetes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.known.Store(false)
		s.unexport()
		defer s.begin(nil)()
		let(10 * time.Minute)
		got := s.State()
		if got.Drift != nil || got.Stock["rds1"].Volumes != 1 || got.Stock["rds1"].OrphansKnown {
			t.Errorf("%+v", got)
		}
		s.tells("nothing")
	})
}
