package filesystem

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// staged is a host with one volume staged.
func staged(t *testing.T, options ...string) (h *host, f *Filesystem, staging string, dev Device) {
	h, f = newHost(t)
	d, dev := h.disk("nvme0n1", 1)
	d.fstype, d.data[1024] = "ext4", 1
	staging = h.path("globalmount")
	if err := f.Stage(t.Context(), dev, staging, "ext4", options); err != nil {
		t.Fatal(err)
	}
	return h, f, staging, dev
}

// A repeated publish stacks no second mount (B2).
func TestRepeatedBindDoesNotStack_B2(t *testing.T) {
	for _, readonly := range []bool{false, true} {
		h, f, staging, _ := staged(t)
		target := h.path("pods", "uid", "mount")
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				if err := f.Bind(t.Context(), staging, target, readonly, []string{"noexec", "discard"}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		m, ok, err := f.Mounted(target)
		if err != nil || !ok || m.ReadOnly != readonly || !strings.Contains(strings.Join(m.Options, ","), "noexec") {
			t.Errorf("%+v %v %v", m, ok, err)
		}
		if h.at(target) != 1 {
			t.Errorf("%d mounts", h.at(target))
		}
		if s, _, _ := f.Mounted(staging); s.ReadOnly {
			t.Error("the staged mount became read-only")
		}
	}
}

// Its copy on the host stays writable whatever this process remounts.
func TestReadOnlyOverAWritableMountIsRefused(t *testing.T) {
	h, f, staging, _ := staged(t)
	target := h.path("mount")
	if err := f.Bind(t.Context(), staging, target, false, nil); err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{"ro", "noexec"} {
		err := f.Bind(t.Context(), staging, target, false, []string{option})
		if !errors.Is(err, ErrIncompatible) || !strings.Contains(err.Error(), option) {
			t.Fatalf("%v", err)
		}
	}
	if m, _, _ := f.Mounted(target); m.ReadOnly || h.at(target) != 1 {
		t.Fatalf("touched: %+v, %d mounts", m, h.at(target))
	}
}

func TestWritableOverAReadOnlyMountIsRefused(t *testing.T) {
	h, f, staging, _ := staged(t)
	target := h.path("mount")
	if err := f.Bind(t.Context(), staging, target, true, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Bind(t.Context(), staging, target, false, nil); !errors.Is(err, ErrIncompatible) {
		t.Fatalf("%v", err)
	}
}

func TestBindKeepsTheFlagsOfTheStagedMount(t *testing.T) {
	h, f, staging, _ := staged(t)
	h.flags(staging, "rw,nosuid,noatime")
	target := h.path("mount")
	if err := f.Bind(t.Context(), staging, target, true, []string{"nosuid"}); err != nil {
		t.Fatal(err)
	}
	if m, _, _ := f.Mounted(target); strings.Join(m.Options, ",") != "ro,nosuid,noatime" {
		t.Fatalf("%q", m.Options)
	}
}

// What the staged mount has needs no mount_setattr, which kernels before 5.12 lack;
// strictatime is the mode that the mount table does not name.
func TestOnlyFlagsThatAreMissingAreSet(t *testing.T) {
	for _, tt := range []struct {
		staged string
		want   []string
		set    []string
	}{
		{"rw,relatime", []string{"relatime", "exec"}, nil},
		{"rw,noexec,noatime", []string{"noexec", "noatime"}, nil},
		{"ro,relatime", []string{"ro"}, nil},
		{"rw", []string{"strictatime"}, nil},
		{"rw,relatime", []string{"strictatime"}, []string{"strictatime"}},
		{"rw,nodev,relatime", []string{"ro", "nodev", "nosuid"}, []string{"ro", "nosuid"}},
	} {
		h, f, staging, _ := staged(t)
		h.flags(staging, tt.staged)
		var set []string
		f.system.bind = func(_ context.Context, _, _ string, add int) error {
			set = attributeNames(add)
			return syscall.ENOSYS
		}
		if err := f.Bind(t.Context(), staging, h.path("mount"), false, tt.want); !errors.Is(err, syscall.ENOSYS) {
			t.Errorf("%v", err)
		}
		if !slices.Equal(set, tt.set) {
			t.Errorf("%s with %q: set %q, want %q", tt.staged, tt.want, set, tt.set)
		}
	}
}

func TestBindOfAReadOnlyVolumeIsReadOnly(t *testing.T) {
	h, f, staging, _ := staged(t, "ro")
	target := h.path("mount")
	for range 2 {
		if err := f.Bind(t.Context(), staging, target, false, []string{"ro"}); err != nil {
			t.Fatal(err)
		}
	}
	if m, _, _ := f.Mounted(target); !m.ReadOnly {
		t.Fatalf("%+v", m)
	}
}

// Without this check the bind would show a directory of the node's own disk.
func TestBindOfWhatIsNotStagedIsRefused(t *testing.T) {
	h, f := newHost(t)
	if err := f.Bind(t.Context(), h.path("globalmount"), h.path("mount"), false, nil); !errors.Is(err, ErrNotMounted) {
		t.Fatalf("%v", err)
	}
	if _, err := os.Lstat(h.path("mount")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("a mount point was made")
	}
}

func TestBindOverAnotherVolumeIsRefusedAndLeftAlone_B9(t *testing.T) {
	h, f, staging, _ := staged(t)
	target := h.path("mount")
	h.push(tableEntry{major: 259, minor: 8, root: "/", target: target, fstype: "ext4", options: "rw", superOptions: "rw"})
	if err := f.Bind(t.Context(), staging, target, false, nil); !errors.Is(err, ErrWrongDevice) {
		t.Fatalf("%v", err)
	}
	if h.at(target) != 1 {
		t.Fatalf("%d mounts", h.at(target))
	}
}

// A bind that is not what was asked for must not stay.
func TestBindThatFailsIsUndone(t *testing.T) {
	h, f, staging, _ := staged(t)
	target := h.path("mount")
	f.system.bind = func(ctx context.Context, from, to string, _ int) error { return h.bind(ctx, from, to, 0) } // forgets the flags
	if err := f.Bind(t.Context(), staging, target, true, nil); !errors.Is(err, ErrIncompatible) || h.at(target) != 0 {
		t.Fatalf("believed without a look: %v, %d mounts", err, h.at(target))
	}
	f.system.bind = func(ctx context.Context, from, to string, add int) error {
		return errors.Join(h.bind(ctx, from, to, add), os.Remove(h.path("mountinfo")))
	}
	f.system.unmount = func(target string) error { h.write(); return h.unmount(target) }
	if err := f.Bind(t.Context(), staging, target, true, nil); !errors.Is(err, os.ErrNotExist) || h.at(target) != 0 {
		t.Fatalf("left behind unproven: %v, %d mounts", err, h.at(target))
	}
}

// A container without mountPropagation: Bidirectional: the mounts would be its own,
// and pods would write to the node's disk.
func TestMountsThatTheHostWouldNotSeeAreRefused(t *testing.T) {
	h, f, staging, dev := staged(t)
	_, blank := h.disk("nvme1n1", 2)
	h.push(tableEntry{major: 254, minor: 1, root: "/kubelet", target: h.path("kubelet"), fstype: "ext4", options: "rw", superOptions: "rw", private: true})
	target := h.path("kubelet", "pods", "mount")
	mounts := h.mounts
	for what, err := range map[string]error{
		"bind":             f.Bind(t.Context(), staging, target, false, nil),
		"stage":            f.Stage(t.Context(), dev, target, "ext4", nil),
		"stage of a blank": f.Stage(t.Context(), blank, target, "ext4", nil),
	} {
		if !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), "Bidirectional") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if h.at(target) != 0 || h.mounts != mounts || h.formats() != 0 {
		t.Errorf("%d mounts, %q", h.at(target), h.runs)
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a mount point was made: %v", err)
	}
	// A shared mount on the private one, nearer to the target, is what counts.
	h.push(tableEntry{major: 254, minor: 1, root: "/pods", target: h.path("kubelet", "pods"), fstype: "ext4", options: "rw", superOptions: "rw"})
	if err := f.Bind(t.Context(), staging, target, false, nil); err != nil {
		t.Errorf("%v", err)
	}
	f.system.mountID = func(string) (int, error) { return 4711, nil } // not in the table
	if err := f.Bind(t.Context(), staging, h.path("other"), false, nil); !errors.Is(err, ErrTarget) {
		t.Errorf("%v", err)
	}
}

// Unpublish of a stack takes all of it down and removes no file (B2).
func TestUnmountUntilNothingIsLeft_B2(t *testing.T) {
	h, f, staging, _ := staged(t)
	target := h.path("pods", "mount")
	if err := os.Mkdir(target, 0o750); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := h.bind(t.Context(), staging, target, 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := f.Unmount(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(target); h.at(target) != 0 || !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%d mounts, %v", h.at(target), err)
		}
	}
	if h.at(staging) != 1 {
		t.Fatal("the staged mount is gone")
	}
}

func TestUnmountRemovesOnlyWhatIsEmpty_B2(t *testing.T) {
	h, f := newHost(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(h.path("full", "db"), 0o755))
	must(os.WriteFile(h.path("full", "db", "data"), []byte("precious"), 0o600))
	must(os.WriteFile(h.path("file"), []byte("precious"), 0o600))
	must(os.WriteFile(h.path("empty-file"), nil, 0o600))
	must(os.Mkdir(h.path("empty-dir"), 0o755))
	must(os.Symlink(h.path("full"), h.path("link")))
	for name, stays := range map[string]bool{"full": true, "file": true, "link": true, "empty-file": false, "empty-dir": false, "absent": false} {
		must(f.Unmount(t.Context(), h.path(name)))
		if _, err := os.Lstat(h.path(name)); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(h.path("full", "db", "data")); err != nil || string(b) != "precious" {
		t.Errorf("%q %v", b, err)
	}
	must(f.Unmount(t.Context(), h.dir+"/no/such/parent"))
}

func TestUnmountOfABusyMount(t *testing.T) {
	h, f, staging, _ := staged(t)
	h.onUnmount = func(target string) error { return &os.PathError{Op: "unmount", Path: target, Err: syscall.EBUSY} }
	if err := f.Unmount(t.Context(), staging); !errors.Is(err, ErrBusy) || h.at(staging) != 1 {
		t.Fatalf("%v", err)
	}
	h.onUnmount = func(string) error { return syscall.EINVAL } // the table disagrees for ever
	if err := f.Unmount(t.Context(), staging); !errors.Is(err, ErrBusy) {
		t.Fatalf("%v", err)
	}
	h.onUnmount = func(string) error { return syscall.EPERM }
	if err := f.Unmount(t.Context(), staging); !errors.Is(err, ErrMount) {
		t.Fatalf("%v", err)
	}
}

// Unmounting what cannot be written any more hangs in the kernel (rule 22).
func TestHungUnmountIsBoundedAndSingle(t *testing.T) {
	h, f, staging, _ := staged(t)
	hang, begun := make(chan struct{}), make(chan struct{}, 8)
	ctx, leave := context.WithCancel(t.Context())
	h.onUnmount = func(string) error {
		begun <- struct{}{}
		leave()
		<-hang
		return nil
	}
	for range 3 {
		if err := f.Unmount(ctx, staging); !errors.Is(err, ErrTimeout) || !errors.Is(err, context.Canceled) {
			t.Fatalf("%v", err)
		}
	}
	if len(begun) != 1 {
		t.Fatalf("%d unmounts in the kernel at once", len(begun))
	}
	close(hang)
	if err := f.Unmount(t.Context(), staging); err != nil || h.at(staging) != 0 {
		t.Fatalf("%v, %d mounts", err, h.at(staging))
	}
}

func TestMountedFindsTheTopmost(t *testing.T) {
	h, f := newHost(t)
	// The upper one is listed first: the order of the table promises nothing.
	target := h.path("a place", "globalmount")
	h.table = []tableEntry{
		{id: 11, parent: 10, major: 259, minor: 2, root: "/", target: target, fstype: "xfs", options: "ro", superOptions: "rw"},
		{id: 10, parent: 1, major: 259, minor: 1, root: "/", target: target, fstype: "ext4", options: "rw", superOptions: "rw"},
	}
	h.write()
	if err := os.Symlink(h.path("a place"), h.path("link")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, path := range []string{target, h.path("link") + "/globalmount"} { // /var/lib/kubelet may be a link
			m, ok, err := f.Mounted(path)
			if err != nil || !ok || m.Minor != 2 || m.FSType != "xfs" || !m.ReadOnly {
				t.Errorf("%s: %+v %v %v", path, m, ok, err)
			}
		}
		slices.Reverse(h.table)
		h.write()
	}
	if _, ok, err := f.Mounted(h.path("a place")); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	if _, ok, err := f.Mounted(h.dir + "/none/m"); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	if err := os.Remove(h.path("mountinfo")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Mounted(target); err == nil {
		t.Error("an unreadable mount table reads as not mounted (B7)")
	}
}
