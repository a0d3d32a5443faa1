package filesystem

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const rawVolume = "nqn.2000-02.com.mikrotik:pvc-1"

func (h *host) staged(f *Filesystem, dev Device) (staging string) {
	h.t.Helper()
	staging = h.path("volumeDevices", "staging", "pvc-1")
	if err := f.StageBlock(h.t.Context(), rawVolume, dev, staging); err != nil {
		h.t.Fatal(err)
	}
	return staging
}

func TestRawVolumeIsShownAndNothingElse(t *testing.T) {
	h, f := newHost(t)
	disk, dev := h.disk("nvme0n1", 3)
	staging, target := h.staged(f, dev), h.path("volumeDevices", "publish", "pod")
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			err := errors.Join(f.StageBlock(t.Context(), rawVolume, dev, staging), f.PublishBlock(t.Context(), rawVolume, dev, staging, target, false))
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if h.at(staging) != 1 || h.at(target) != 1 || len(h.runs) != 0 || h.opens != 0 || len(disk.reads) != 0 {
		t.Errorf("%d and %d mounts, tools %q, %d opens", h.at(staging), h.at(target), h.runs, h.opens)
	}
	for _, place := range []string{staging, target} {
		m, ok, err := f.Mounted(place)
		if err != nil || !ok || m.Volume != rawVolume || m.Major != 259 || m.Minor != 3 {
			t.Errorf("%s: %+v %v %v", place, m, ok, err)
		}
	}
	if places, err := f.BlockPlaces(rawVolume); err != nil || !slices.Equal(places, []string{staging, target}) {
		t.Errorf("%v %v", places, err)
	}
	if places, err := f.BlockPlaces(rawVolume + "0"); err != nil || len(places) != 0 {
		t.Errorf("%v %v", places, err)
	}
	for range 2 {
		for _, place := range []string{target, staging} {
			if err := f.Unmount(t.Context(), place); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(place); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", place, err)
			}
		}
	}
}

func TestRawVolumeElsewhereIsRefused(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 3)
	_, other := h.disk("nvme1n1", 4)
	staging, target := h.staged(f, dev), h.path("pod")
	if err := f.StageBlock(t.Context(), rawVolume, other, staging); !errors.Is(err, ErrWrongDevice) {
		t.Errorf("another number: %v", err)
	}
	if err := f.StageBlock(t.Context(), rawVolume+"0", dev, staging); !errors.Is(err, ErrWrongDevice) {
		t.Errorf("another volume: %v", err)
	}
	if err := f.PublishBlock(t.Context(), rawVolume, other, staging, target, false); !errors.Is(err, ErrWrongDevice) {
		t.Errorf("published as another number: %v", err)
	}
	if err := f.PublishBlock(t.Context(), rawVolume, dev, h.path("nothing"), target, false); !errors.Is(err, ErrNotMounted) {
		t.Errorf("not staged: %v", err)
	}
	stale := dev
	stale.Path = other.Path
	if err := f.StageBlock(t.Context(), rawVolume, stale, h.path("stale")); !errors.Is(err, ErrWrongDevice) {
		t.Errorf("a stale path: %v", err)
	}
	h.push(tableEntry{major: 259, minor: 3, root: "/", target: h.path("fs"), fstype: "ext4", options: "rw", superOptions: "rw"})
	if err := f.StageBlock(t.Context(), rawVolume, dev, h.path("fs")); !errors.Is(err, ErrWrongDevice) {
		t.Errorf("over a file system: %v", err)
	}
	if h.at(target)+h.at(h.path("stale")) != 0 {
		t.Error("something was mounted")
	}
}

// The place of a device file: an empty file may be there from a publish that was cut off, and nothing else.
func TestRawTargetMustBeFree(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 3)
	staging := h.staged(f, dev)
	for name, make := range map[string]func(string) error{
		"directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"data":      func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
		"link":      func(p string) error { return os.Symlink("/etc/passwd", p) },
	} {
		target := h.path(name)
		if err := make(target); err != nil {
			t.Fatal(err)
		}
		if err := f.PublishBlock(t.Context(), rawVolume, dev, staging, target, false); !errors.Is(err, ErrTarget) {
			t.Errorf("%s: %v", name, err)
		}
	}
	target := h.path("cut-off")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.PublishBlock(t.Context(), rawVolume, dev, staging, target, false); err != nil {
		t.Error(err)
	}
	h.onBind = func() error { return syscall.EPERM }
	if err := f.PublishBlock(t.Context(), rawVolume, dev, staging, h.path("refused"), false); !errors.Is(err, syscall.EPERM) {
		t.Error(err)
	}
}

