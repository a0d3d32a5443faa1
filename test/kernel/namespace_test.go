//go:build kernel

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/nvme"
)

// The target came back with another namespace UUID: the kernel refuses the old
// device, and the new one must be found, never the dead one.
func TestIdentifiersChangeOnReconnect(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	ns := connect(t, i, e)
	e.down()
	e.enable(false)
	const uuid = "8f6f2d7e-6f0f-4a1c-9a53-0123456789ab"
	e.set(e.namespace()+"/device_uuid", uuid)
	e.enable(true)
	e.up()
	eventually(t, "reconnected", func() bool { _, err := i.Find(e.nqn); return !errors.Is(err, nvme.ErrNotLive) })
	// The scan that notices follows the reconnect.
	eventually(t, "noticed by the kernel", func() bool {
		got, err := i.Find(e.nqn)
		return errors.Is(err, nvme.ErrNoNamespace) || err == nil && got.UUID == uuid
	})
	got := connect(t, i, e)
	if got.UUID != uuid {
		t.Errorf("%+v, before %+v", got, ns)
	}
	must(t, os.WriteFile(got.DevicePath, make([]byte, 4096), 0))
}

// Rule 9: the target's notice of a namespace gets lost; only a rescan shows it.
func TestNamespaceThatNeedsARescan(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	c := connectRaw(t, e, ourHost(t), "")
	// The kernel's first scan runs in the background, and so does the one after a notice: each is over when what it found is
	// to be seen.
	eventually(t, "the namespace is there", func() bool { _, err := i.Find(e.nqn); return err == nil })
	e.enable(false)
	eventually(t, "the namespace is gone", func() bool { _, err := i.Find(e.nqn); return errors.Is(err, nvme.ErrNoNamespace) })
	muteEvents(t, "/dev/"+filepath.Base(c))
	e.enable(true)
	if _, err := i.Find(e.nqn); !errors.Is(err, nvme.ErrNoNamespace) {
		t.Fatalf("there without a rescan: %v", err)
	}
	if ns := connect(t, i, e); ns.SizeBytes != 32*mib {
		t.Errorf("%+v", ns)
	}
	must(t, i.Disconnect(soon(t), e.nqn))
}

func TestNamespaceThatNeverComes(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	e.enable(false)
	if _, err := i.Connect(soon(t), e.target(), nvme.Options{}); !errors.Is(err, nvme.ErrNoNamespace) {
		t.Errorf("%v", err)
	}
	must(t, i.Disconnect(soon(t), e.nqn))
}

// muteEvents tells the target to send no asynchronous events: Set Features,
// Asynchronous Event Configuration, zero.
func muteEvents(t *testing.T, device string) {
	t.Helper()
	const setFeatures, asyncEvents = 0x09, 0x0b
	const adminCommand = 0xc0484e41 // NVME_IOCTL_ADMIN_CMD: _IOWR('N', 0x41, 72 bytes)
	cmd := struct {
		opcode, flags            uint8
		_                        uint16
		nsid, cdw2, cdw3         uint32
		metadata, addr           uint64
		metadataLength, length   uint32
		cdw10, cdw11             uint32
		cdw12, cdw13             uint32
		cdw14, cdw15             uint32
		timeoutMillis, completed uint32
	}{opcode: setFeatures, cdw10: asyncEvents}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	must(t, err)
	defer func() { _ = f.Close() }()
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), adminCommand, uintptr(unsafe.Pointer(&cmd)))
	if errno != 0 || status != 0 {
		t.Fatalf("set features: status %#x, %v", status, errno)
	}
}

func TestGrowthIsSeenWithoutReconnecting(t *testing.T) {
	i, e := newInitiator(t), newExport(t, "disk-1", 32*mib)
	connect(t, i, e)
	e.resize(64 * mib)
	eventually(t, "the new size", func() bool { ns, err := i.Find(e.nqn); return err == nil && ns.SizeBytes == 64*mib })
	must(t, i.Disconnect(soon(t), e.nqn))
}
