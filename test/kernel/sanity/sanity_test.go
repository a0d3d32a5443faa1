//go:build kernel

package sanity_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
	"github.com/rds-csi/rds-csi/test/guest/wire"
	"github.com/rds-csi/rds-csi/test/sanity"
)

// TestMain refuses to run anywhere but in the guest: the suite mounts and formats as root.
func TestMain(m *testing.M) {
	if _, err := os.Stat(wire.JobFile); err != nil || os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "this suite changes the machine it runs on; run it in the guest: make kernel-test")
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, sanity.GinkgoLeaves())
}

const (
	nodeID  = "guest"
	cluster = "sanity"
)

// "should be idempotent" is where the existing driver fails with its real mounts. One after the other: the exports of both
// simulators are the same kernel's.
func TestSanityOnAKernel(t *testing.T) {
	sanity.Each(t, []string{"file system", "raw block"}, func(*testing.T) {}, func(t *testing.T, name string) {
		against(t, map[string]string{"raw block": "block"}[name])
	})
}

// against runs the suite with volumes that are used in one way: "block", or as file systems.
func against(t *testing.T, access string) {
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	server := simtest.Start(t, sim.Options{NVMe: &sim.NVMeOptions{Address: sanity.Address}, Logger: logger})
	if !server.Device.RealExports() {
		t.Fatal("the simulator does not export through nvmet here")
	}
	ledger := attach.NewLedger(attach.Options{})
	controller := driver.NewController(sanity.RDS, ledger, logger)
	controller.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{sanity.RDS: sanity.Connect(t, server, cluster)}})

	initiator := nvme.New(nvme.Config{Host: nvme.HostFor("rds.csi.srvlab.io", cluster, nodeID), Logger: logger})
	files := filesystem.New(filesystem.Config{Logger: logger})
	node := driver.NewNode(driver.NodeConfig{
		NodeID: nodeID, MaxVolumes: sanity.MaxVolumes, Initiator: initiator, Filesystem: files, Mounts: driver.KernelMounts, Logger: logger,
		Options: nvme.Options{CtrlLossTimeout: -1, ReconnectDelay: 2 * time.Second, KeepAlive: 5 * time.Second},
	})
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sanity.Run(t, sanity.Driver{
		Controller: controller, Node: node, NodeID: nodeID, Ledger: ledger, Dir: dir, VolumeSize: 64 << 20, AccessType: access,
	})
	if err := files.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	states, err := initiator.Connections()
	if err != nil {
		t.Error(err)
	}
	for state, n := range states {
		if n != 0 {
			t.Errorf("%d connections are still %s", n, state)
		}
	}
	if left := server.Device.Disks(); len(left) != 0 {
		t.Errorf("still on the rds: %v", left)
	}
}
