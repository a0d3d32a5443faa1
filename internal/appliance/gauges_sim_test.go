package appliance_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/sim"
)

// Whether a disk item backed by a file is counted is not known: its traffic is there or absent, and the pool's comes either way.
func TestTrafficWhetherFilesAreCountedOrNot(t *testing.T) {
	for _, how := range []string{"counters", "none", "error"} {
		r := start(t, map[string]string{"monitor-files": how})
		v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		if err != nil {
			t.Fatal(err)
		}
		r.server.Device.SetTraffic(map[string]sim.Traffic{
			"storage-pool": {WriteBitsPerSecond: 12800000}, v.ID.Slot: {InFlight: 3},
		})
		list, err := r.Traffic(t.Context(), v.ID.Slot, "storage-pool")
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		got := map[string]appliance.Traffic{}
		for _, one := range list {
			got[one.Slot] = one
		}
		if pool := got["storage-pool"]; pool.WriteBytes != 1.6e6 || !pool.Has(appliance.HaveWriteBytes) {
			t.Errorf("%s: the pool shows %+v", how, pool)
		}
		if volume, there := got[v.ID.Slot]; there != (how == "counters") || there && volume.InFlight != 3 {
			t.Errorf("%s: the volume shows %+v (%v)", how, volume, there)
		}
	}
}

// Asked only for what cannot be answered: no counters are no answer, a refusal is an error that carries the RDS's words.
func TestTrafficOfFilesAlone(t *testing.T) {
	for how, want := range map[string]error{"none": nil, "error": appliance.ErrAnswer} {
		r := start(t, map[string]string{"monitor-files": how})
		v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		if err != nil {
			t.Fatal(err)
		}
		list, err := r.Traffic(t.Context(), v.ID.Slot)
		if len(list) != 0 || !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v, want %v", how, list, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "no counters for this disk") {
			t.Errorf("%s: %v", how, err)
		}
	}
}

func TestHealthOfADeviceWithoutSensors(t *testing.T) {
	for _, how := range []string{"none", "missing"} {
		r := start(t, map[string]string{"health": how})
		if got, err := r.Health(t.Context()); !errors.Is(err, appliance.ErrUnsupported) || got != nil {
			t.Errorf("%s: %+v, %v", how, got, err)
		}
		if _, err := r.List(t.Context()); err != nil {
			t.Errorf("%s: and the volumes: %v", how, err)
		}
	}
}

// What the manual lists for an RDS comes out whole, in both forms that RouterOS has.
func TestHealthOfTheDefaultSensors(t *testing.T) {
	want := map[string]int{appliance.KindTemperature: 4, appliance.KindFan: 2, appliance.KindPower: 2, appliance.KindState: 2}
	for _, how := range []string{"rows", "settings"} {
		r := start(t, map[string]string{"health": how})
		list, err := r.Health(t.Context())
		got := map[string]int{}
		for _, s := range list {
			got[s.Kind]++
		}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", how, got, err, want)
		}
	}
}

// Least rights: a user without the policy test has everything but traffic, and is told what is missing.
func TestTrafficNeedsAPolicy(t *testing.T) {
	for policy, may := range map[string]bool{"test": false, "read": true} {
		r := start(t, map[string]string{"monitor-policy": policy})
		modest := r.as(t, "modest") // ssh, read, write
		_, err := modest.Traffic(t.Context(), "storage-pool")
		switch {
		case may && err != nil:
			t.Errorf("%s: %v", policy, err)
		case !may && (!errors.Is(err, appliance.ErrPermission) || !strings.Contains(err.Error(), "the policy test")):
			t.Errorf("%s: %v does not name the policy", policy, err)
		}
		if _, err := modest.Health(t.Context()); err != nil {
			t.Errorf("%s: health: %v", policy, err)
		}
		if _, err := r.as(t, "csi").Traffic(t.Context(), "storage-pool"); err != nil {
			t.Errorf("%s: with the policy: %v", policy, err)
		}
	}
}

// A slot is a name from a device or from a claim: whatever it holds, it is asked for and nothing else happens.
func TestTrafficOfHostileSlots(t *testing.T) {
	r := start(t, nil)
	v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	if err != nil {
		t.Fatal(err)
	}
	hostile := []string{`x"; /disk remove [find]; :put "`, `$n`, `[/disk remove ` + v.ID.Slot + `]`, ``, `*20`, `0`, ` `, `{};`, "x y"}
	list, err := r.Traffic(t.Context(), append(hostile, "storage-pool")...)
	if err != nil || len(list) != 1 || list[0].Slot != "storage-pool" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := r.Get(t.Context(), v.ID.Slot); err != nil {
		t.Errorf("the volume: %v", err)
	}
}

// A reply that is lost or garbled is asked for again; one that stays so is an error, never "no counters".
func TestTrafficAndHealthOverABadLink(t *testing.T) {
	r := start(t, nil)
	for _, fault := range []string{"drop-after", "garbage"} {
		r.server.Device.ClearFaults()
		r.inject(t, fault+"@monitor-traffic")
		r.inject(t, fault+"@/system/health")
		if list, err := r.Traffic(t.Context(), "storage-pool"); err == nil {
			t.Errorf("%s: %+v", fault, list)
		}
		if list, err := r.Health(t.Context()); err == nil || errors.Is(err, appliance.ErrUnsupported) {
			t.Errorf("%s: %+v, %v", fault, list, err)
		}
	}
	r.server.Device.ClearFaults()
	r.inject(t, "drop-after@monitor-traffic:1")
	if list, err := r.Traffic(t.Context(), "storage-pool"); err != nil || len(list) != 1 {
		t.Errorf("after one lost reply: %+v, %v", list, err)
	}
}
