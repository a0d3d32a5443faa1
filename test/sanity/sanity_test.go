package sanity_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	// maxVolumes is more than any other spec attaches at once.
	maxVolumes = 4
)

// kind is one kind of RDS.
type kind struct {
	name, pool string
	access     string // "block" for raw block volumes
	quirks     map[string]string
	cannot     []string // specs of what such a device cannot do
}

// kinds are a pool that shares blocks and one that copies, and then each switch of the simulator in turn, for each value that
// is not the one it has by itself. The kind of pool is the one for which the switch matters. Switches of what no call of CSI
// asks for, sensors, traffic and reboots, are left to the tests of those.
func kinds(t *testing.T) []kind {
	all := []kind{{name: "btrfs", pool: "btrfs"}, {name: "xfs", pool: "xfs"}, {name: "raw block", pool: "btrfs", access: "block"}}
	for _, q := range sim.Quirks() {
		values := q.Values
		if given, ok := numbers()[q.Name]; ok {
			values = []string{given}
		}
		if strings.HasPrefix(q.Name, "monitor-") || strings.Contains(q.Name, "reboot") || q.Name == "health" {
			continue
		}
		pool := "btrfs"
		if strings.HasPrefix(q.Name, "file-copy") {
			pool = "xfs"
		}
		for _, value := range values {
			if strings.ToUpper(value) == value && !strings.ContainsAny(value, "0123456789") {
				t.Errorf("say with which %s the switch %s is to be tried", value, q.Name)
			}
			if value != q.Default {
				all = append(all, kind{name: q.Name + "=" + value, pool: pool, quirks: map[string]string{q.Name: value}, cannot: cannot()[q.Name+"="+value]})
			}
		}
	}
	return all
}

// cannot names what stays undone, by switch; docs/limits.md says so too.
func cannot() map[string][]string {
	const create = "Controller Service [Controller Server] CreateVolume should create volume from an existing source "
	return map[string][]string{
		// A volume is made of an image that is there already, be it a copy or a subvolume's.
		"existing-file=error": {create + "snapshot", create + "volume"},
	}
}

// numbers are values for the switches that are no choice of words.
func numbers() map[string]string {
	return map[string]string{
		"channel-limit": "4", "command-limit": "65536", "spare-idle-timeout": "50ms", "command-time": "2ms",
		"max-sessions": "2", "file-copy-time": "40ms",
	}
}

// which names the kind of RDS for a process of its own: Ginkgo has one suite per process.
const which = "RDS_CSI_SANITY"

// The suite, against every kind of RDS.
func TestSanity(t *testing.T) {
	for _, k := range kinds(t) {
		if os.Getenv(which) == k.name {
			against(t, k)
			return
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds(t) {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			suite := exec.CommandContext(t.Context(), self, "-test.run=^TestSanity$", "-test.timeout=5m", "-test.v")
			suite.Env = append(os.Environ(), which+"="+k.name)
			out, err := suite.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "csi-sanity: ") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}

// against goes the whole way from the CSI socket to the RDS's disk table, over real SSH; the node's kernel is in memory, with mounts
// that stack and devices that cannot be disconnected while mounted (B35: a mock that overwrites cannot fail).
func against(t *testing.T, k kind) {
	server := simtest.Start(t, sim.Options{Quirks: k.quirks, Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: k.pool, SizeBytes: 1 << 40}}})
	ledger := attach.NewLedger(attach.Options{})
	controller := driver.NewController(sanity.RDS, ledger, slog.New(slog.DiscardHandler))
	controller.MaxVolumes = maxVolumes
	controller.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{sanity.RDS: sanity.Connect(t, server, cluster)}})

	kernel := drivertest.NewKernel(exported(server.Device))
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	node := driver.NewNode(driver.NodeConfig{
		NodeID: nodeID, MaxVolumes: maxVolumes, Initiator: kernel, Filesystem: kernel, Mounts: kernel.Mounts, Logger: slog.New(slog.DiscardHandler),
	})
	sanity.Run(t, sanity.Driver{
		Controller: controller, Node: node, NodeID: nodeID, Ledger: ledger, Dir: dir, VolumeSize: 1 << 30, Cannot: k.cannot, AttachLimit: true, AccessType: k.access,
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
