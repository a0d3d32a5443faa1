package machine

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// From <linux/kvm.h>.
const (
	kvmGetAPIVersion = 0xAE00
	kvmCreateVM      = 0xAE01
	kvmAPIVersion    = 12
)

// kvmLooksUsable asks the device itself. Some machines have a /dev/kvm that makes machines but cannot run a kernel in
// them (seen: a virtual CPU that is emulated and lacks instructions); only a boot shows that, so a failed one is
// remembered until the host's next boot.
func kvmLooksUsable(verdicts string) bool {
	if os.Getenv("GUEST_ACCEL") == "tcg" || remembersNoKVM(verdicts) {
		return false
	}
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	if version, err := unix.IoctlRetInt(fd, kvmGetAPIVersion); err != nil || version != kvmAPIVersion {
		return false
	}
	machine, err := unix.IoctlRetInt(fd, kvmCreateVM)
	if err != nil {
		return false
	}
	return unix.Close(machine) == nil
}

// verdictFile is named after this boot of the host, so that a verdict never outlives a change of the machine.
func verdictFile(dir string) (string, bool) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || dir == "" {
		return "", false
	}
	return filepath.Join(dir, "no-kvm-"+strings.TrimSpace(string(id))), true
}

func remembersNoKVM(dir string) bool {
	file, ok := verdictFile(dir)
	if !ok {
		return false
	}
	_, err := os.Stat(file)
	return err == nil
}

func rememberNoKVM(dir string) {
	if file, ok := verdictFile(dir); ok {
		_ = os.WriteFile(file, nil, 0o600) // forgetting costs a few seconds at the next run
	}
}
