package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestStageFormatsABlankDeviceOnceAndMountsIt(t *testing.T) {
	for _, fstype := range []string{"", "ext4", "xfs"} {
		t.Run("fstype "+fstype, func(t *testing.T) {
			h, f := newHost(t)
			_, dev := h.disk("nvme0n1", 1)
			target := h.path("plugins", "globalmount")
			for range 2 {
				if err := f.Stage(t.Context(), dev, target, fstype, nil); err != nil {
					t.Fatal(err)
				}
				m, ok, err := f.Mounted(target)
				if err != nil || !ok || m.Minor != 1 || m.Major != 259 || m.ReadOnly {
					t.Fatalf("%+v %v %v", m, ok, err)
				}
				if err := f.Unmount(t.Context(), target); err != nil {
					t.Fatal(err)
				}
			}
			if h.formats() != 1 {
				t.Fatalf("%q", h.runs)
			}
		})
	}
}

// kubelet repeats NodeStage under running pods: nothing is opened, probed,
// checked, formatted or mounted again (B1).
func TestRepeatedStageChangesNothing_B1(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	target := h.path("globalmount")
	if err := f.Stage(t.Context(), dev, target, "ext4", nil); err != nil {
		t.Fatal(err)
	}
	runs, opens := len(h.runs), h.opens
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if err := f.Stage(t.Context(), dev, target, "ext4", []string{"discard"}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(h.runs) != runs || h.opens != opens || h.at(target) != 1 {
		t.Fatalf("tools %q, %d opens, %d mounts", h.runs[runs:], h.opens-opens, h.at(target))
	}
}

func TestConcurrentStagesFormatAndMountOnce_B1(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	target := h.path("globalmount")
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if err := f.Stage(t.Context(), dev, target, "xfs", nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if h.formats() != 1 || h.at(target) != 1 {
		t.Fatalf("%q, %d mounts", h.runs, h.at(target))
	}
}

func TestStageOverAnotherMountIsRefused(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	for name, tt := range map[string]struct {
		there tableEntry
		want  error
	}{
		"another device":     {tableEntry{major: 259, minor: 7, root: "/", fstype: "ext4"}, ErrWrongDevice},
		"a part of it":       {tableEntry{major: 259, minor: 1, root: "/sub", fstype: "ext4"}, ErrWrongDevice},
		"another filesystem": {tableEntry{major: 259, minor: 1, root: "/", fstype: "xfs"}, ErrForeignSignature},
	} {
		t.Run(name, func(t *testing.T) {
			tt.there.target, tt.there.options, tt.there.superOptions = h.path(name, "globalmount"), "rw", "rw"
			h.push(tt.there)
			if err := f.Stage(t.Context(), dev, tt.there.target, "ext4", nil); !errors.Is(err, tt.want) {
				t.Fatalf("%v", err)
			}
			if len(h.runs) != 0 || h.mounts != 0 {
				t.Fatalf("%q, %d mounts", h.runs, h.mounts)
			}
		})
	}
}

func TestStageOfWhatIsNotBlankFormatsNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(d *fakeDisk)
		want    error
		text    string
	}{
		"btrfs":           {func(d *fakeDisk) { d.fstype = "btrfs" }, ErrForeignSignature, "holds btrfs, wanted ext4"},
		"xfs":             {func(d *fakeDisk) { d.fstype = "xfs" }, ErrForeignSignature, "holds xfs, wanted ext4"},
		"LUKS":            {says("TYPE=crypto_LUKS\nUSAGE=crypto"), ErrForeignSignature, "crypto_LUKS"},
		"LVM":             {says("TYPE=LVM2_member\nUSAGE=raid"), ErrForeignSignature, "LVM2_member"},
		"swap":            {says("TYPE=swap\nUSAGE=other"), ErrForeignSignature, "swap"},
		"GPT":             {says("PTTYPE=gpt\nPTUUID=1"), ErrForeignSignature, "gpt partition table"},
		"MBR under ext4":  {says("TYPE=ext4\nUSAGE=filesystem\nPTTYPE=dos"), ErrForeignSignature, "dos partition table"},
		"several":         {func(d *fakeDisk) { d.blkid = &result{code: 8} }, ErrForeignSignature, "several signatures"},
		"something new":   {says("SOMETHING=new"), ErrForeignSignature, "SOMETHING"},
		"empty answer":    {says(""), ErrForeignSignature, ""},
		"blkid fails":     {func(d *fakeDisk) { d.blkid = &result{code: 4, output: "usage"} }, ErrUnreadable, "usage"},
		"random data":     {func(d *fakeDisk) { d.data[12345] = 7 }, ErrNotBlank, "data at offset 12345"},
		"being formatted": {func(d *fakeDisk) { d.data[12345] = 7; d.claimed = true }, ErrBusy, "formatting"},
		"blank but held":  {func(d *fakeDisk) { d.claimed = true }, ErrBusy, "formatting"},
		"size is wrong":   {func(d *fakeDisk) { d.size = 2 * gib }, ErrWrongDevice, "2147483648 bytes"},
		"number is wrong": {func(d *fakeDisk) { d.minor = 9 }, ErrWrongDevice, "259:9"},
		"no size":         {func(d *fakeDisk) { d.size = 0 }, ErrWrongDevice, ""},
		"device is gone":  {func(d *fakeDisk) { delete(d.h.disks, "/dev/nvme0n1") }, ErrUnreadable, "no such device"},
	} {
		t.Run(name, func(t *testing.T) {
			h, f := newHost(t)
			d, dev := h.disk("nvme0n1", 1)
			tt.prepare(d)
			err := f.Stage(t.Context(), dev, h.path("globalmount"), "ext4", nil)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), "/dev/nvme0n1") {
				t.Errorf("%v", err)
			}
			if h.formats() != 0 || h.mounts != 0 {
				t.Errorf("%q, %d mounts", h.runs, h.mounts)
			}
			if _, err := os.Lstat(h.path("globalmount")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a directory was left: %v", err)
			}
		})
	}
}

