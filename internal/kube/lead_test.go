package kube_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/retry"

	"github.com/rds-csi/rds-csi/internal/kube"
)

// election is an API server for Leases that refuses an update of what was changed
// meanwhile, as the real one does and the fake one does not, and its candidates.
type election struct {
	*cluster

	ruling  atomic.Int32 // how many run what only a leader may
	overlap atomic.Bool
}

func newElection(t *testing.T) *election {
	e := &election{cluster: newCluster(t)}
	version := 0
	var mu sync.Mutex
	e.api.PrependReactor("*", "leases", func(action k8stesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		if create, ok := action.(k8stesting.CreateActionImpl); ok {
			create.Object.(*coordinationv1.Lease).ResourceVersion = "0"
		}
		update, ok := action.(k8stesting.UpdateActionImpl)
		if !ok {
			return false, nil, nil
		}
		lease := update.Object.(*coordinationv1.Lease)
		now, err := e.api.Tracker().Get(action.GetResource(), lease.Namespace, lease.Name)
		if err != nil {
			return true, nil, err
		}
		if now.(*coordinationv1.Lease).ResourceVersion != lease.ResourceVersion {
			return true, nil, apierrors.NewConflict(action.GetResource().GroupResource(), lease.Name, errors.New("changed"))
		}
		version++
		changed := lease.DeepCopy()
		changed.ResourceVersion = strconv.Itoa(version)
		return true, changed, e.api.Tracker().Update(action.GetResource(), changed, lease.Namespace)
	})
	return e
}

// holder is whom the Lease names.
func (e *election) holder() string { return *e.lease().Spec.HolderIdentity }

func (e *election) lease() *coordinationv1.Lease {
	e.t.Helper()
	lease, err := e.api.CoordinationV1().Leases("rds-csi").Get(context.Background(), "leader", metav1.GetOptions{})
	e.must(err)
	return lease
}

// link is how a candidate reaches the API server.
type link struct {
	mu   sync.Mutex
	mode string
}

const (
	refused = "refused"  // connection refused
	silent  = "silent"   // no answer
	deaf    = "deaf"     // one update takes effect, no answer to anything
	slow    = "slow"     // one update takes effect and is answered as late as may be, no answer to anything else
	tooSlow = "too slow" // the same, but the answer comes when nobody waits for it any more
)

func (l *link) set(mode string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mode = mode
}

