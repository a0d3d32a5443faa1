package appliance_test

import (
	"errors"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Whatever the target makes of growth, the answer is what the table of the RDS says, and it takes one command.
func TestExpandUnderEverySwitch(t *testing.T) {
	for _, quirks := range []map[string]string{
		{"growth-visible": "notify"}, {"growth-visible": "rescan"}, {"growth-visible": "reconnect"}, {"growth-visible": "reexport"},
		{"resize-bounces-export": "yes"}, {"shrink": "accept"}, {"identifiers-on-reexport": "change"},
	} {
		r := start(t, quirks)
		v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		if err != nil {
			t.Fatal(err)
		}
		for _, ask := range []int64{2 * gib, gib, 2 * gib} {
			n := r.commands(func() {
				if got, err := r.Expand(t.Context(), v.ID.Slot, ask, 0); err != nil || got.SizeBytes != 2*gib || !got.Presentable() {
					t.Errorf("%v: %+v, %v", quirks, got, err)
				}
			})
			if n != 1 {
				t.Errorf("%v: %d commands", quirks, n)
			}
		}
		if on, _ := r.server.Device.Disk(v.ID.Slot); on.FileSize != 2*gib || !on.Up {
			t.Errorf("%v: %+v", quirks, on)
		}
	}
}

// A reply that is lost leaves open whether the volume has grown; the size tells.
func TestExpandWhoseReplyIsLost(t *testing.T) {
	for fault, grown := range map[string]bool{"drop-after": true, "garbage": true, "garbage=cut": true, "drop-before": false, "reboot": false} {
		t.Run(fault, func(t *testing.T) {
			r := start(t, nil)
			v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
			if err != nil {
				t.Fatal(err)
			}
			r.inject(t, fault+"@/disk/set:1")
			got, err := r.Expand(t.Context(), v.ID.Slot, 2*gib, 0)
			switch {
			case grown && (err != nil || got.SizeBytes != 2*gib):
				t.Errorf("%+v, %v", got, err)
			case !grown && !errors.Is(err, appliance.ErrOutcomeUnknown) && !errors.Is(err, appliance.ErrUnavailable):
				t.Errorf("nothing was done, yet: %+v, %v", got, err)
			}
			got, err = r.eventually(t, func() (appliance.Volume, error) { return r.Expand(t.Context(), v.ID.Slot, 2*gib, 0) })
			if err != nil || got.SizeBytes != 2*gib {
				t.Errorf("again: %+v, %v", got, err)
			}
		})
	}
}

func TestExpandPoolFullByFault(t *testing.T) {
	r := start(t, nil)
	v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	if err != nil {
		t.Fatal(err)
	}
	r.inject(t, "full@/disk/set:1")
	if _, err := r.Expand(t.Context(), v.ID.Slot, 2*gib, 0); !errors.Is(err, appliance.ErrNoSpace) {
		t.Errorf("full: %v", err)
	}
	if _, err := r.Expand(t.Context(), v.ID.Slot, 2*gib, 0); err != nil {
		t.Errorf("space again: %v", err)
	}
}
