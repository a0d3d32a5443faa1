package nvme

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// until calls check at once, then whenever the kernel reports an NVMe event, and
// at every tick: events are lost when their socket overflows, and the states of
// a controller and of a subsystem change without one.
func (i *Initiator) until(ctx context.Context, check func() (done bool, err error)) error {
	events, stop := listen()
	defer stop()
	ticker := time.NewTicker(i.tick)
	defer ticker.Stop()
	for {
		if done, err := check(); done || err != nil {
			return err
		}
		select {
		case <-events:
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrTimeout, context.Cause(ctx))
		}
	}
}

// listen rings on uevents of the kernel that concern NVMe. They are a bell, never
// a source of facts; without them the tick remains.
func listen() (ring <-chan struct{}, stop func()) {
	bell := make(chan struct{}, 1)
	socket, err := ueventSocket()
	if err != nil {
		return bell, func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		event := make([]byte, 8192)
		for {
			n, err := socket.Read(event)
			if err != nil {
				return
			}
			if bytes.Contains(event[:n], []byte("nvme")) {
				select {
				case bell <- struct{}{}:
				default:
				}
			}
		}
	}()
	return bell, func() {
		_ = socket.Close()
		<-ended
	}
}

// ueventSocket hears the kernel's own broadcast (group 1), not udev's.
func ueventSocket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "uevents"), nil // non-blocking: Close ends a Read
}
