package nvme

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// kernel is what a directory tree cannot imitate; tests replace it.
type kernel struct {
	fabrics func(path, options string) (reply string, err error)
	write   func(dir *os.Root, attribute, value string) error
	claim   func(path string) (io.Closer, error)
	open    func(path string) error
	number  func(path string) (major, minor uint32, err error)
	mknod   func(path string, major, minor uint32) error
}

func linux() kernel {
	return kernel{fabrics: writeFabrics, write: writeAttribute, claim: claim, open: open, number: deviceNumber, mknod: mknod}
}

// writeFabrics hands one option string to the kernel, which connects before the
// write returns: up to 10 s for a target that accepts TCP and says nothing, 60 s
// for one that falls silent later. The kernel holds a mutex of all connects of
// the node meanwhile.
func writeFabrics(path, options string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	// The TCP connect inside the kernel ends early when a signal arrives, and
	// this process gets a SIGCHLD for every mkfs and blkid it runs.
	defer blockSignals()()
	if _, err := unix.Write(fd, []byte(options)); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	reply := make([]byte, 256)
	n, err := unix.Read(fd, reply)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return strings.TrimSpace(string(reply[:n])), nil
}

// blockSignals keeps signals away from this thread until the result is called.
func blockSignals() (restore func()) {
	runtime.LockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
		runtime.UnlockOSThread()
	}
}

func writeAttribute(dir *os.Root, attribute, value string) error {
	f, err := dir.OpenFile(attribute, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// claim opens a block device exclusively: EBUSY while it is mounted or held by
// swap, RAID, device mapper or another claim, in any mount namespace. It asks
// the kernel itself, no list of processes (B8).
func claim(path string) (io.Closer, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0)
}

// open opens a block device and closes it again; it neither claims it nor reads from it.
func open(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// noDevice: what was to be opened has no node, or the kernel no device for its number.
func noDevice(err error) bool { return errors.Is(err, unix.ENXIO) || vanished(err) }

// deviceNumber is the number of the block device node at path.
func deviceNumber(path string) (major, minor uint32, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, fmt.Errorf("%s is not a block device: %w", path, ErrIdentity)
	}
	return unix.Major(st.Rdev), unix.Minor(st.Rdev), nil
}

func mknod(path string, major, minor uint32) error {
	dev := unix.Mkdev(major, minor)
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(dev)); err != nil {
		return &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	return nil
}