// pass does a call, as far as the link lets it.
func (l *link) pass(ctx context.Context, update bool, do func() error) error {
	l.mu.Lock()
	mode := l.mode
	if mode != "" && mode != refused && update {
		l.mode = silent
	}
	l.mu.Unlock()
	lag := map[string]time.Duration{slow: 2400 * time.Millisecond, tooSlow: 4900 * time.Millisecond, deaf: time.Hour}[mode]
	switch {
	case mode == "":
		return do()
	case mode == refused:
		return errors.New("connection refused")
	case lag > 0 && update:
		err := do()
		select {
		case <-time.After(lag):
			return err
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// linked is a clientset behind a link.
type linked struct {
	kubernetes.Interface
	link *link
}

func (l linked) CoordinationV1() coordinationv1client.CoordinationV1Interface {
	return linkedGroup{l.Interface.CoordinationV1(), l.link}
}

type linkedGroup struct {
	coordinationv1client.CoordinationV1Interface
	link *link
}

func (l linkedGroup) Leases(namespace string) coordinationv1client.LeaseInterface {
	return linkedLeases{l.CoordinationV1Interface.Leases(namespace), l.link}
}

type linkedLeases struct {
	coordinationv1client.LeaseInterface
	link *link
}

func (l linkedLeases) Get(ctx context.Context, name string, o metav1.GetOptions) (lease *coordinationv1.Lease, err error) {
	err = l.link.pass(ctx, false, func() error { lease, err = l.LeaseInterface.Get(ctx, name, o); return err })
	return lease, err
}

func (l linkedLeases) Create(ctx context.Context, in *coordinationv1.Lease, o metav1.CreateOptions) (lease *coordinationv1.Lease, err error) {
	err = l.link.pass(ctx, false, func() error { lease, err = l.LeaseInterface.Create(ctx, in, o); return err })
	return lease, err
}

func (l linkedLeases) Update(ctx context.Context, in *coordinationv1.Lease, o metav1.UpdateOptions) (lease *coordinationv1.Lease, err error) {
	err = l.link.pass(ctx, true, func() error { lease, err = l.LeaseInterface.Update(ctx, in, o); return err })
	return lease, err
}

// candidate is one process that wants to lead.
type candidate struct {
	*kube.Client
	link   *link
	cancel context.CancelFunc
	began  chan time.Time // when it began to rule
	ended  chan time.Time // when its ctx ended
	result chan error
}

type ruler func(ctx context.Context) error // after the ctx of led has ended, unless it returns at once

func (e *election) start(identity string, then ruler) *candidate {
	ctx, cancel := context.WithCancel(e.t.Context())
	c := &candidate{
		link: &link{}, cancel: cancel,
		began: make(chan time.Time, 1), ended: make(chan time.Time, 1), result: make(chan error, 1),
	}
	c.Client = kube.NewFor(linked{e.api, c.link}, kube.Config{Logger: slog.New(e.logs)})
	go func() {
		c.result <- c.Lead(ctx, kube.LeadConfig{Namespace: "rds-csi", Name: "leader", Identity: identity}, func(ctx context.Context) error {
			e.overlap.Store(e.ruling.Add(1) > 1 || e.overlap.Load())
			defer e.ruling.Add(-1)
			if !c.Leading() || c.Holder() != identity {
				e.t.Errorf("%s rules, and Leading says %t, Holder %q", identity, c.Leading(), c.Holder())
			}
			c.began <- time.Now()
			if then == nil {
				then = func(context.Context) error { return nil }
			}
			<-ctx.Done()
			if c.Leading() {
				e.t.Errorf("%s leads after its ctx has ended", identity)
			}
			c.ended <- time.Now()
			return then(ctx)
		})
	}()
	synctest.Wait()
	return c
}

// stop ends a candidate and says how Lead ended.
func (c *candidate) stop() error {
	c.cancel()
	return <-c.result
}

func TestOneLeadsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		all := map[string]*candidate{}
		for _, name := range []string{"host-0", "host-1", "host-2"} {
			all[name] = e.start(name, nil)
		}
		<-time.After(time.Minute)
		for range all {
			leaders := 0
			holder := e.holder()
			for name, c := range all {
				if c.Holder() != holder {
					t.Errorf("%s takes %q for the leader, it is %q", name, c.Holder(), holder)
				}
				if c.Leading() {
					leaders++
				}
				if c.Leading() != (name == holder) {
					t.Errorf("%s leads: %t; %s should", name, c.Leading(), holder)
				}
			}
			if leaders != 1 {
				t.Errorf("%d of %d lead", leaders, len(all))
			}
			if err := all[holder].stop(); !errors.Is(err, context.Canceled) {
				t.Errorf("Lead = %v", err)
			}
			delete(all, holder)
			<-time.After(5 * time.Second) // a standby looks every 2.0 to 4.4 s
		}
		if e.overlap.Load() {
			t.Error("two led at once")
		}
		if n := *e.lease().Spec.LeaseTransitions; n != 2 {
			t.Errorf("%d transitions", n)
		}
	})
}

// The Lease is given up when led has ended and not before, however long that
// takes, and is then taken at once.
func TestHandOverWaitsForTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		const drain = 25 * time.Second // longer than a Lease
		first := e.start("host-0", func(ctx context.Context) error {
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				t.Errorf("the cause is %v", cause)
			}
			<-time.After(drain)
			return errors.New("ended badly, which is not why it ended")
		})
		second := e.start("host-1", nil)
		<-time.After(time.Minute)
		cancelled := time.Now()
		if err := first.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Lead = %v", err)
		}
		if took := time.Since(cancelled); took != drain {
			t.Errorf("it took %s", took)
		}
		if first.Leading() || first.Holder() != "" {
			t.Errorf("after Lead it says: leading %t, holder %q", first.Leading(), first.Holder())
		}
		if gap := (<-second.began).Sub(cancelled.Add(drain)); gap < 0 || gap > 5*time.Second {
			t.Errorf("the next led %s after the drain", gap)
		}
		if err := second.stop(); !errors.Is(err, context.Canceled) || e.overlap.Load() {
			t.Errorf("Lead = %v; two led at once: %t", err, e.overlap.Load())
		}
	})
}

