package sanity_test

import (
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/driver/drivertest"
	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
	"github.com/rds-csi/rds-csi/test/sanity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, sanity.GinkgoLeaves()) }

const (
	nodeID  = "node-a"
	cluster = "sanity"
)

// The suite, against every kind of RDS.
func TestSanity(t *testing.T) {
	all := map[string]kind{}
	for _, k := range kinds() {
		all[k.name] = k
	}
	sanity.Each(t, slices.Sorted(maps.Keys(all)), (*testing.T).Parallel, func(t *testing.T, name string) { against(t, all[name]) })
}

// against goes the whole way from the CSI socket to the RDS's disk table, over real SSH; the node's kernel is in memory, with mounts
// that stack and devices that cannot be disconnected while mounted (B35: a mock that overwrites cannot fail).
func against(t *testing.T, k kind) {
	server := simtest.Start(t, sim.Options{Quirks: k.quirks, Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: k.pool, SizeBytes: 1 << 40}}})
	ledger := attach.NewLedger(attach.Options{})
	controller := driver.NewController(sanity.RDS, ledger, slog.New(slog.DiscardHandler))
	controller.Topology = k.topology
	controller.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{sanity.RDS: sanity.Connect(t, server, cluster)}})

	kernel := drivertest.NewKernel(exported(server.Device))
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	node := driver.NewNode(driver.NodeConfig{
		NodeID: nodeID, MaxVolumes: sanity.MaxVolumes, Topology: k.topology, Initiator: kernel, Filesystem: kernel, Mounts: kernel.Mounts, Logger: slog.New(slog.DiscardHandler),
	})
	sanity.Run(t, sanity.Driver{
		Controller: controller, Node: node, NodeID: nodeID, Ledger: ledger, Dir: dir, VolumeSize: 1 << 30,
		AccessType: k.access, Topology: k.topology, Cannot: k.cannot,
	})
	if left := kernel.Connected(); len(left) != 0 {
		t.Errorf("still connected: %v", left)
	}
	if left := server.Device.Disks(); len(left) != 0 {
		t.Errorf("still on the rds: %v", left)
	}
}

// exported answers from the RDS's own disk table what a node would find there.
func exported(device *sim.Device) drivertest.Target {
	return func(nqn string) (int64, bool) {
		for _, d := range device.Disks() {
			if d.NQN == nqn && d.Export {
				return d.FileSize, true
			}
		}
		return 0, false
	}
}
