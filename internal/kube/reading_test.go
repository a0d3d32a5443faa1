package kube_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	k8stesting "k8s.io/client-go/testing"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/kube"
)

var leaseOf0 = kube.LeadConfig{Namespace: "rds-csi", Name: "leader", Identity: "host-0"}

// deafen makes watches that are opened from now on say nothing: they lag for ever.
func (e *election) deafen() {
	e.api.PrependWatchReactor("*", func(k8stesting.Action) (bool, watch.Interface, error) {
		return true, watch.NewRaceFreeFake(), nil
	})
}

// A standby's watches lag behind. Who takes over reads everything anew before it
// leads: its ledger is that of a process that starts now.
func TestANewLeaderReadsEverythingAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		e.deafen()
		e.three()
		leader := e.start("host-9", nil)

		ctx, cancel := context.WithCancel(t.Context())
		client, ledger := e.client(), attach.NewLedger(attach.Options{})
		fed, led := make(chan error, 1), make(chan error, 1)
		synced := 0
		go func() { fed <- client.RunAttachments(ctx, ledger, func() { synced++ }) }()
		began := false
		go func() {
			led <- client.Lead(ctx, leaseOf0, func(context.Context) error {
				began = true
				wantNodes(t, ledger, "rds1/v1", "b")
				return nil
			})
		}()
		wantNodes(t, ledger, "rds1/v1", "a")
		e.deleteAttachment("csi-pv-1-a")
		e.attachment("pv-1", "b", true)
		wantNodes(t, ledger, "rds1/v1", "a") // it lags

		e.forbid("volumeattachments")
		if err := leader.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Lead = %v", err)
		}
		<-time.After(30 * time.Second)
		synctest.Wait()
		if e.holder() != "host-0" || client.Leading() || began || client.Holder() != "" {
			t.Errorf("the lease names %q, leading %t, holder %q: nothing was read yet", e.holder(), client.Leading(), client.Holder())
		}
		e.forbid("")
		<-time.After(10 * time.Second)
		synctest.Wait()
		if !client.Leading() || !began || client.Holder() != "host-0" {
			t.Errorf("leading %t, holder %q", client.Leading(), client.Holder())
		}
		wantCount(t, ledger, 3)
		cancel()
		for _, ended := range []chan error{fed, led} {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		}
		if synced != 1 {
			t.Errorf("synced was called %d times", synced)
		}
	})
}

// Leadership that is lost while everything is read anew ends the wait.
func TestLeadershipLostWhileReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		ctx, cancel := context.WithCancel(t.Context())
		wire := &link{}
		client, ledger := kube.NewFor(linked{e.api, wire}, kube.Config{DriverName: driver}), attach.NewLedger(attach.Options{})
		fed := make(chan error, 1)
		go func() { fed <- client.RunAttachments(ctx, ledger, nil) }()
		wantCount(t, ledger, 0)
		e.forbid("volumeattachments")
		led := make(chan error, 1)
		go func() {
			led <- client.Lead(ctx, leaseOf0, func(context.Context) error {
				t.Error("it led")
				return nil
			})
		}()
		<-time.After(time.Minute)
		wire.set(refused)
		if err := <-led; !errors.Is(err, kube.ErrLeadershipLost) {
			t.Errorf("Lead = %v", err)
		}
		cancel()
		if err := <-fed; !errors.Is(err, context.Canceled) {
			t.Errorf("RunAttachments = %v", err)
		}
	})
}

// Leading first and reading afterwards is fine too: the ledger is unknown until then.
func TestLeadingBeforeReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		e.three()
		ctx, cancel := context.WithCancel(t.Context())
		client, ledger := e.client(), attach.NewLedger(attach.Options{})
		ended := make(chan error, 2)
		go func() { ended <- client.Lead(ctx, leaseOf0, func(context.Context) error { return nil }) }()
		synctest.Wait()
		wantUnknown(t, ledger)
		go func() { ended <- client.RunAttachments(ctx, ledger, nil) }()
		wantCount(t, ledger, 3)
		// What happens afterwards is seen as ever.
		e.deleteAttachment("csi-pv-1-a")
		wantCount(t, ledger, 2)
		if known := client.Claims("rds1/v1"); !slices.ContainsFunc(known, func(c kube.Claim) bool { return c.PV == "pv-1" }) {
			t.Errorf("the PersistentVolumes behind it: %v", known)
		}
		cancel()
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		}
	})
}