// Cut off from the API server, a leader ends before the next one begins. In the
// worst case its last renewal took effect, and it did not hear of it.
func TestALeaderThatIsCutOffEndsFirst(t *testing.T) {
	for _, mode := range []string{refused, silent, deaf, slow, tooSlow} {
		for _, phase := range []time.Duration{0, 500 * time.Millisecond, time.Second, 1999 * time.Millisecond} {
			t.Run(mode+" "+phase.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := newElection(t)
					first := e.start("host-0", func(ctx context.Context) error {
						if cause := context.Cause(ctx); !errors.Is(cause, kube.ErrLeadershipLost) {
							t.Errorf("the cause is %v", cause)
						}
						return nil
					})
					// They look at different times: with many, one sees the last renewal soon.
					began := make(chan time.Time, 20)
					others := make([]*candidate, 20)
					for i := range others {
						others[i] = e.start(fmt.Sprint("host-", i+1), nil)
						go func() { began <- <-others[i].began }()
					}
					<-time.After(time.Minute + phase)
					first.link.set(mode)
					if err := <-first.result; !errors.Is(err, kube.ErrLeadershipLost) {
						t.Errorf("Lead = %v", err)
					}
					if ended, next := <-first.ended, <-began; !ended.Before(next) {
						t.Errorf("the first ended at %s, the next began at %s", ended, next)
					}
					if n := e.logs.count("the lease cannot be used, trying on"); n != 1 {
						t.Errorf("logged %d times: %q", n, e.logs.lines)
					}
					for _, c := range others {
						if err := c.stop(); !errors.Is(err, context.Canceled) {
							t.Errorf("Lead = %v", err)
						}
						c.began <- time.Time{} // for the one that never led
					}
					if e.overlap.Load() {
						t.Error("two led at once")
					}
				})
			})
		}
	}
}

// A process that was frozen finds its Lease taken when it thaws. It ends with the first look at the Lease, and does not
// try on until its renewal is overdue.
func TestALeaderThatFindsItsLeaseTakenEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		c := e.start("host-0", nil)
		<-time.After(time.Minute)
		other := "host-1"
		e.must(retry.RetryOnConflict(retry.DefaultRetry, func() error { // the leader renews at this very second
			lease := e.lease()
			lease.Spec.HolderIdentity, lease.Spec.RenewTime = &other, &metav1.MicroTime{Time: time.Now()}
			_, err := e.api.CoordinationV1().Leases("rds-csi").Update(t.Context(), lease, metav1.UpdateOptions{})
			return err
		}))
		taken := time.Now()
		if err := <-c.result; !errors.Is(err, kube.ErrLeadershipLost) {
			t.Errorf("Lead = %v", err)
		}
		if took := time.Since(taken); took > 3*time.Second { // it looks every 2 s
			t.Errorf("it led for %s beside another", took)
		}
		if holder := e.holder(); holder != other {
			t.Errorf("it gave away the Lease of %s, now %q's", other, holder)
		}
	})
}

// A short outage costs no leadership.
func TestALeaderOutlivesAShortOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		c := e.start("host-0", nil)
		for _, mode := range []string{refused, silent, deaf} {
			<-time.After(time.Minute)
			c.link.set(mode)
			<-time.After(7 * time.Second)
			c.link.set("")
			<-time.After(time.Minute)
			if !c.Leading() || len(c.ended) > 0 {
				t.Errorf("after 7 s without the API server (%s) it leads no more", mode)
			}
		}
		if n := e.logs.count("the lease can be used again"); n != 3 {
			t.Errorf("logged %d times: %q", n, e.logs.lines)
		}
		_ = c.stop()
	})
}

