package appliancetest

import (
	"slices"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

func testHealth(t *testing.T, s scene) {
	want := []appliance.Sensor{ // by name: a device need not keep another order
		{Name: "board-temperature1", Part: "board1", Kind: appliance.KindTemperature, Value: 33},
		{Name: "fan1-speed", Part: "fan1", Kind: appliance.KindFan, Value: 0},
		{Name: "psu1-power", Part: "psu1", Kind: appliance.KindPower, Value: 61.5},
		{Name: "psu1-state", Part: "psu1", Kind: appliance.KindState, Text: "fail"},
	}
	s.device.PutSensors(t, want...)
	if got, err := s.Health(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	s.device.PutSensors(t)
	got, err := s.Health(t.Context())
	is(t, err, appliance.ErrUnsupported)
	if len(got) != 0 {
		t.Errorf("a device without sensors shows %+v", got)
	}
}

func testTraffic(t *testing.T, s scene) {
	s.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	on, err := s.Capacity(t.Context(), appliance.Path{})
	if err != nil || on.Slot == "" {
		t.Fatalf("the pool lies on item %q: %v", on.Slot, err)
	}
	const all = appliance.HaveReadOps | appliance.HaveWriteOps | appliance.HaveReadBytes | appliance.HaveWriteBytes |
		appliance.HaveInFlight | appliance.HaveActive | appliance.HaveWait
	pool := appliance.Traffic{
		Slot: on.Slot, WriteOps: 76, WriteBytes: 1.6e6, Active: 48*time.Second + 149*time.Millisecond, Wait: 26 * time.Hour, Have: all,
	}
	volume := appliance.Traffic{Slot: s.slot("pvc-1"), ReadOps: 12345, ReadBytes: 3.125e9, InFlight: 8, Have: all}
	s.device.PutTraffic(t, pool, volume)
	s.counts(t, []string{volume.Slot, "no-such-slot", pool.Slot, volume.Slot}, volume, pool)
	s.counts(t, []string{pool.Slot}, pool)
	s.counts(t, []string{"no-such-slot"})
	s.counts(t, nil)
	s.device.PutTraffic(t, pool)
	s.counts(t, []string{volume.Slot, pool.Slot}, pool)
}

func (s scene) counts(t *testing.T, slots []string, want ...appliance.Traffic) {
	t.Helper()
	if got, err := s.Traffic(t.Context(), slots...); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q: %+v, %v, want %+v", slots, got, err, want)
	}
}
