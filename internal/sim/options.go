package sim

import (
	"log/slog"

	"golang.org/x/crypto/ssh"
)

// Options describe the device to simulate. Dir is the only field that must be set.
type Options struct {
	// Dir holds what survives a power loss: the configuration (device.json), the files of the pools (files/) and
	// the host key. A device made with the Dir of an earlier one is that device after a reboot.
	Dir string
	// Version is the RouterOS release to imitate, "7.24" when empty.
	Version string
	// Identity is the name of the device, "RDS" when empty.
	Identity string
	// Quirks sets switches for what is not known of the real device; see the function Quirks.
	Quirks map[string]string
	// Faults are injected from the start; see Device.Inject for the grammar.
	Faults []string
	// Users that may log in.
	Users []User
	// HostKey identifies the device; nil makes an RSA key of 2048 bits under Dir, as the device does [R].
	HostKey ssh.Signer
	// Pools are the storage pools; nil means DefaultPools.
	Pools []Pool
	// NVMe makes exports real, through the kernel's nvmet. nil: exports exist in the disk table only.
	NVMe *NVMeOptions
	// Logger may be nil.
	Logger *slog.Logger
}

// User is an account of the device.
type User struct {
	Name string
	// Policies as a group of RouterOS has them: ssh, read, write, policy, test, reboot, sensitive, ...
	Policies []string
	// Keys that log the user in: RSA or ed25519. The device refuses ECDSA keys [R].
	Keys []ssh.PublicKey
	// Password logs the user in as long as the user has no key [V].
	Password string
}

// Pool is a mounted file system that holds the backing files of volumes.
type Pool struct {
	// Slot is its name in /disk, its mount point and the first component of its paths.
	Slot string
	// Filesystem is "btrfs" or "xfs".
	Filesystem string
	// SizeBytes is what the pool pretends to hold. Backing files are sparse, so it may exceed the real disk.
	SizeBytes int64
}

// NVMeOptions say where exports appear.
type NVMeOptions struct {
	// Address is the IP address that hosts connect to.
	Address string
	// ConfigFS is the directory of nvmet in configfs, "/sys/kernel/config/nvmet" when empty.
	ConfigFS string
	// SysFS is where /sys is mounted, "/sys" when empty; only the quirk remove-while-connected=refuse reads it.
	SysFS string

	kernel kernel // nil: the real one
}

// CSIUser is the account of a driver: what it needs and no more. It needs test for monitors only.
func CSIUser(keys ...ssh.PublicKey) User {
	return User{Name: "csi", Policies: []string{"ssh", "read", "write", "test"}, Keys: keys}
}

// AdminUser is the account that may do everything.
func AdminUser(keys ...ssh.PublicKey) User {
	return User{Name: "admin", Policies: allPolicies(), Keys: keys}
}

// DefaultPools are one pool of each kind seen on real devices: Btrfs on RAID6, and XFS on nested RAID [R].
func DefaultPools() []Pool {
	return []Pool{
		{Slot: "storage-pool", Filesystem: "btrfs", SizeBytes: 1 << 40},
		{Slot: "raid10", Filesystem: "xfs", SizeBytes: 1 << 40},
	}
}

// allPolicies are the flags a group can have [V].
func allPolicies() []string {
	return []string{
		"local", "telnet", "ssh", "ftp", "reboot", "read", "write", "policy", "test", "winbox", "password", "web",
		"sniff", "sensitive", "api", "romon", "rest-api",
	}
}
