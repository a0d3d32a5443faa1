package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// ErrLeadershipLost says that this process led, could not renew its Lease in time, and leads no more.
var ErrLeadershipLost = errors.New("leadership lost")

// The times of client-go's own recommendation, and one of ours. A leader's last
// renewal may have taken effect leaseCall before it heard of it; it tries the next
// one after retryPeriod, and gives up renewDeadline later. The sum is below
// leaseDuration, which is what another candidate waits since it saw that renewal:
// so a leader stops leading before another one begins.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
	leaseCall     = (leaseDuration - renewDeadline - retryPeriod) * 5 / 6 // of one request for the Lease
)

// LeadConfig names the Lease and who asks for it.
type LeadConfig struct {
	Namespace, Name string
	// Identity is the host name, and nothing random: a container that was restarted
	// takes its own Lease over at once. No two candidates may share it.
	Identity string
}

// leadership is what is known in memory of who leads.
type leadership struct {
	elector atomic.Pointer[leaderelection.LeaderElector]
	term    atomic.Pointer[term]
}

// term is the time during which this process leads: until over answers an error.
type term struct{ over func() error }

// Leading says whether this process leads now.
func (l *leadership) Leading() bool {
	t := l.term.Load()
	return t != nil && t.over() == nil
}

// Holder is who leads by the Lease as it was last read; empty when nobody does, or
// nothing is known.
func (l *leadership) Holder() string {
	e := l.elector.Load()
	if e == nil || e.IsLeader() && !l.Leading() { // we hold it, and are not ready to lead or lost it
		return ""
	}
	return e.GetLeader()
}

// Lead waits until this process leads and runs led. Before it leads, RunAttachments
// (where it runs) has read everything anew since this process holds the Lease. It returns when ctx ended,
// with its cause; when leadership was lost, with ErrLeadershipLost; or when led
// failed, with its error. That led returns nil ends nothing. The ctx of led ends
// with leadership, and led has ended before the Lease is released: the next leader
// starts within seconds, and never beside this one's led. It is not to be called
// twice at once.
func (c *Client) Lead(ctx context.Context, cfg LeadConfig, led func(context.Context) error) error {
	lock := &leaseLock{
		LeaseLock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: cfg.Namespace, Name: cfg.Name},
			Client:     c.api.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: cfg.Identity},
		},
		logger: c.cfg.Logger.With("lease", cfg.Namespace+"/"+cfg.Name, "identity", cfg.Identity),
	}
	reign, end := context.WithCancelCause(ctx)
	defer end(nil)
	lock.lost = func() { end(ErrLeadershipLost) }
	started := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, Name: cfg.Name,
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		// Not ReleaseOnCancel: that does not wait for led.
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(lease context.Context) { // in a goroutine of its own
				close(started)
				<-lease.Done()
				end(ErrLeadershipLost)
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("leader election over lease %s/%s: %w", cfg.Namespace, cfg.Name, err)
	}
	c.elector.Store(elector)
	defer c.elector.Store(nil)

	// The Lease is renewed until led has ended, also after ctx has.
	campaign, stop := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logr.FromSlogHandler(quiet{lock.logger.Handler()})))
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { elector.Run(campaign) })
	lock.logger.InfoContext(ctx, "waiting to lead")
	err = c.reign(reign, started, lock.ours, led)
	lock.logger.InfoContext(ctx, "leading no more", "err", err)
	end(err) // Leading answers no before the Lease is given up
	stop()
	running.Wait()
	lock.release(ctx)
	return err
}

// reign runs led from the moment at which this process leads until ctx ends, or led fails.
func (c *Client) reign(ctx context.Context, started <-chan struct{}, ours func() error, led func(context.Context) error) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-started:
	}
	if err := c.reading.catchUp(ctx); err != nil {
		return err
	}
	c.term.Store(&term{over: func() error { return cmp.Or(ctx.Err(), ours()) }})
	c.cfg.Logger.InfoContext(ctx, "leading")
	if err := led(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// leaseLock gives each request for the Lease a deadline, since client-go gives
// none, and says once when they begin to fail and once when they work again.
type leaseLock struct {
	*resourcelock.LeaseLock

	logger  *slog.Logger
	failing string                    // the verb that fails; one goroutine at a time
	lost    func()                    // called when another candidate holds the Lease that we held
	renewed atomic.Pointer[time.Time] // when the last renewal that worked was sent; nil: none, or the Lease is another's
}

// errLeaseRunOut says that the last renewal is so old that another candidate may lead.
var errLeaseRunOut = errors.New("the lease was not renewed in time")

// ours answers an error once another candidate may lead. It goes by the clock, not by what the elector has noticed: a
// process that was frozen (SIGSTOP, a machine that swaps or was moved) finds its Lease taken when it thaws, and
// client-go's elector would try on for renewDeadline before it gives up.
func (l *leaseLock) ours() error {
	if at := l.renewed.Load(); at == nil || time.Since(*at) >= leaseDuration {
		return errLeaseRunOut
	}
	return nil
}

// renew is a request that, when it works, makes the Lease ours from the moment at which it was sent.
func (l *leaseLock) renew(err error, sent time.Time) error {
	if err == nil {
		l.renewed.Store(&sent)
	}
	return err
}

// Get implements resourcelock.Interface.
func (l *leaseLock) Get(ctx context.Context) (record *resourcelock.LeaderElectionRecord, raw []byte, err error) {
	err = l.call(ctx, "get", apierrors.IsNotFound, func(ctx context.Context) error {
		record, raw, err = l.LeaseLock.Get(ctx)
		return err
	})
	if err == nil && record.HolderIdentity != l.Identity() && l.renewed.Swap(nil) != nil {
		l.lost()
	}
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (l *leaseLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	sent := time.Now()
	return l.renew(l.call(ctx, "create", apierrors.IsAlreadyExists, func(ctx context.Context) error { return l.LeaseLock.Create(ctx, record) }), sent)
}

// Update implements resourcelock.Interface.
func (l *leaseLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	sent := time.Now()
	return l.renew(l.call(ctx, "update", apierrors.IsConflict, func(ctx context.Context) error { return l.LeaseLock.Update(ctx, record) }), sent)
}

// call is one request; what it may be answered in the course of things is no failure.
func (l *leaseLock) call(ctx context.Context, verb string, usual func(error) bool, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, leaseCall)
	defer cancel()
	err := do(ctx)
	switch {
	case err != nil && !usual(err):
		if l.failing == "" {
			l.failing = verb
			l.logger.WarnContext(ctx, "the lease cannot be used, trying on", "verb", verb, "err", err)
		}
	case l.failing == verb:
		l.failing = ""
		l.logger.InfoContext(ctx, "the lease can be used again")
	}
	return err
}

// release gives the Lease up when it is still ours, so that another candidate
// need not wait for it to run out. It runs when nothing of the election runs any
// more. Should it fail, the Lease runs out.
func (l *leaseLock) release(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	record, _, err := l.Get(ctx)
	if err == nil && record.HolderIdentity == l.Identity() {
		now := metav1.Now()
		err = l.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaseDurationSeconds: 1, AcquireTime: now, RenewTime: now, LeaderTransitions: record.LeaderTransitions,
		})
	}
	if err != nil {
		l.logger.InfoContext(ctx, "lease not released, it runs out by itself", "err", err)
	}
}
