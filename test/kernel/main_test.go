//go:build kernel

package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/test/guest/wire"
)

// TestMain refuses to run anywhere but in the guest: these tests format devices and disconnect subsystems as root.
func TestMain(m *testing.M) {
	if _, err := os.Stat(wire.JobFile); err != nil || os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests change the machine they run on; run them in the guest: make kernel-test")
		os.Exit(1)
	}
	if os.Getenv(wire.PlaceVariable) == wire.Second {
		fmt.Fprintln(os.Stderr, "agent:", serveAgent())
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// TestGuestHasWhatTheTestsNeed fails before the others do in stranger ways.
func TestGuestHasWhatTheTestsNeed(t *testing.T) {
	for _, path := range []string{"/dev/nvme-fabrics", "/sys/kernel/config/nvmet/subsystems", "/sys/class/nvme-subsystem", "/dev/loop-control"} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("kernel: %v", err)
		}
	}
	if os.Getenv(wire.PlaceVariable) != wire.First {
		t.Error("there is no second machine: go run ./test/guest run --second")
	}
	for _, tool := range []string{"mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "e2fsck", "dumpe2fs", "blkid", "xfs_db", "xfs_io", "mount", "umount", "rds-csi"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Errorf("tool: %v", err)
		}
	}
}
