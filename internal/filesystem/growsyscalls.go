package filesystem

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's interfaces, which never change: _IOW('f', 16, __u64), _IOR('X', 100, struct xfs_fsop_geom_v1) and
// _IOW('X', 110, struct xfs_growfs_data).
const (
	ext4Resize     = 0x40086610
	xfsGeometryV1  = 0x80705864
	xfsGrowData    = 0x4010586e
	ext4SuperStart = 1024
)

// xfsGeom is struct xfs_fsop_geom_v1, as far as it is used.
type xfsGeom struct {
	blockSize, _, _, _, _, _, _, imaxPercent uint32
	dataBlocks                               uint64
	_                                        [72]byte
}

// xfsGrow is struct xfs_growfs_data.
type xfsGrow struct {
	blocks      uint64
	imaxPercent uint32
	_           uint32
}

// mountedGeometry is the size of a mounted file system. That of ext4 is read through the cache of its device, where the
// kernel keeps its superblock; xfs keeps its own to itself and answers when asked.
func mountedGeometry(dev Device, path, fstype string) (geometry, error) {
	if fstype == "xfs" {
		g, err := xfsGeometry(path)
		return geometry{blockSize: int64(g.blockSize), blocks: int64(g.dataBlocks)}, err
	}
	file, err := os.Open(dev.Path)
	if err != nil {
		return geometry{}, err
	}
	defer func() { _ = file.Close() }()
	super := make([]byte, 1024)
	if _, err := file.ReadAt(super, ext4SuperStart); err != nil {
		return geometry{}, err
	}
	return ext4Geometry(super)
}

func xfsGeometry(path string) (g xfsGeom, err error) {
	err = onMount(path, xfsGeometryV1, unsafe.Pointer(&g)) //nolint:gosec // an ioctl takes a pointer
	return g, err
}

// growMounted asks the kernel to make a mounted file system that large.
func growMounted(path, fstype string, blocks int64) error {
	switch fstype {
	case "ext4":
		want := uint64(blocks)
		return onMount(path, ext4Resize, unsafe.Pointer(&want)) //nolint:gosec // an ioctl takes a pointer
	case "xfs":
		now, err := xfsGeometry(path)
		if err != nil {
			return err
		}
		// The share of inodes is set by the same call, and stays.
		grow := xfsGrow{blocks: uint64(blocks), imaxPercent: now.imaxPercent}
		return onMount(path, xfsGrowData, unsafe.Pointer(&grow)) //nolint:gosec // an ioctl takes a pointer
	}
	return fmt.Errorf("%w: %s", ErrFsType, fstype)
}

// onMount is an ioctl of the file system that is mounted at path.
func onMount(path string, request uintptr, argument unsafe.Pointer) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer closeFD(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
		return &os.PathError{Op: "resize", Path: path, Err: errno}
	}
	return nil
}
