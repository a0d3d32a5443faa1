package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// blockRoot is how much a raw volume's file system may hold: its root and one device file, no data.
func blockRoot() map[string]string {
	return map[string]string{"size": "4096", "nr_inodes": "3", "mode": "0700"}
}

// mountBlock makes the file system of a raw volume complete before anybody can see it. It is never mounted nodev: that
// is what it is for.
func mountBlock(ctx context.Context, b blockCall) error {
	target, err := unix.Open(b.target, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: open %s: %w", ErrTarget, b.target, err)
	}
	defer closeFD(target)
	fs, err := unix.Fsopen(blockFS, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%w: fsopen (needs Linux 5.2): %w", ErrMount, err)
	}
	defer closeFD(fs)
	if err := unix.FsconfigSetString(fs, "source", b.source); err != nil {
		return fmt.Errorf("%w: source %s: %w", ErrMount, b.source, err)
	}
	for key, value := range blockRoot() {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return fmt.Errorf("%w: %s=%s: %w%s", ErrMount, key, value, err, kernelText(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("%w: file system for the device file: %w%s", ErrMount, err, kernelText(fs))
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fmt.Errorf("%w: file system for the device file: %w", ErrMount, err)
	}
	defer closeFD(tree)
	if err := deviceFile(tree, b.dev); err != nil {
		return err
	}
	if err := left(ctx); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("%w: attach to %s: %w", ErrMount, b.target, err)
	}
	return nil
}

// deviceFile makes the device file, with owner and mode of the node's own: a container runtime hands them on to pods.
func deviceFile(dir int, dev Device) error {
	var own unix.Stat_t
	if err := unix.Lstat(dev.Path, &own); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrWrongDevice, dev.Path, err)
	}
	mode := own.Mode & 0o777
	err := unix.Mknodat(dir, blockFile, unix.S_IFBLK|mode, int(unix.Mkdev(dev.Major, dev.Minor)))
	if err == nil {
		err = unix.Fchownat(dir, blockFile, int(own.Uid), int(own.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.Fchmodat(dir, blockFile, mode, 0) // mknod took the umask off
	}
	if err != nil {
		return fmt.Errorf("%w: device file %s: %w", ErrMount, dev.number(), err)
	}
	return nil
}

// bindFile attaches a copy of the mount of one file to another.
func bindFile(ctx context.Context, from, to string) error {
	target, err := unix.Open(to, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: open %s: %w", ErrTarget, to, err)
	}
	defer closeFD(target)
	tree, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("%w: open_tree (needs Linux 5.2): %w", ErrMount, err)
	}
	defer closeFD(tree)
	if err := left(ctx); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("%w: attach to %s: %w", ErrMount, to, err)
	}
	return nil
}

// readOnly asks sysfs and not the device: an open may wait for a target that is away.
func readOnly(dev Device) (bool, error) {
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/ro", dev.Major, dev.Minor))
	if err != nil {
		return false, err
	}
	return strings.TrimSpace(string(text)) != "0", nil
}

// setReadOnly is for the whole device, whoever has it open: from then on a write is answered EPERM.
func setReadOnly(path string, readonly bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	value := 0
	if readonly {
		value = 1
	}
	err = unix.IoctlSetPointerInt(int(file.Fd()), unix.BLKROSET, value)
	return errors.Join(err, file.Close())
}