func TestRawReadOnlyIsTheDevices(t *testing.T) {
	h, f := newHost(t)
	disk, dev := h.disk("nvme0n1", 3)
	staging := h.staged(f, dev)
	publish := func(name string, readonly bool) error {
		return f.PublishBlock(t.Context(), rawVolume, dev, staging, h.path(name), readonly)
	}
	for _, step := range []struct {
		name     string
		readonly bool
		want     error
	}{
		{"writer", false, nil},
		{"writer", true, ErrIncompatible},
		{"reader", true, ErrShared},
	} {
		if err := publish(step.name, step.readonly); !errors.Is(err, step.want) {
			t.Errorf("%+v: %v", step, err)
		}
	}
	if disk.readonly {
		t.Fatal("the pod that writes was cut off")
	}
	if err := errors.Join(f.Unmount(t.Context(), h.path("writer")), publish("reader", true), publish("reader", true)); err != nil || !disk.readonly {
		t.Fatalf("%v, read-only: %v", err, disk.readonly)
	}
	if err := publish("writer", false); !errors.Is(err, ErrShared) || !strings.Contains(err.Error(), "reader") {
		t.Errorf("%v", err)
	}
	if err := errors.Join(f.Unmount(t.Context(), h.path("reader")), publish("writer", false)); err != nil || disk.readonly {
		t.Errorf("%v, read-only: %v", err, disk.readonly)
	}
	if err := f.Unmount(t.Context(), h.path("writer")); err != nil {
		t.Fatal(err)
	}
	disk.protected = true // by the RDS: what the kernel keeps is what counts
	if err := publish("writer", false); !errors.Is(err, ErrShared) {
		t.Errorf("%v", err)
	}
}

// Only what this package made is a raw volume.
func TestOtherTmpfsIsNoRawVolume(t *testing.T) {
	for _, source := range []string{"tmpfs", "rds-csi-block:", "rds-csi-block:259:x:nqn", "rds-csi-block:259:3", "rds-csi-blocks:259:3:nqn"} {
		m := Mount{FSType: "tmpfs", Minor: 55}
		m.asBlock(source)
		if m.Volume != "" || m.Minor != 55 {
			t.Errorf("%s: %+v", source, m)
		}
	}
	m := Mount{FSType: "ext4", Minor: 55}
	m.asBlock(blockSource(rawVolume, Device{Major: 259, Minor: 3}))
	if m.Volume != "" {
		t.Errorf("%+v", m)
	}
}

// Read-only at the node: no format, no replay, and the device itself refuses.
func TestReadOnlyStage(t *testing.T) {
	h, f := newHost(t)
	disk, dev := h.disk("nvme0n1", 1)
	dev.ReadOnly = true
	staging := h.path("globalmount")
	if err := f.Stage(t.Context(), dev, staging, "ext4", nil); !errors.Is(err, ErrReadOnly) || h.formats() != 0 {
		t.Fatalf("blank: %v, %q", err, h.runs)
	}
	disk.fstype, disk.data[1024] = "ext4", 1
	h.onMount = func(int, mountCall) error { return errors.Join(ErrMount, syscall.EROFS) }
	err := f.Stage(t.Context(), dev, staging, "ext4", nil)
	if !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), "ReadWriteOnce") || slices.Contains(h.ran(), "e2fsck") {
		t.Fatalf("unclean: %v, %q", err, h.ran())
	}
	h.onMount = func(_ int, m mountCall) error {
		if !disk.readonly || !slices.Contains(m.options.filesystem, "ro") {
			t.Errorf("mounted with %v, device read-only: %v", m.options.filesystem, disk.readonly)
		}
		return nil
	}
	for range 2 {
		if err := f.Stage(t.Context(), dev, staging, "ext4", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Unmount(t.Context(), staging); err != nil {
		t.Fatal(err)
	}
	h.onMount, dev.ReadOnly = nil, false
	if err := f.Stage(t.Context(), dev, staging, "ext4", nil); err != nil || disk.readonly {
		t.Fatalf("%v, read-only: %v", err, disk.readonly)
	}
	dev.ReadOnly = true
	if err := f.Stage(t.Context(), dev, staging, "ext4", nil); !errors.Is(err, ErrIncompatible) || disk.readonly {
		t.Errorf("%v, read-only: %v", err, disk.readonly)
	}
}
