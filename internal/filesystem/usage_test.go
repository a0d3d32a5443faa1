package filesystem

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	_, other := h.disk("nvme1n1", 2)
	staging := h.mountedAt(f, dev, "ext4")
	want := Usage{Bytes: Amount{gib, gib / 2, gib / 4}, Inodes: Amount{100, 10, 90}}
	if u, err := f.Usage(t.Context(), dev, staging); err != nil || u != want {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := f.Usage(t.Context(), other, staging); !errors.Is(err, ErrWrongDevice) {
		t.Errorf("another device: %v", err)
	}
	if _, err := f.Usage(t.Context(), dev, h.path("nothing")); !errors.Is(err, ErrNotMounted) {
		t.Errorf("not mounted: %v", err)
	}
	h.onStatfs = func() error { return syscall.EIO }
	if _, err := f.Usage(t.Context(), dev, staging); !errors.Is(err, ErrUnreadable) || !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
	if h.statfses != 2 {
		t.Errorf("asked %d times", h.statfses)
	}
}

// However many ask, one question hangs in the kernel; each asker is answered by its deadline, and another volume's at once.
func TestUsageThatHangs_Rule5(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	staging := h.mountedAt(f, dev, "ext4")
	release := make(chan struct{})
	h.onStatfs = func() error { <-release; return nil }
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			if _, err := f.Usage(ctx, dev, staging); !errors.Is(err, ErrTimeout) {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if s, err := f.Examine(ctx, dev, staging); err != nil || len(s) != 1 || s[0].Ailment != NotAnswering {
		t.Errorf("%+v, %v", s, err)
	}
	h.mu.Lock()
	asked := h.statfses
	h.mu.Unlock()
	if asked != 1 {
		t.Errorf("%d questions in the kernel", asked)
	}
	close(release)
	if _, err := f.Usage(t.Context(), dev, staging); err != nil {
		t.Error(err)
	}
}

func TestExamine(t *testing.T) {
	for name, c := range map[string]struct {
		fstype  string
		prepare func(h *host, d *fakeDisk, staging string)
		want    []Ailment
	}{
		"healthy":            {"ext4", func(*host, *fakeDisk, string) {}, nil},
		"made read-only":     {"ext4", func(h *host, _ *fakeDisk, s string) { h.superFlags(s, "ro"); h.flags(s, "ro,relatime") }, nil},
		"turned read-only":   {"ext4", func(h *host, _ *fakeDisk, s string) { h.superFlags(s, "ro,errors=remount-ro") }, []Ailment{TurnedReadOnly}},
		"emergency":          {"ext4", func(h *host, _ *fakeDisk, s string) { h.superFlags(s, "rw,emergency_ro") }, []Ailment{TurnedReadOnly}},
		"errors noted":       {"ext4", func(_ *host, d *fakeDisk, _ string) { d.errors = noted{3, 1000} }, []Ailment{ErrorsRecorded}},
		"noted in this life": {"ext4", func(_ *host, d *fakeDisk, _ string) { d.errors = noted{3, 1001} }, []Ailment{ErrorsRecorded}},
		"and it stops then": {"ext4", func(h *host, d *fakeDisk, s string) {
			h.superFlags(s, "rw,errors=remount-ro")
			d.errors = noted{3, 1001}
		}, []Ailment{TurnedReadOnly, ErrorsRecorded}},
		"it stopped before": {"ext4", func(h *host, d *fakeDisk, s string) {
			h.superFlags(s, "rw,errors=remount-ro")
			d.errors = noted{3, 999}
		}, []Ailment{ErrorsRecorded}},
		"not noted by xfs":   {"xfs", func(_ *host, d *fakeDisk, _ string) { d.errors = noted{3, 1001} }, nil},
		"both":               {"ext4", func(h *host, d *fakeDisk, s string) { h.superFlags(s, "ro"); d.errors = noted{3, 1001} }, []Ailment{TurnedReadOnly, ErrorsRecorded}},
		"shut down":          {"xfs", func(h *host, _ *fakeDisk, s string) { h.superFlags(s, "rw,shutdown") }, []Ailment{ShutDown}},
		"device shrunk":      {"ext4", func(_ *host, d *fakeDisk, _ string) { d.fsBytes = gib + 4096 }, []Ailment{LargerThanDevice}},
		"not grown":          {"xfs", func(_ *host, d *fakeDisk, _ string) { d.fsBytes = gib / 2 }, []Ailment{SmallerThanDevice}},
		"a small tail is no": {"ext4", func(_ *host, d *fakeDisk, _ string) { d.fsBytes = gib - 100*mib }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h, f := newHost(t)
			d, dev := h.disk("nvme0n1", 1)
			staging := h.mountedAt(f, dev, c.fstype)
			c.prepare(h, d, staging)
			found, err := f.Examine(t.Context(), dev, staging)
			if err != nil {
				t.Fatal(err)
			}
			var got []Ailment
			for _, s := range found {
				got = append(got, s.Ailment)
				if s.Detail == "" {
					t.Errorf("%v says nothing", s.Ailment)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%+v, want %v", found, c.want)
			}
		})
	}
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	if _, err := f.Examine(t.Context(), dev, h.path("nothing")); !errors.Is(err, ErrNotMounted) {
		t.Errorf("not mounted: %v", err)
	}
}
