package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os"
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

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind mount", Path: to, Err: err}
	}
	return nil
}

// rebind sets the flags of one bind mount; a bind mount takes none when it is made.
func rebind(target string, flags uintptr) error {
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		return &os.PathError{Op: "remount", Path: target, Err: err}
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
