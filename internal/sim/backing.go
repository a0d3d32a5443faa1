package sim

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// backing puts something behind a namespace that holds the data of a file.
type backing interface {
	// attach returns the path to give to the target, and what to do once the target has it open.
	attach(file string) (path string, done func() error, err error)
	// grow makes a path that attach returned as large as its file is by now.
	grow(path string) error
}

// plainFiles gives the target the file itself. Hosts see sectors as large as the blocks of the file system below,
// 4096 bytes as a rule, where a real RDS has 512.
type plainFiles struct{}

func (plainFiles) attach(file string) (string, func() error, error) {
	return file, func() error { return nil }, nil
}

func (plainFiles) grow(string) error { return nil }

// loops gives the target a loop device, whose sectors are 512 bytes as on a real RDS [R; that it has loop devices is I,
// from type=file taking a file-offset]. The kernel frees a device when its last user lets go of it, which is the target:
// nothing is left behind, even by a kill.
type loops struct{}

const loopControl = "/dev/loop-control"

// backings picks what this machine can do.
func backings() backing {
	f, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return plainFiles{}
	}
	_ = f.Close() // only opened to see whether it opens
	return loops{}
}

func (loops) attach(file string) (string, func() error, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return "", nil, err
	}
	defer f.Close() //nolint:errcheck // the loop device has it open
	for {
		device, err := freeLoop()
		if err != nil {
			return "", nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(f.Fd()), Size: 512, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			return device.Name(), device.Close, nil
		}
		_ = device.Close() // it is not ours
		if !errors.Is(err, unix.EBUSY) {
			return "", nil, fmt.Errorf("set up %s: %w", device.Name(), err)
		}
	}
}

// freeLoop opens a loop device that nobody has, a moment ago at least.
func freeLoop() (*os.File, error) {
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close() //nolint:errcheck // nothing was written
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free loop device: %w", err)
	}
	return os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
}

func (loops) grow(path string) error {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_CAPACITY, 0), device.Close())
}
