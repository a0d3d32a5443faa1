package filesystem

import (
	"context"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
	"time"
)

func (h *host) mountedAt(f *Filesystem, dev Device, fstype string) (staging string) {
	h.t.Helper()
	staging = h.path("globalmount")
	if err := f.Stage(h.t.Context(), dev, staging, fstype, nil); err != nil {
		h.t.Fatal(err)
	}
	return staging
}

func TestGrow(t *testing.T) {
	h, f := newHost(t)
	disk, dev := h.disk("nvme0n1", 1)
	staging := h.mountedAt(f, dev, "xfs")
	if h.grows != 0 {
		t.Error("a new file system was grown")
	}
	disk.fsBytes, disk.size, dev.SizeBytes = gib, 2*gib, 2*gib
	for range 3 {
		if err := f.Grow(t.Context(), dev, staging); err != nil || disk.fsBytes != 2*gib {
			t.Fatalf("%d, %v", disk.fsBytes, err)
		}
	}
	if h.grows != 1 || len(h.ran()) > 3 {
		t.Errorf("%d times, tools %q", h.grows, h.ran())
	}
}

// What did not grow is no success; a tail that is too small for a group is none of it.
func TestGrowIsProved(t *testing.T) {
	for name, c := range map[string]struct {
		fstype string
		grow   func(d *fakeDisk) error
		want   error
	}{
		"the kernel refuses":     {"ext4", func(*fakeDisk) error { return syscall.EPERM }, ErrGrow},
		"silently nothing":       {"ext4", func(*fakeDisk) error { return nil }, ErrGrow},
		"half":                   {"xfs", func(d *fakeDisk) error { d.fsBytes = gib + gib/2; return nil }, ErrGrow},
		"but for a small group":  {"ext4", func(d *fakeDisk) error { d.fsBytes = 2*gib - 100*mib; return nil }, nil},
		"but for a large group":  {"xfs", func(d *fakeDisk) error { d.fsBytes = 2*gib - 100*mib; return nil }, ErrGrow},
		"but for a small ag":     {"xfs", func(d *fakeDisk) error { d.fsBytes = 2*gib - 200*kib; return nil }, nil},
		"unreadable when it did": {"ext4", func(d *fakeDisk) error { d.minor = 99; return nil }, ErrUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			h, f := newHost(t)
			disk, dev := h.disk("nvme0n1", 1)
			staging := h.mountedAt(f, dev, c.fstype)
			disk.fsBytes, disk.size, dev.SizeBytes, h.onGrow = gib, 2*gib, 2*gib, c.grow
			if err := f.Grow(t.Context(), dev, staging); !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestGrowWhatIsNotTheVolumes(t *testing.T) {
	h, f := newHost(t)
	disk, dev := h.disk("nvme0n1", 1)
	_, other := h.disk("nvme1n1", 2)
	staging := h.mountedAt(f, dev, "ext4")
	disk.fsBytes, disk.size = gib, 2*gib
	if err := f.Grow(t.Context(), other, staging); !errors.Is(err, ErrWrongDevice) {
		t.Errorf("another device: %v", err)
	}
	if err := f.Grow(t.Context(), dev, h.path("nothing")); !errors.Is(err, ErrNotMounted) {
		t.Errorf("not mounted: %v", err)
	}
	h.flags(staging, "ro,relatime")
	if err := f.Grow(t.Context(), dev, staging); !errors.Is(err, ErrReadOnly) {
		t.Errorf("read-only: %v", err)
	}
	if h.grows != 0 {
		t.Error("grown")
	}
}

// A restore into a larger volume, or growth while nobody had it.
func TestStageGrowsWhatIsSmallerThanItsDevice(t *testing.T) {
	h, f := newHost(t)
	disk, dev := h.disk("nvme0n1", 1)
	disk.fstype, disk.data[1024], disk.fsBytes = "ext4", 1, gib/2
	staging := h.mountedAt(f, dev, "ext4")
	if disk.fsBytes != gib || h.grows != 1 {
		t.Errorf("%d bytes, grown %d times", disk.fsBytes, h.grows)
	}
	disk.fsBytes = gib / 2
	if err := f.Stage(t.Context(), dev, staging, "ext4", nil); err != nil || h.grows != 1 { // B1: under live pods
		t.Errorf("a repetition: %v, grown %d times", err, h.grows)
	}
	if err := f.Unmount(t.Context(), staging); err != nil {
		t.Fatal(err)
	}
	h.onGrow = func(*fakeDisk) error { return syscall.EPERM } // errors recorded: the data is there all the same
	if err := f.Stage(t.Context(), dev, staging, "ext4", nil); err != nil || h.grows != 2 {
		t.Errorf("%v, grown %d times", err, h.grows)
	}
	if err := f.Unmount(t.Context(), staging); err != nil {
		t.Fatal(err)
	}
	dev.ReadOnly = true
	if err := f.Stage(t.Context(), dev, staging, "ext4", nil); err != nil || h.grows != 2 {
		t.Errorf("read-only: %v, grown %d times", err, h.grows)
	}
}

// The kernel's work outlives its caller; the next one waits for it and finds it done.
func TestGrowOncePerDevice(t *testing.T) {
	h, f := newHost(t)
	disk, dev := h.disk("nvme0n1", 1)
	staging := h.mountedAt(f, dev, "ext4")
	disk.fsBytes, disk.size, dev.SizeBytes = gib, 2*gib, 2*gib
	release := make(chan struct{})
	h.onGrow = func(d *fakeDisk) error {
		<-release
		d.fsBytes = 2 * gib
		return nil
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := f.Grow(ctx, dev, staging); !errors.Is(err, ErrTimeout) {
			t.Errorf("%v", err)
		}
		cancel()
	}
	close(release)
	if err := f.Grow(t.Context(), dev, staging); err != nil || h.grows != 1 {
		t.Errorf("%v, %d times", err, h.grows)
	}
}

func TestExt4Geometry(t *testing.T) {
	super := make([]byte, 1024)
	if _, err := ext4Geometry(super); !errors.Is(err, ErrForeignSignature) {
		t.Errorf("zeros: %v", err)
	}
	binary.LittleEndian.PutUint16(super[0x38:], 0xef53)
	binary.LittleEndian.PutUint32(super[0x04:], 7)
	binary.LittleEndian.PutUint32(super[0x18:], 2)
	binary.LittleEndian.PutUint32(super[0x150:], 3)
	if g, err := ext4Geometry(super); err != nil || g.bytes() != 7*4096 {
		t.Errorf("%+v %v", g, err)
	}
	binary.LittleEndian.PutUint32(super[0x60:], 0x80)
	if g, err := ext4Geometry(super); err != nil || g.blocks != 3<<32|7 {
		t.Errorf("%+v %v", g, err)
	}
	binary.LittleEndian.PutUint32(super[0x18:], 200)
	if _, err := ext4Geometry(super); err == nil {
		t.Error("nonsense is taken")
	}
}
