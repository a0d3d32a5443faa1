package filesystem

import (
	"context"
	"fmt"
	"time"
)

// format makes a filesystem on a device that is proven blank and held open.
//
// mkfs is not cut off when the RPC ends: ctx is for waiting only. The next Stage
// waits for the same lane and then finds a filesystem.
func (f *Filesystem) format(ctx context.Context, dev Device, fstype string) error {
	// mkfs.xfs looks for signatures itself and refuses without -f; mkfs.ext4 does
	// so only on a terminal, and then asks. Both open the device exclusively.
	if err := f.unclaimed(dev); err != nil {
		return err
	}
	name, args := "mkfs.ext4", ext4Args()
	if fstype == "xfs" {
		version, _ := f.system.run(ctx, "mkfs.xfs", "-V")
		name, args = "mkfs.xfs", xfsArgs(version.output)
	}
	if err := f.still(dev); err != nil {
		return err
	}
	if err := left(ctx); err != nil {
		return err
	}
	started := time.Now()
	r, err := f.write(ctx, dev, name, append(args, dev.Path)...)
	if err == nil && r.code != 0 {
		err = fmt.Errorf("%s ended with %d: %s", name, r.code, r.output)
	}
	f.log.InfoContext(ctx, "formatted a blank device", "device", dev.String(), "fstype", fstype, "took", time.Since(started), "error", err)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrFormat, dev, err)
	}
	return nil
}

// unclaimed: nobody has it mounted or is formatting it, in whatever namespace.
func (f *Filesystem) unclaimed(dev Device) error {
	busy, err := f.system.claimed(dev.Path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if busy {
		return fmt.Errorf("%w: somebody else is using or formatting %s", ErrBusy, dev)
	}
	return nil
}

// write runs a tool that must not be cut off; Drain waits for it.
func (f *Filesystem) write(ctx context.Context, dev Device, name string, args ...string) (result, error) {
	whole := context.WithoutCancel(ctx)
	leave, err := f.writers.Enter(whole, dev.number())
	if err != nil {
		return result{}, err
	}
	defer leave()
	return f.system.run(whole, name, args...)
}

// ext4Args pins the features to those of 2016 (Linux 4.4, e2fsprogs 1.43), for
// the node's kernel or rescue tools may be older than the mkfs in the image
// (tytso/e2fsprogs#147). "none" first: no default of any version gets in, such
// as orphan_file or metadata_csum_seed. nodiscard: it is blank, and what a
// discard does on the target is unknown [U].
func ext4Args() []string {
	return []string{
		"-q", "-b", "4096", "-I", "256", "-m", "0",
		"-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg," +
			"sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum",
		"-E", "nodiscard",
	}
}

// xfsArgs pins the features to those of Linux 5.4. A feature can only be
// switched off by a mkfs.xfs that knows it.
func xfsArgs(version string) []string {
	var major, minor int
	_, _ = fmt.Sscanf(version, "mkfs.xfs version %d.%d", &major, &minor)
	since := func(a, b int) bool { return major > a || major == a && minor >= b }
	meta, inode, naming := "crc=1,finobt=1,rmapbt=0,reflink=1", "sparse=1", "ftype=1"
	if since(5, 10) {
		meta += ",bigtime=0,inobtcount=0"
	}
	if since(5, 19) {
		inode += ",nrext64=0"
	}
	if since(6, 10) {
		inode += ",exchange=0"
		naming += ",parent=0"
	}
	return []string{"-q", "-K", "-m", meta, "-i", inode, "-n", naming}
}

// repair lets e2fsck make the safe repairs, once, after the kernel refused to
// mount. xfs is left alone: xfs_repair throws a dirty log away.
func (f *Filesystem) repair(ctx context.Context, dev Device) error {
	if err := f.still(dev); err != nil {
		return err
	}
	r, err := f.write(ctx, dev, "e2fsck", "-p", dev.Path)
	f.log.WarnContext(ctx, "e2fsck ran after a failed mount", "device", dev.String(), "code", r.code, "output", r.output, "error", err)
	if err != nil {
		return err
	}
	// 1: errors corrected, 2: corrected and a reboot wanted if it were mounted.
	if r.code > 3 {
		return fmt.Errorf("e2fsck -p ended with %d: %s", r.code, r.output)
	}
	return nil
}