func says(output string) func(*fakeDisk) {
	return func(d *fakeDisk) { d.blkid = &result{output: output} }
}

// blkid answers 2 for a device that it cannot read, and mount-utils formats it
// (kubernetes/kubernetes#142243). Whichever sample cannot be read: no mkfs.
func TestUnreadableDeviceIsNeverFormatted_Rule17(t *testing.T) {
	for _, size := range []int64{mib, 10 * mib, gib} {
		for n, s := range samples(size) {
			h, f := newHost(t)
			d, dev := h.disk("nvme0n1", 1)
			d.size, dev.SizeBytes, d.badAt = size, size, s.offset+s.length/2
			if err := f.Stage(t.Context(), dev, h.path("globalmount"), "ext4", nil); !errors.Is(err, ErrUnreadable) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("sample %d at %d of %d: %v", n, s.offset, size, err)
			}
			if h.formats() != 0 {
				t.Fatalf("sample %d at %d of %d: formatted", n, s.offset, size)
			}
		}
	}
}

// A wiped head does not make a device blank: the copies of the superblock are there.
func TestBackupSuperblocksAreSeen(t *testing.T) {
	const size = 600 * gib
	blocks := size / 4096
	places := map[string]int64{
		"tail":               size - 512,
		"ext4, 1k, group 1":  (1+8192)*1024 + 56,
		"ext4, 1k, group 27": (1+27*8192)*1024 + 56,
		"ext4, 2k, group 3":  3*16384*2048 + 56,
		"ext4, 4k, group 1":  32768*4096 + 56,
		"ext4, 4k, group 49": 49*32768*4096 + 56,
		"xfs, 4 AGs, 1":      (blocks + 3) / 4 * 4096,
		"xfs, 4 AGs, 3":      (blocks + 3) / 4 * 3 * 4096,
		"xfs, 16 AGs, 5":     (blocks + 15) / 16 * 5 * 4096,
		"btrfs, 64 MiB":      64*mib + 64,
		"btrfs, 256 GiB":     256*gib + 64,
		"LUKS2, 4 MiB":       4 * mib,
	}
	for name, at := range places {
		t.Run(name, func(t *testing.T) {
			h, f := newHost(t)
			d, dev := h.disk("nvme0n1", 1)
			d.size, dev.SizeBytes = size, size
			d.data[at] = 0x42
			c, err := f.Inspect(t.Context(), dev)
			if err != nil || c.Kind != Unknown || c.Detail != fmt.Sprintf("data at offset %d", at) {
				t.Fatalf("%+v %v", c, err)
			}
		})
	}
}

