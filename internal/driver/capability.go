package driver

import (
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// Filesystems that a volume can get, and the least size at which their mkfs makes one that is of use.
const (
	ext4 = "ext4"
	xfs  = "xfs"

	mib = 1 << 20
	gib = 1 << 30

	// leastExt4: mkfs.ext4 works from a few hundred KiB on; below 16 MiB a journal takes most of the room.
	leastExt4 = 16 * mib
	// leastXFS: mkfs.xfs (xfsprogs 5.19 and later) refuses data sections below 300 MiB.
	leastXFS = 300 * mib
	// sizeUnasked is the size of a volume whose request names none.
	sizeUnasked = 1 * gib
)

// checkFSType answers the file system to use for a request: ext4 unless it says otherwise.
func checkFSType(fsType string) (string, error) {
	switch fsType {
	case "":
		return ext4, nil
	case ext4, xfs:
		return fsType, nil
	}
	return "", invalid("file system %q is not supported; use ext4 or xfs", fsType)
}

func leastSize(fsType string) int64 {
	if fsType == xfs {
		return leastXFS
	}
	return leastExt4
}

// checkCapabilities refuses what cannot be honoured; it answers the file system asked for, "" when none is.
func checkCapabilities(caps []*csi.VolumeCapability) (fsType string, err error) {
	if len(caps) == 0 {
		return "", invalid("volume capabilities are required")
	}
	readers := 0
	for _, c := range caps {
		if err := checkCapability(c); err != nil {
			return "", err
		}
		if attachMode(c) == attach.Readers {
			readers++
		}
		asked := c.GetMount().GetFsType()
		if fsType != "" && asked != "" && asked != fsType {
			return "", invalid("capabilities ask for both %s and %s on one volume", fsType, asked)
		}
		if asked != "" {
			fsType = asked
		}
	}
	if readers > 0 && readers < len(caps) {
		// external-attacher refuses the first of such a PersistentVolume as well, but only once a pod waits for it.
		return "", invalid("ReadOnlyMany stands beside another access mode: a volume is either written to or read by many; make a volume of its own for the readers, from a snapshot or a clone")
	}
	return fsType, nil
}

// attachMode is which nodes may have the volume, by the request. external-attacher makes of the access modes of a
// PersistentVolume one of CSI: ReadWriteMany becomes MULTI_NODE_MULTI_WRITER, ReadOnlyMany alone MULTI_NODE_READER_ONLY.
func attachMode(c *csi.VolumeCapability) attach.Mode {
	switch mode := c.GetAccessMode().GetMode(); {
	case mode == csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:
		return attach.Readers
	case mode == csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER && c.GetBlock() != nil:
		return attach.MultiNode
	default:
		return attach.SingleNode
	}
}

// checkCapability refuses what a volume cannot be used as.
func checkCapability(c *csi.VolumeCapability) error {
	switch {
	case c == nil:
		return invalid("volume capability is required")
	case c.GetBlock() == nil && c.GetMount() == nil:
		return invalid("volume capability names no access type: mount or block is required")
	case c.GetMount().GetVolumeMountGroup() != "":
		return invalid("volume_mount_group is not supported: the capability VOLUME_MOUNT_GROUP is not advertised")
	}
	if _, err := checkFSType(c.GetMount().GetFsType()); err != nil {
		return err
	}
	return checkAccessMode(c)
}

// checkAccessMode accepts the modes of a single node, readers on any number of them, and several nodes that write only to
// raw block, where a virtual machine that migrates sees to it itself that one of them does: two kernels on one ext4 or xfs
// destroy it. How many nodes there may be is the ledger's to decide.
func checkAccessMode(c *csi.VolumeCapability) error {
	mode := c.GetAccessMode().GetMode()
	onOneNode := slices.Contains([]csi.VolumeCapability_AccessMode_Mode{
		csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	}, mode)
	if onOneNode || attachMode(c) != attach.SingleNode {
		return nil
	}
	return invalid("access mode %s is not supported: a volume is for one node at a time (ReadWriteOnce or ReadWriteOncePod), or for many that read (ReadOnlyMany); only raw block may be ReadWriteMany", mode)
}

// readOnly says whether pods may only read.
func readOnly(c *csi.VolumeCapability) bool {
	return c.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
}

// capacityFor answers the sizes to ask of the appliance. A size below what the file system needs is rounded up, as
// users of other drivers expect (a claim of 1Mi gets a volume that works), unless the limit forbids it.
func capacityFor(r *csi.CapacityRange, fsType string) (required, limit int64, err error) {
	required, limit = r.GetRequiredBytes(), r.GetLimitBytes()
	least := leastSize(fsType)
	switch {
	case required < 0 || limit < 0:
		return 0, 0, invalid("capacity range has a negative size")
	case limit > 0 && limit < required:
		return 0, 0, invalid("capacity range: limit of %d bytes is below the %d required", limit, required)
	case limit > 0 && limit < least:
		return 0, 0, refuse(codes.OutOfRange, "a limit of %d bytes is below the least size of an %s volume, %d bytes", limit, fsType, least)
	case required == 0 && limit > 0:
		required = min(sizeUnasked, limit)
	case required == 0:
		required = sizeUnasked
	}
	return max(required, least), limit, nil
}
