// Package appliancetest holds an RDS in memory, for tests of what stands above package appliance, and the contract that
// it and the real one are both held to: a fake that has not passed the same tests as the real thing proves nothing.
package appliancetest

import (
	"context"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Volumes are the operations on volumes as such.
type Volumes interface {
	Create(context.Context, appliance.CreateRequest) (appliance.Volume, error)
	Get(ctx context.Context, slot string) (appliance.Volume, error)
	List(context.Context) ([]appliance.Volume, error)
	Delete(ctx context.Context, slot string) error
}

// RDS is all that an appliance does for the driver.
type RDS interface {
	Volumes
	Gauged
	Storage
	Snapshots
}

// Storage is what there is beside the life of a volume.
type Storage interface {
	Export(ctx context.Context, slot string) (appliance.Volume, error)
	ExportUnused(ctx context.Context, slot string) (appliance.Volume, error)
	Expand(ctx context.Context, slot string, requiredBytes, limitBytes int64) (appliance.Volume, error)
	Capacity(context.Context, appliance.Path) (appliance.Pool, error)
}

// Snapshots are the operations on snapshots.
type Snapshots interface {
	CreateSnapshot(context.Context, appliance.SnapshotRequest) (appliance.Snapshot, error)
	DeleteSnapshot(ctx context.Context, id string) error
	GetSnapshot(ctx context.Context, id string) (appliance.Snapshot, error)
	ListSnapshots(context.Context) ([]appliance.Snapshot, error)
}

// Device is the back door by which a test sets a scene and looks behind the driver's back.
type Device interface {
	Instruments
	Contents
	Work
}

// Work is the back door to what a device does in the background.
type Work interface {
	// HoldCopies makes full copies that begin from now on wait half-way until release is called.
	HoldCopies(testing.TB) (release func())
}

// Contents is the back door to what lies on a device.
type Contents interface {
	// PutDisk adds or replaces a disk item and the file it names, as somebody else would have made them.
	PutDisk(testing.TB, Disk)
	// PutFile puts down a file that no item names; directories are made.
	PutFile(t testing.TB, path string)
	// Disks are the items of type file, by slot.
	Disks(testing.TB) map[string]Disk
	// Files are the paths of all files (not directories), with a leading slash, sorted.
	Files(testing.TB) []string
}

// Disk is one disk item of type file, as it stands on the device.
type Disk struct {
	Slot                 string
	Cluster, Name, Claim string // from the comment; without Cluster there is no comment
	From                 string // from the comment: slot or snapshot that it was made from
	Path                 string // with a leading slash
	SizeBytes            int64
	NQN                  string
	Port                 int
	Exported             bool
	MountFilesystem      bool
	Mounted              bool
	GrownTo              int64 // from the comment: how large it was made after its last new export
}