func TestSamplesAreFewAlignedAndInside(t *testing.T) {
	for _, size := range []int64{512, 4096, 4608, mib - 512, mib, mib + 512, 3 * mib, gib, 100*gib + 512, 64 << 10 * gib} {
		spans := samples(size)
		if len(spans) > 256 {
			t.Errorf("%d: %d reads", size, len(spans))
		}
		end := int64(0)
		for _, s := range spans {
			if s.offset%4096 != 0 || s.length <= 0 || s.length > window || s.offset+s.length > size {
				t.Errorf("%d: %+v", size, s)
			}
			end = max(end, s.offset+s.length)
		}
		if spans[0].offset != 0 || end != size {
			t.Errorf("%d: head or tail is missing", size)
		}
		if size > 2*mib && spans[1].offset+spans[1].length != size {
			t.Errorf("%d: the tail is not read first: %+v", size, spans[1])
		}
	}
}

// The device becomes another one under our hands.
func TestDeviceThatChangesIsNeitherFormattedNorMounted(t *testing.T) {
	for name, formatted := range map[string]bool{"before mkfs": false, "before mount": true} {
		t.Run(name, func(t *testing.T) {
			h, f := newHost(t)
			d, dev := h.disk("nvme0n1", 1)
			if formatted {
				d.fstype = "ext4"
			}
			h.onNumber = func(string) { d.minor = 55 }
			if err := f.Stage(t.Context(), dev, h.path("globalmount"), "ext4", nil); !errors.Is(err, ErrWrongDevice) {
				t.Fatalf("%v", err)
			}
			if h.formats() != 0 || h.mounts != 0 {
				t.Fatalf("%q, %d mounts", h.runs, h.mounts)
			}
		})
	}
}

// The RPC is over, mkfs is not: it runs to its end, Drain waits for it, and the
// repeated Stage neither formats again nor calls the result foreign (B21).
func TestMkfsIsNotCutOff_B21(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	target := h.path("globalmount")
	begun, finish := make(chan struct{}), make(chan struct{})
	cut := make(chan error, 1)
	h.onRun = func(ctx context.Context, name string) (result, error, bool) {
		if name == "mkfs.ext4" {
			close(begun)
			<-finish
			cut <- ctx.Err()
		}
		return result{}, nil, false
	}
	ctx, leave := context.WithCancel(t.Context())
	staged := make(chan error, 1)
	go func() { staged <- f.Stage(ctx, dev, target, "ext4", nil) }()
	<-begun
	leave()
	if err := <-staged; !errors.Is(err, ErrTimeout) || !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	if err := f.Drain(within(t, 10*time.Millisecond)); !errors.Is(err, ErrTimeout) {
		t.Fatalf("Drain: %v", err)
	}
	if err := f.Stage(within(t, 10*time.Millisecond), dev, target, "ext4", nil); !errors.Is(err, ErrTimeout) {
		t.Fatalf("a second Stage during mkfs: %v", err)
	}
	close(finish)
	if err := f.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-cut; err != nil {
		t.Fatalf("mkfs was cut off: %v", err)
	}
	if err := f.Stage(t.Context(), dev, target, "ext4", nil); err != nil {
		t.Fatal(err)
	}
	if h.formats() != 1 || h.at(target) != 1 {
		t.Fatalf("%q, %d mounts", h.runs, h.at(target))
	}
}

