package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// system is what the kernel and the tools do; tests replace it.
type system struct {
	open    func(path string) (disk, error)
	number  func(path string) (major, minor uint32, err error)
	claimed func(path string) (bool, error)
	run     func(ctx context.Context, name string, args ...string) (result, error)
	mount   func(ctx context.Context, m mountCall) error
	bind    func(ctx context.Context, from, to string, add int) error // add: MOUNT_ATTR_*
	unmount func(target string) error
	mountID func(dir string) (int, error)

	mountBlock  func(ctx context.Context, b blockCall) error
	bindFile    func(ctx context.Context, from, to string) error
	readOnly    func(dev Device) (bool, error)
	setReadOnly func(path string, readonly bool) error
	geometry    func(dev Device, path, fstype string) (geometry, error) // of what is mounted at path
	grow        func(path, fstype string, blocks int64) error
	statfs      func(path string) (unix.Statfs_t, error)
	recorded    func(dev Device) (noted, error) // errors in the superblock of a mounted ext4
}

func linux() system {
	return system{
		open: openDevice, number: deviceNumber, claimed: claimed, run: run,
		mount: mount, bind: bind, unmount: unmount, mountID: mountID,
		mountBlock: mountBlock, bindFile: bindFile, readOnly: readOnly, setReadOnly: setReadOnly,
		geometry: mountedGeometry, grow: growMounted, statfs: statfs, recorded: ext4Errors,
	}
}

// disk is an open block device. While it is open, its number cannot go to
// another device.
type disk interface {
	io.ReaderAt
	io.Closer
	Size() int64
	Number() (major, minor uint32)
}

type blockDevice struct {
	*os.File
	size         int64
	major, minor uint32
}

func (b *blockDevice) Size() int64                   { return b.size }
func (b *blockDevice) Number() (major, minor uint32) { return b.major, b.minor }

// openDevice opens a block device past the page cache: what is read is what the
// target answered now, and what it did not answer is an error.
func openDevice(path string) (disk, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	b := &blockDevice{File: file}
	if err := b.identify(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return b, nil
}

func (b *blockDevice) identify() error {
	info, err := b.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return fmt.Errorf("%s is not a block device: %w", b.Name(), ErrWrongDevice)
	}
	b.major, b.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	b.size, err = b.Seek(0, io.SeekEnd)
	return err
}

// deviceNumber is the number of the block device node at path.
func deviceNumber(path string) (major, minor uint32, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, fmt.Errorf("%s is not a block device: %w", path, ErrWrongDevice)
	}
	return unix.Major(st.Rdev), unix.Minor(st.Rdev), nil
}

// claimed: the kernel refuses an exclusive open of what is mounted, being
// formatted or otherwise held, by whatever process and mount namespace.
func claimed(path string) (bool, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, file.Close()
}

// result is how a tool ended.
type result struct {
	code   int
	output string // of both streams, bounded
}

const outputLimit = 16 << 10

// run runs a tool to its end or until ctx ends. A tool in D state cannot be
// killed: then run returns when the kernel lets it go, which is why it is only
// called in a lane. It gets a process group of its own, so that a signal to the
// plugin's group does not cut off mkfs.
func run(ctx context.Context, name string, args ...string) (result, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out bounded
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	r := result{code: cmd.ProcessState.ExitCode(), output: strings.TrimSpace(out.String())}
	if ctx.Err() != nil {
		return r, fmt.Errorf("%s: %w", name, left(ctx))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return r, nil // the code tells
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w: %s", name, err, r.output)
	}
	return r, nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	_, _ = b.Builder.Write(p[:min(len(p), outputLimit-b.Len())])
	return len(p), nil
}
