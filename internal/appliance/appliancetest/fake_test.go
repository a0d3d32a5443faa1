package appliancetest_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFakeKeepsTheContract(t *testing.T) {
	for _, kind := range []string{"btrfs", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			appliancetest.Contract(t, func(t *testing.T) (appliancetest.RDS, appliancetest.Device) {
				fake := appliancetest.NewFake(appliancetest.Settings(t), appliancetest.PoolBytes)
				fake.SetFilesystem(kind)
				return fake, fake
			})
		})
	}
}

func TestFakeFaults(t *testing.T) {
	fake := appliancetest.NewFake(appliancetest.Settings(t), appliancetest.PoolBytes)
	req := appliance.CreateRequest{Name: "pvc-1"}
	fake.Fail(appliancetest.Create, appliance.ErrUnavailable)
	fake.LoseReply(appliancetest.Create, appliance.ErrOutcomeUnknown)
	if _, err := fake.Create(t.Context(), req); !errors.Is(err, appliance.ErrUnavailable) || len(fake.Disks(t)) != 0 {
		t.Errorf("fails before: %v, %v", err, fake.Disks(t))
	}
	if _, err := fake.Create(t.Context(), req); !errors.Is(err, appliance.ErrOutcomeUnknown) || len(fake.Disks(t)) != 1 {
		t.Errorf("loses the reply: %v, %v", err, fake.Disks(t))
	}
	if _, err := fake.Create(t.Context(), req); err != nil || fake.Calls(appliancetest.Create) != 3 {
		t.Errorf("%v after %d calls", err, fake.Calls(appliancetest.Create))
	}
}

func TestFakeHolds(t *testing.T) {
	fake := appliancetest.NewFake(appliancetest.Settings(t), appliancetest.PoolBytes)
	release := fake.Hold(appliancetest.Create)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fake.Create(ctx, appliance.CreateRequest{Name: "pvc-1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("held and cancelled: %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := fake.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1"})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("not held: %v", err)
	default:
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