// Reads hang while the target is away. The caller leaves; when the target is
// back, nothing is formatted or mounted on behalf of a call that is over.
func TestNothingBeginsAfterTheCallerLeft(t *testing.T) {
	h, f := newHost(t)
	d, dev := h.disk("nvme0n1", 1)
	ctx, leave := context.WithCancel(t.Context())
	d.hang, d.reached = make(chan struct{}), leave
	target := h.path("globalmount")
	for range 3 { // calls do not pile up in the kernel
		if err := f.Stage(ctx, dev, target, "ext4", nil); !errors.Is(err, ErrTimeout) {
			t.Fatalf("%v", err)
		}
	}
	close(d.hang)
	exit, err := f.lanes.Enter(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	exit()
	if h.opens != 1 || h.formats() != 0 || h.mounts != 0 {
		t.Fatalf("%d opens, %q, %d mounts", h.opens, h.runs, h.mounts)
	}
}

// The same, with the caller gone when blkid answers: the last look before mkfs.
func TestMkfsDoesNotBeginAfterTheCallerLeft(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	target := h.path("globalmount")
	ctx, leave := context.WithCancel(t.Context())
	h.onRun = func(context.Context, string) (result, error, bool) {
		leave()
		return result{code: 2}, nil, true
	}
	if err := f.Stage(ctx, dev, target, "ext4", nil); !errors.Is(err, ErrTimeout) {
		t.Fatalf("%v", err)
	}
	done, err := f.lanes.Enter(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	done()
	if h.formats() != 0 || h.mounts != 0 {
		t.Fatalf("%q, %d mounts", h.runs, h.mounts)
	}
}

func damage(n int) func(int, mountCall) error {
	return func(i int, m mountCall) error {
		if i <= n {
			return fmt.Errorf("%w: %s: %w", ErrMount, m.device, syscall.EUCLEAN)
		}
		return nil
	}
}

// No check before the mount: the kernel replays the log, a checker refuses (B17).
// After a failed mount e2fsck runs once, on ext4 alone.
func TestCheckersRunOnlyAfterAFailedMount_B17(t *testing.T) {
	for name, tt := range map[string]struct {
		fstype  string
		options []string
		onMount func(int, mountCall) error
		fsck    int // its exit status
		ran     string
		want    error
	}{
		"ext4 is fine":           {"ext4", nil, damage(0), 0, "blkid", nil},
		"xfs is fine":            {"xfs", nil, damage(0), 0, "blkid", nil},
		"ext4 is repaired":       {"ext4", nil, damage(1), 1, "blkid e2fsck", nil},
		"ext4, reboot wanted":    {"ext4", nil, damage(1), 3, "blkid e2fsck", nil},
		"ext4 is beyond -p":      {"ext4", nil, damage(1), 4, "blkid e2fsck", ErrMount},
		"ext4 fails again":       {"ext4", nil, damage(9), 1, "blkid e2fsck", ErrMount},
		"xfs is never repaired":  {"xfs", nil, damage(9), 0, "blkid", ErrMount},
		"read-only is not":       {"ext4", []string{"ro"}, damage(9), 0, "blkid", ErrMount},
		"a busy mount is not":    {"ext4", nil, fails(ErrMount, syscall.EBUSY), 0, "blkid", ErrMount},
		"a refused option isn't": {"ext4", nil, fails(ErrOption, syscall.EINVAL), 0, "blkid", ErrOption},
	} {
		t.Run(name, func(t *testing.T) {
			h, f := newHost(t)
			d, dev := h.disk("nvme0n1", 1)
			d.fstype, d.data[1024], h.onMount = tt.fstype, 1, tt.onMount
			h.onRun = func(_ context.Context, name string) (result, error, bool) {
				return result{code: tt.fsck, output: "what it said"}, nil, name == "e2fsck"
			}
			err := f.Stage(t.Context(), dev, h.path("globalmount"), tt.fstype, tt.options)
			if !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
				t.Errorf("%v", err)
			}
			if ran := strings.Join(h.ran(), " "); ran != tt.ran {
				t.Errorf("ran %q, want %q", ran, tt.ran)
			}
			if tt.fsck == 4 && !strings.Contains(err.Error(), "what it said") {
				t.Errorf("the tool's text is missing: %v", err)
			}
		})
	}
}

func fails(sentinel, errno error) func(int, mountCall) error {
	return func(int, mountCall) error { return fmt.Errorf("%w: %w", sentinel, errno) }
}

func TestMkfsThatFailsSaysWhy(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	h.onRun = func(_ context.Context, name string) (result, error, bool) {
		return result{code: 1, output: "Filesystem must be larger than 300MB."}, nil, name == "mkfs.xfs"
	}
	err := f.Stage(t.Context(), dev, h.path("globalmount"), "xfs", nil)
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "larger than 300MB") || h.mounts != 0 {
		t.Fatalf("%v", err)
	}
}

