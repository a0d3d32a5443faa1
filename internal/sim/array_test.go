package sim_test

import (
	"os"
	"testing"

	"github.com/rds-csi/rds-csi/internal/sim"
)

func TestPoolState(t *testing.T) {
	r := start(t, sim.Options{})
	failed := `:put [:len [/disk find where raid-member-failed=yes]]`
	r.prints(`:put [/disk get storage-pool state]`, "clean")
	r.prints(failed, "0")
	if r.Device.SetPoolState("nvme1", "clean") || r.Device.SetPoolState("storage-pool", "clean", 4) {
		t.Error("no pool, or no member, has a state")
	}
	if !r.Device.SetPoolState("storage-pool", "clean, degraded", 1) {
		t.Fatal("refused")
	}
	r.prints(`:put [/disk get storage-pool state]`, "clean, degraded")
	r.prints(`:put [/disk get raid10 state]`, "clean")
	r.prints(failed, "1")
	r.prints(`:put [/disk get nvme2 raid-member-state]`, "1:faulty")
	r.prints(`:put [/disk get nvme1 raid-member-state]`, "0:in_sync")
	r.Device.SetPoolState("storage-pool", "clean")
	r.prints(failed, "0")
}

func TestAnItemWhoseImageIsGone(t *testing.T) {
	for value, size := range map[string]string{"size-stays": "1", "no-size": "0"} {
		r := start(t, quirk("image-gone", value))
		r.add("a", "")
		r.add("b", "")
		a, _ := r.Device.Disk("a")
		if err := os.Remove(a.HostFile); err != nil {
			t.Fatal(err)
		}
		r.prints(`:put [/disk get a empty]`, "true")
		r.prints(`:put [/disk get b empty]`, "false")
		r.prints(`:put [:len [/disk find where slot=a and size>0]]`, size)
		r.prints(`:put [:len [/disk find where slot=b and size>0]]`, "1")
	}
}
