package reconcile

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
)

// numbers are what a scrape would show; what is not known is not there.
func (s *scene) numbers() map[Kind]int {
	state, shown := s.State(), map[Kind]int{}
	for k, n := range state.Drift {
		shown[k] = n
	}
	if stock, there := state.Stock["rds1"]; there && stock.OrphansKnown {
		shown[orphan] = stock.Orphaned
	}
	return shown
}

// rightOrAbsent watches for some time that no other numbers are shown than these, and that they are shown at the end.
func (s *scene) rightOrAbsent(step string, watch time.Duration, want map[Kind]int) {
	s.t.Helper()
	for range int(watch / (5 * time.Second)) {
		for k, n := range s.numbers() {
			if n != want[k] {
				s.t.Fatalf("%s: %s is %d, want %d or nothing", step, k, n, want[k])
			}
		}
		let(5 * time.Second)
	}
	for k, n := range want {
		if got, shown := s.numbers()[k]; got != n || !shown {
			s.t.Errorf("%s: at the end %s is %d (shown: %t), want %d", step, k, got, shown, n)
		}
	}
}

// badDay is a volume whose node is gone and whose export is lost for good, and another without a PersistentVolume.
func badDay(t *testing.T) *scene {
	s := newScene(t)
	s.repair = func(context.Context, string) (bool, error) { return true, errors.New("the rds refuses") }
	s.ledger.RemoveNode("a")
	s.unexport()
	s.rds.PutDisk(t, appliancetest.Disk{
		Slot: "lonely", Cluster: "homelab", Name: "pvc-lonely", Path: "/storage-pool/k8s/lonely.img", SizeBytes: 64 * mib, Exported: true,
	})
	return s
}

// What one leader has counted, the next never denies.
func TestNextLeaderSaysNothingWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := badDay(t)
		want := map[Kind]int{NodeGone: 1, ExportLost: 1, orphan: 1}
		for _, leader := range []string{"the first", "the second"} {
			stop := s.begin(s.ledger)
			s.rightOrAbsent(leader, grace+3*time.Minute, want)
			stop()
		}
	})
}

// Nor does the same one after a silence of the RDS, of whatever it takes the RDS to know.
func TestNothingIsDeniedAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := badDay(t)
		defer s.begin(s.ledger)()
		want := map[Kind]int{NodeGone: 1, ExportLost: 1, orphan: 1}
		s.rightOrAbsent("before", grace+3*time.Minute, want)
		release := s.rds.Hold(appliancetest.List)
		let(10 * time.Minute)
		for k := range s.numbers() {
			if k.byRDS() {
				t.Errorf("%s has a number while the rds is silent", k)
			}
		}
		release()
		s.rightOrAbsent("after", grace+3*time.Minute, want)
	})
}

// Nor after Kubernetes was not known for a while.
func TestNothingIsDeniedAfterIgnorance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := badDay(t)
		defer s.begin(s.ledger)()
		want := map[Kind]int{NodeGone: 1, ExportLost: 1, orphan: 1}
		s.rightOrAbsent("before", grace+3*time.Minute, want)
		s.known.Store(false)
		let(2 * time.Minute)
		if n := len(s.numbers()); n > 0 {
			t.Errorf("%d numbers while nothing is known", n)
		}
		s.known.Store(true)
		s.rightOrAbsent("after", grace+3*time.Minute, want)
	})
}

// A process that stood still has not looked meanwhile, so the time counts for nothing.
func TestStandstillIsNoGraceTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.Drift = NewDrift(DriftConfig{
			Interval: time.Minute, Grace: grace, Logger: quietLogger(), Ledger: s.ledger, Known: s.known.Load, Events: s.story,
		})
		s.ledger.RemoveNode("a")
		var none sync.WaitGroup
		for range 3 {
			s.compare(t.Context(), &none)
			if n, known := s.State().Drift[NodeGone]; known {
				t.Errorf("%d after one look", n)
			}
			let(Stale*time.Minute + time.Second)
		}
		s.tells("three looks, each after a standstill")
	})
}

// Of what a kubelet names since before this process listened nobody can say whether it is mounted: then there is no 0, and no alarm. What is proven is told.
func TestMountsThatAreProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		speaks := func(volumes ...string) {
			n := nodeOf("b")
			n.InUse = volumes
			s.ledger.UpsertNode(n)
		}
		s.ledger.RemoveNode("b")
		speaks("rds1/old") // the first words of a Node
		defer s.begin(s.ledger)()
		let(grace + 3*time.Minute)
		if n, known := s.State().Drift[InUseUnattached]; known {
			t.Errorf("%d mounts without a VolumeAttachment, which nobody can know", n)
		}
		s.tells("not proven")
		speaks("rds1/wish")
		let(grace + 3*time.Minute)
		s.counts("a pod waits, as when nothing attaches for it", InUseUnattached, 0)
		s.tells("a pod waits")
		mounted := attachmentOf("rds1/wish", "b")
		s.ledger.Upsert(mounted)
		s.ledger.Remove(mounted.UID)
		let(grace + 3*time.Minute)
		s.counts("it was attached, and its kubelet still has it", InUseUnattached, 1)
		s.tells("proven", "Warning AttachmentDrift node b in_use_unattached:", "Warning AttachmentDrift rds1/wish in_use_unattached:")
		speaks()
		let(time.Minute)
		s.counts("unmounted", InUseUnattached, 0)
	})
}