func TestStageRefusesWhatItCannotDo(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	file := h.path("file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := h.path("link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		target, fstype string
		options        []string
		want           error
	}{
		{h.path("m"), "btrfs", nil, ErrFsType},
		{h.path("m"), "ext4 -F", nil, ErrFsType},
		{h.path("m"), "ext4", []string{"noatime,bind"}, ErrOption},
		{"relative/m", "ext4", nil, ErrTarget},
		{h.dir + "/a/../m", "ext4", nil, ErrTarget},
		{"/", "ext4", nil, ErrTarget},
		{h.dir + "/missing/m", "ext4", nil, ErrTarget},
		{file, "ext4", nil, ErrTarget},
		{link, "ext4", nil, ErrTarget},
	} {
		if err := f.Stage(t.Context(), dev, tt.target, tt.fstype, tt.options); !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
		if h.mounts != 0 {
			t.Fatalf("%+v: mounted", tt)
		}
	}
}

// What stayed would block every repetition as a wrong mount.
func TestStageThatFailsIsUndone(t *testing.T) {
	h, f := newHost(t)
	_, dev := h.disk("nvme0n1", 1)
	h.disk("nvme1n1", 2)
	target := h.path("globalmount")
	f.system.mount = func(ctx context.Context, m mountCall) error {
		m.device = "/dev/nvme1n1"
		return h.mount(ctx, m)
	}
	if err := f.Stage(t.Context(), dev, target, "ext4", nil); !errors.Is(err, ErrWrongDevice) || h.at(target) != 0 {
		t.Fatalf("%v, %d mounts", err, h.at(target))
	}
	f.system.mount = h.mount
	if err := f.Stage(t.Context(), dev, target, "ext4", nil); err != nil || h.at(target) != 1 {
		t.Fatalf("%v, %d mounts", err, h.at(target))
	}
}

// A clone has the UUID of its source, and the kernel lets only one xfs of each in, unless it is told otherwise.
func TestXFSIsMountedBesideItsTwin(t *testing.T) {
	for name, tt := range map[string]struct {
		fstype  string
		options []string
		want    []string
	}{
		"xfs":              {"xfs", nil, []string{"nouuid"}},
		"xfs, and others":  {"xfs", []string{"logbsize=256k"}, []string{"logbsize=256k", "nouuid"}},
		"the claim's own":  {"xfs", []string{"nouuid", "discard"}, []string{"nouuid", "discard"}},
		"ext4 has no such": {"ext4", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h, f := newHost(t)
			_, dev := h.disk("nvme0n1", 1)
			var got []string
			h.onMount = func(_ int, m mountCall) error {
				got = m.options.filesystem
				return nil
			}
			if err := f.Stage(t.Context(), dev, h.path("globalmount"), tt.fstype, tt.options); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("mounted with %q, %v", got, err)
			}
		})
	}
}