// A container that was killed left its Lease. Under the same host name it leads
// at once; another candidate waits until the Lease has run out.
func TestARestartTakesItsOwnLeaseOver(t *testing.T) {
	for name, tt := range map[string]struct {
		identity  string
		atLeast   time.Duration
		notBefore bool
	}{
		"the same host": {identity: "host-0"},
		"another host":  {identity: "host-1", atLeast: 13 * time.Second}, // the last renewal was up to 2 s ago
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newElection(t)
				killed := e.start("host-0", nil)
				<-time.After(time.Minute)
				killed.link.set(refused)
				_ = killed.stop()
				start := time.Now()
				next := e.start(tt.identity, nil)
				took := (<-next.began).Sub(start)
				if took < tt.atLeast || took > tt.atLeast+8*time.Second || (tt.atLeast == 0 && took != 0) {
					t.Errorf("it leads after %s", took)
				}
				_ = next.stop()
			})
		})
	}
}

func TestALedThatFailsEndsLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		broken := errors.New("broken")
		client := kube.NewFor(e.api, kube.Config{})
		cfg := kube.LeadConfig{Namespace: "rds-csi", Name: "leader", Identity: "host-0"}
		e.api.PrependReactor("update", "leases", func(a k8stesting.Action) (bool, runtime.Object, error) {
			if *a.(k8stesting.UpdateActionImpl).Object.(*coordinationv1.Lease).Spec.HolderIdentity == "" && client.Leading() {
				t.Error("it gives the lease up, and says that it leads")
			}
			return false, nil, nil
		})
		if err := client.Lead(t.Context(), cfg, func(context.Context) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("Lead = %v", err)
		}
		if client.Leading() || e.holder() != "" {
			t.Errorf("leading %t, the lease is %+v", client.Leading(), e.lease().Spec)
		}
		// With nothing to do it leads all the same.
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- client.Lead(ctx, cfg, func(context.Context) error { return nil }) }()
		<-time.After(time.Minute)
		if !client.Leading() {
			t.Error("it leads no more")
		}
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("Lead = %v", err)
		}
	})
}

// A candidate that ends leaves the Lease of another alone.
func TestACandidateThatNeverLedReleasesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		leader, waiting := e.start("host-0", nil), e.start("host-1", nil)
		<-time.After(10 * time.Second)
		if err := waiting.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Lead = %v", err)
		}
		if e.holder() != "host-0" || !leader.Leading() || waiting.Leading() {
			t.Errorf("the lease is %+v", e.lease().Spec)
		}
		if len(waiting.began) > 0 {
			t.Error("it led")
		}
		_ = leader.stop()
	})
}

// What keeps all candidates from leading is said, once.
func TestALeaseThatMayNotBeUsed(t *testing.T) {
	for _, verb := range []string{"get", "create", "update"} {
		t.Run(verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newElection(t)
				if verb == "update" {
					_ = e.start("host-9", nil).stop()
				}
				e.api.PrependReactor(verb, "leases", func(a k8stesting.Action) (bool, runtime.Object, error) {
					return true, nil, apierrors.NewForbidden(a.GetResource().GroupResource(), "leader", errors.New("no such rule"))
				})
				c := e.start("host-0", nil)
				<-time.After(time.Hour)
				if n := e.logs.count("the lease cannot be used, trying on verb=" + verb); n != 1 || c.Leading() {
					t.Errorf("logged %d times, leading %t: %q", n, c.Leading(), e.logs.lines)
				}
				if err := c.stop(); !errors.Is(err, context.Canceled) {
					t.Errorf("Lead = %v", err)
				}
			})
		})
	}
}

func TestLeadNeedsAnIdentity(t *testing.T) {
	err := newCluster(t).client().Lead(t.Context(), kube.LeadConfig{Namespace: "rds-csi", Name: "leader"}, nil)
	if err == nil {
		t.Error("it campaigned as nobody")
	}
}
