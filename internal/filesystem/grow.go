package filesystem

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

// growLimit is how long a caller without a deadline waits. The kernel's work itself cannot be ended, and need not be: it
// keeps the file system whole after every step, and the next call waits for it.
const growLimit = 5 * time.Minute

// geometry is what a superblock says.
type geometry struct {
	blockSize, blocks int64
	mounted           int64 // of ext4: when it was mounted, in seconds of 1970
}

func (g geometry) bytes() int64 { return g.blockSize * g.blocks }

// slack is what a file system may leave at the end of its device: a last group (ext4) or allocation group (xfs) that is
// too small for its own metadata is left out by the kernel.
func slack(fstype string) int64 {
	if fstype == "xfs" {
		return mib // 64 blocks
	}
	return 128 * mib // of 32768 blocks
}

// Grow makes the file system that is mounted at target as large as its device, while it is in use. The kernel does it
// (the ioctls that resize2fs and xfs_growfs end in), so no program and none of its opinions of what is mounted stands
// between. Repeated, or not needed, it changes nothing. It has succeeded when the file system says its new size.
func (f *Filesystem) Grow(ctx context.Context, dev Device, target string) error {
	path, err := resolve(target)
	if err != nil {
		return fmt.Errorf("grow %s: %w", dev, err)
	}
	ctx, cancel := context.WithTimeout(ctx, growLimit)
	defer cancel()
	err = f.lanes.Do(ctx, "device "+dev.number(), func() error {
		there, mounted, err := f.top(path)
		switch {
		case err != nil:
			return err
		case !mounted:
			return fmt.Errorf("%w: %s", ErrNotMounted, path)
		case there.Major != dev.Major || there.Minor != dev.Minor || there.Volume != "":
			return fmt.Errorf("%w: %d:%d (%s) is mounted there", ErrWrongDevice, there.Major, there.Minor, there.FSType)
		case there.ReadOnly:
			return fmt.Errorf("%w: it is mounted read-only at %s", ErrReadOnly, path)
		}
		return f.grow(ctx, dev, path, there.FSType)
	}, nil)
	if err != nil {
		return fmt.Errorf("grow the file system on %s at %s: %w", dev, target, err)
	}
	return nil
}

// grow runs in the lane of the device.
func (f *Filesystem) grow(ctx context.Context, dev Device, path, fstype string) error {
	before, err := f.system.geometry(dev, path, fstype)
	if err != nil {
		return fmt.Errorf("%w: its size: %w", ErrUnreadable, err)
	}
	if before.blockSize <= 0 {
		return fmt.Errorf("%w: its superblock gives a block size of %d", ErrUnreadable, before.blockSize)
	}
	want := dev.SizeBytes / before.blockSize
	if before.blocks >= want {
		return nil
	}
	if err := left(ctx); err != nil {
		return err
	}
	started := time.Now()
	if err := f.system.grow(path, fstype, want); err != nil {
		return fmt.Errorf("%w: %s from %d to %d bytes: %w (the node's kernel log says why)", ErrGrow, fstype, before.bytes(), dev.SizeBytes, err)
	}
	after, err := f.system.geometry(dev, path, fstype)
	if err != nil {
		return fmt.Errorf("%w: its size: %w", ErrUnreadable, err)
	}
	if dev.SizeBytes-after.bytes() > slack(fstype) {
		return fmt.Errorf("%w: %s has %d bytes after growing to %d", ErrGrow, fstype, after.bytes(), dev.SizeBytes)
	}
	if after.blocks > before.blocks {
		f.log.InfoContext(ctx, "file system grown", "device", dev.String(), "fstype", fstype, "from", before.bytes(), "to", after.bytes(), "took", time.Since(started))
	}
	return nil
}

// ext4Geometry reads a superblock (Linux Documentation/filesystems/ext4/super.rst), which begins at offset 1024.
func ext4Geometry(super []byte) (geometry, error) {
	const magic, incompat64 = 0xef53, 0x80
	if len(super) < 1024 || binary.LittleEndian.Uint16(super[0x38:]) != magic {
		return geometry{}, fmt.Errorf("%w: no ext4 superblock", ErrForeignSignature)
	}
	blocks := int64(binary.LittleEndian.Uint32(super[4:]))
	if binary.LittleEndian.Uint32(super[0x60:])&incompat64 != 0 {
		blocks |= int64(binary.LittleEndian.Uint32(super[0x150:])) << 32
	}
	log := binary.LittleEndian.Uint32(super[0x18:])
	if log > 6 {
		return geometry{}, fmt.Errorf("%w: ext4 with blocks of 1024<<%d bytes", ErrForeignSignature, log)
	}
	mounted := int64(binary.LittleEndian.Uint32(super[0x2c:])) | int64(super[0x274])<<32
	return geometry{blockSize: 1024 << log, blocks: blocks, mounted: mounted}, nil
}
