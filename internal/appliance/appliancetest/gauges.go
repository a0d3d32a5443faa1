package appliancetest

import (
	"context"
	"slices"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Gauged is what an appliance tells of its work and its hardware.
type Gauged interface {
	Health(context.Context) ([]appliance.Sensor, error)
	Traffic(ctx context.Context, slots ...string) ([]appliance.Traffic, error)
}

// Instruments is the back door to what a device measures.
type Instruments interface {
	// PutSensors replaces all sensors; with none the device is one that has none.
	PutSensors(testing.TB, ...appliance.Sensor)
	// PutTraffic replaces the counters: of these slots, and of no others. They must be items that the device has.
	PutTraffic(testing.TB, ...appliance.Traffic)
}

// gauges are what a fake was told to show.
type gauges struct {
	sensors []appliance.Sensor
	traffic []appliance.Traffic
}

// PutSensors implements Instruments.
func (f *Fake) PutSensors(_ testing.TB, sensors ...appliance.Sensor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gauges.sensors = slices.Clone(sensors)
}

// PutTraffic implements Instruments.
func (f *Fake) PutTraffic(_ testing.TB, traffic ...appliance.Traffic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gauges.traffic = slices.Clone(traffic)
}

// Health reads the sensors.
func (f *Fake) Health(ctx context.Context) (sensors []appliance.Sensor, err error) {
	err = f.do(ctx, Health, func() error {
		if len(f.gauges.sensors) == 0 {
			return f.errorf("sensors", appliance.ErrUnsupported)
		}
		sensors = slices.Clone(f.gauges.sensors)
		return nil
	})
	return sensors, err
}

// Traffic reads the counters of those slots that have any.
func (f *Fake) Traffic(ctx context.Context, slots ...string) (list []appliance.Traffic, err error) {
	if len(slots) == 0 {
		return nil, nil
	}
	err = f.do(ctx, Traffic, func() error {
		for i, slot := range slots {
			at := slices.IndexFunc(f.gauges.traffic, func(t appliance.Traffic) bool { return t.Slot == slot && t.Have != 0 })
			if at >= 0 && !slices.Contains(slots[:i], slot) {
				list = append(list, f.gauges.traffic[at])
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}
