package sim

import (
	"context"
	"net"
)

// Device is one simulated RDS.
type Device struct{}

// New makes a device, or the one that Options.Dir remembers. Close it.
func New(o Options) (*Device, error) { return &Device{}, nil }

// Close takes the exports away and waits for everything the device started, as a clean shutdown does.
func (d *Device) Close() error { return nil }

// Serve answers SSH on the listener until ctx ends; by then all connections are closed.
func (d *Device) Serve(ctx context.Context, ln net.Listener) error { return nil }

// Reboot takes the device down and returns when it is back.
func (d *Device) Reboot(ctx context.Context) error { return nil }

// Inject adds a fault: kind[=value][@command-substring][:count].
func (d *Device) Inject(spec string) error { return nil }

// ClearFaults removes every fault.
func (d *Device) ClearFaults() {}

// SetQuirk changes a switch while the device runs.
func (d *Device) SetQuirk(name, value string) error { return nil }

// Commands are the scripts received by exec so far, oldest first.
func (d *Device) Commands() []string { return nil }

// Counters count what the device has seen since it was made.
type Counters struct{ Connections, Channels, Commands int }

// Counters returns the counts so far.
func (d *Device) Counters() Counters { return Counters{} }

// Disk is an item of type=file as the device has it.
type Disk struct {
	ID, Slot, Comment        string
	FilePath                 string
	FileSize                 int64
	MountFilesystem, Mounted bool
	Export                   bool
	Port                     int
	NQN, AllowHostName       string
	Serial, UUID             string
}

// Disk finds an item of type=file by its slot.
func (d *Device) Disk(slot string) (Disk, bool) { return Disk{}, false }

// Disks returns all items of type=file.
func (d *Device) Disks() []Disk { return nil }
