package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountCall is one filesystem to be mounted.
type mountCall struct {
	device, fstype, target string
	options                mountOptions
}

// mount uses the file-descriptor interface (Linux 5.2) and not mount(8): the
// kernel names the option that it refuses, no program and no /etc/fstab stands
// between, and a mount that comes about after its caller has left is dropped
// before it becomes visible.
func mount(ctx context.Context, m mountCall) error {
	// Opened without following a link, and before anything: what is mounted on is
	// this directory, whatever the path means later.
	target, err := unix.Open(m.target, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: open %s: %w", ErrTarget, m.target, err)
	}
	defer closeFD(target)
	fs, err := unix.Fsopen(m.fstype, unix.FSOPEN_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: this kernel has no %s, load its module", ErrFsType, m.fstype)
	case err != nil:
		return fmt.Errorf("%w: fsopen (needs Linux 5.2): %w", ErrMount, err)
	}
	defer closeFD(fs)
	if err := configure(fs, m); err != nil {
		return err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("%w: %s on %s: %w%s", ErrMount, m.device, m.target, err, kernelText(fs))
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, m.options.attributes)
	if err != nil {
		return fmt.Errorf("%w: %s on %s: %w%s", ErrMount, m.device, m.target, err, kernelText(fs))
	}
	defer closeFD(tree)
	if err := left(ctx); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("%w: attach %s to %s: %w", ErrMount, m.device, m.target, err)
	}
	return nil
}

func configure(fs int, m mountCall) error {
	if err := unix.FsconfigSetString(fs, "source", m.device); err != nil {
		return fmt.Errorf("%w: source %s: %w", ErrMount, m.device, err)
	}
	for _, o := range m.options.filesystem {
		key, value, valued := strings.Cut(o, "=")
		var err error
		if valued {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return fmt.Errorf("%w: %s does not take %q: %w%s", ErrOption, m.fstype, o, err, kernelText(fs))
		}
	}
	return nil
}

// kernelText is what the kernel had to say about the last step, in parentheses.
func kernelText(fs int) string {
	var lines []string
	buf := make([]byte, 1024)
	for {
		n, err := unix.Read(fs, buf) // one message each; ENODATA after the last
		if err != nil || n <= 0 || len(lines) == 8 {
			break
		}
		lines = append(lines, strings.TrimSpace(string(buf[:n])))
	}
	if len(lines) == 0 {
		return " (the kernel log may say more)"
	}
	return " (" + strings.Join(lines, "; ") + ")"
}

func closeFD(fd int) { _ = unix.Close(fd) }

// bind attaches a copy of the mount at from. It is complete, flags and all, before
// anybody can see it, in this mount namespace or in those it propagates to.
func bind(ctx context.Context, from, to string, add int) error {
	target, err := unix.Open(to, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: open %s: %w", ErrTarget, to, err)
	}
	defer closeFD(target)
	tree, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("%w: open_tree (needs Linux 5.2): %w", ErrMount, err)
	}
	defer closeFD(tree)
	if err := setAttributes(tree, add); err != nil {
		return err
	}
	if err := left(ctx); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("%w: attach to %s: %w", ErrMount, to, err)
	}
	return nil
}

// setAttributes adds flags to a mount that is not attached yet. An older kernel can
// only remount what is attached, when a writable copy is on the host already, so
// there the publish is refused.
func setAttributes(tree, add int) error {
	if add == 0 {
		return nil
	}
	attr := unix.MountAttr{Attr_set: uint64(add)}
	if add&unix.MOUNT_ATTR__ATIME != 0 {
		attr.Attr_clr = unix.MOUNT_ATTR__ATIME // one mode of several: the old one must be said to go
	}
	err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr)
	if errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: %q for a part of the volume's pods needs Linux 5.12 on this node (mount_setattr)", ErrMount, attributeNames(add))
	}
	if err != nil {
		return fmt.Errorf("%w: set %q: %w", ErrMount, attributeNames(add), err)
	}
	return nil
}

// unmount is never lazy: a lazy unmount reports success while the filesystem
// goes on writing.
func unmount(target string) error {
	if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil {
		return &os.PathError{Op: "unmount", Path: target, Err: err}
	}
	return nil
}

// mountID is the mount that a directory lies on, by its number in the mount table.
func mountID(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer closeFD(fd)
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("no mnt_id in the kernel's fdinfo of %s", dir)
}
