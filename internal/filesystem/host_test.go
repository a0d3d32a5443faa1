package filesystem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// host is a node as far as this package sees one: disks whose contents are a few
// bytes at offsets, tools that behave as the real ones, and a mount table on which
// mounts stack, as the kernel's do (B35 was a fake that replaced them).
type host struct {
	t     *testing.T
	dir   string
	disks map[string]*fakeDisk
	files map[string]Device // device files that mounts of raw volumes show

	mu     sync.Mutex
	nextID int
	table  []tableEntry
	runs   []string
	opens  int

	onRun     func(ctx context.Context, name string) (result, error, bool) // true: this is the answer
	onMount   func(n int, m mountCall) error                               // n counts from 1
	onUnmount func(target string) error
	onBind    func() error
	onGrow    func(d *fakeDisk) error // instead of growing
	onStatfs  func() error
	onNumber  func(path string) // before the number of a node is read
	mounts    int
	grows     int
	statfses  int
}

type tableEntry struct {
	id, parent            int
	major, minor          uint32
	root, target, fstype  string
	source                string // "": /dev/x
	options, superOptions string
	private               bool
}

// fakeDisk is both a disk and what is on it.
type fakeDisk struct {
	h            *host
	major, minor uint32
	size         int64
	data         map[int64]byte // what is not zero
	fstype       string         // what blkid finds
	blkid        *result        // what it says instead
	badAt        int64          // offset whose read fails, -1: none
	hang         chan struct{}  // reads wait for it
	reached      func()         // called by a read that will wait
	claimed      bool
	fsBytes      int64 // of its file system; 0: all of it
	errors       noted // that ext4 noted
	readonly     bool  // BLKROSET
	protected    bool  // by the target, whatever BLKROSET says
	reads        []span
}

func newHost(t *testing.T) (*host, *Filesystem) {
	h := &host{t: t, dir: t.TempDir(), disks: map[string]*fakeDisk{}, files: map[string]Device{}, nextID: 100}
	h.write()
	f := New(Config{MountInfo: filepath.Join(h.dir, "mountinfo")})
	f.system = system{
		open: h.open, number: h.number, claimed: h.isClaimed, run: h.run, mount: h.mount, bind: h.bind, unmount: h.unmount,
		mountID: h.mountID, mountBlock: h.mountBlock, bindFile: h.bindFile, readOnly: h.isReadOnly, setReadOnly: h.setReadOnly,
		geometry: h.geometry, grow: h.grow, statfs: h.statfs, recorded: h.recorded,
	}
	return h, f
}

// disk adds a blank disk of 1 GiB.
func (h *host) disk(name string, minor uint32) (*fakeDisk, Device) {
	d := &fakeDisk{h: h, major: 259, minor: minor, size: gib, data: map[int64]byte{}, badAt: -1}
	path := "/dev/" + name
	h.disks[path] = d
	return d, Device{Path: path, Major: 259, Minor: minor, SizeBytes: gib}
}

// path is a place below the host's directory, its parents made.
func (h *host) path(elements ...string) string {
	p := filepath.Join(append([]string{h.dir}, elements...)...)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (h *host) open(path string) (disk, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opens++
	d, ok := h.disks[path]
	if !ok {
		return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENXIO}
	}
	return d, nil
}

func (d *fakeDisk) Size() int64                   { return d.size }
func (d *fakeDisk) Number() (major, minor uint32) { return d.major, d.minor }
func (d *fakeDisk) Close() error                  { return nil }

func (d *fakeDisk) ReadAt(p []byte, off int64) (int, error) {
	if d.hang != nil {
		if d.reached != nil {
			d.reached()
		}
		<-d.hang
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	d.reads = append(d.reads, span{off, int64(len(p))})
	if off%4096 != 0 || off+int64(len(p)) > d.size {
		return 0, syscall.EINVAL // what direct I/O says
	}
	if d.badAt >= off && d.badAt < off+int64(len(p)) {
		return 0, syscall.EIO
	}
	clear(p)
	for o, b := range d.data {
		if o >= off && o < off+int64(len(p)) {
			p[o-off] = b
		}
	}
	return len(p), nil
}

func (h *host) number(path string) (major, minor uint32, err error) {
	if h.onNumber != nil {
		h.onNumber(path)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if d, ok := h.disks[path]; ok {
		return d.major, d.minor, nil
	}
	if d, ok := h.files[path]; ok {
		return d.Major, d.Minor, nil
	}
	return 0, 0, &os.PathError{Op: "lstat", Path: path, Err: fs.ErrNotExist}
}

func (h *host) isClaimed(path string) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.disks[path].claimed, nil
}

// run is blkid, mkfs and e2fsck. blkid cannot tell a blank disk from one that it
// cannot read: the real one cannot either.
func (h *host) run(ctx context.Context, name string, args ...string) (result, error) {
	h.mu.Lock()
	h.runs = append(h.runs, strings.Join(append([]string{name}, args...), " "))
	h.mu.Unlock()
	if h.onRun != nil {
		if r, err, is := h.onRun(ctx, name); is {
			return r, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.disks[args[len(args)-1]]
	switch name {
	case "blkid":
		if d.blkid != nil {
			return *d.blkid, nil
		}
		if d.fstype != "" {
			return result{output: "TYPE=" + d.fstype + "\nUSAGE=filesystem"}, nil
		}
		return result{code: 2}, nil
	case "mkfs.ext4", "mkfs.xfs":
		if args[0] == "-V" {
			return result{output: "mkfs.xfs version 6.1.0"}, nil
		}
		d.fstype = strings.TrimPrefix(name, "mkfs.")
		d.data[1024] = 1
		return result{}, nil
	case "e2fsck":
		return result{code: 1, output: "fixed"}, nil
	}
	return result{code: 127}, fmt.Errorf("no such tool %s", name)
}

// ran is the names of the tools that ran, in order.
func (h *host) ran() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for _, r := range h.runs {
		names = append(names, strings.Fields(r)[0])
	}
	return names
}

func (h *host) formats() int {
	n := 0
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.runs {
		if strings.HasPrefix(r, "mkfs") && !strings.HasSuffix(r, " -V") {
			n++
		}
	}
	return n
}

func (h *host) mount(ctx context.Context, m mountCall) error {
	h.mu.Lock()
	h.mounts++
	n := h.mounts
	h.mu.Unlock()
	if h.onMount != nil {
		if err := h.onMount(n, m); err != nil {
			return err
		}
	}
	if err := left(ctx); err != nil {
		return err
	}
	d := h.disks[m.device]
	options := "rw,relatime"
	if m.options.readOnly() {
		options = "ro,relatime"
	}
	h.push(tableEntry{major: d.major, minor: d.minor, root: "/", target: m.target, fstype: m.fstype, options: options, superOptions: "rw"})
	return nil
}

func (h *host) bind(_ context.Context, from, to string, add int) error {
	if h.onBind != nil {
		if err := h.onBind(); err != nil {
			return err
		}
	}
	e, ok := h.top(from)
	if !ok {
		return syscall.EINVAL
	}
	e.target = to
	for _, name := range attributeNames(add) {
		if name == "ro" {
			e.options = "ro" + strings.TrimPrefix(e.options, "rw")
		} else {
			e.options += "," + name
		}
	}
	h.push(e)
	return nil
}

func (h *host) mountBlock(ctx context.Context, b blockCall) error {
	if err := left(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	h.files[filepath.Join(b.target, blockFile)] = b.dev
	h.mu.Unlock()
	h.push(tableEntry{minor: 55, root: "/", target: b.target, fstype: blockFS, source: b.source, options: "rw,nosuid,noexec,relatime", superOptions: "rw"})
	return nil
}

func (h *host) bindFile(_ context.Context, from, to string) error {
	if h.onBind != nil {
		if err := h.onBind(); err != nil {
			return err
		}
	}
	e, ok := h.top(filepath.Dir(from))
	if !ok {
		return syscall.ENOENT
	}
	h.mu.Lock()
	h.files[to] = h.files[from]
	h.mu.Unlock()
	e.root, e.target = "/"+filepath.Base(from), to
	h.push(e)
	return nil
}

func (h *host) isReadOnly(dev Device) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.disks {
		if d.major == dev.Major && d.minor == dev.Minor {
			return d.readonly || d.protected, nil
		}
	}
	return false, fs.ErrNotExist
}

func (h *host) setReadOnly(path string, readonly bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.disks[path]
	if !ok {
		return syscall.ENXIO
	}
	d.readonly = readonly
	return nil
}

func (h *host) mountedDisk(path string) *fakeDisk {
	e, _ := h.top(path)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.disks {
		if d.major == e.major && d.minor == e.minor {
			return d
		}
	}
	return nil
}

func (h *host) geometry(_ Device, path, _ string) (geometry, error) {
	d := h.mountedDisk(path)
	if d == nil {
		return geometry{}, syscall.EIO
	}
	return geometry{blockSize: 4096, blocks: cmp.Or(d.fsBytes, d.size) / 4096, mounted: 1000}, nil
}

func (h *host) statfs(path string) (unix.Statfs_t, error) {
	h.mu.Lock()
	h.statfses++
	h.mu.Unlock()
	if h.onStatfs != nil {
		if err := h.onStatfs(); err != nil {
			return unix.Statfs_t{}, err
		}
	}
	d := h.mountedDisk(path)
	blocks := uint64(cmp.Or(d.fsBytes, d.size)) / 4096
	return unix.Statfs_t{Bsize: 65536, Frsize: 4096, Blocks: blocks, Bfree: blocks / 2, Bavail: blocks / 4, Files: 100, Ffree: 90}, nil
}

func (h *host) recorded(dev Device) (noted, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.disks {
		if d.minor == dev.Minor {
			return d.errors, nil
		}
	}
	return noted{}, fs.ErrNotExist
}

// superFlags changes those of the file system at a place, as the kernel does after an error.
func (h *host) superFlags(target, options string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, e := range slices.Backward(h.table) {
		if e.target == target {
			h.table[i].superOptions = options
			break
		}
	}
	h.writeLocked()
}

func (h *host) grow(path, _ string, blocks int64) error {
	d := h.mountedDisk(path)
	h.grows++
	if h.onGrow != nil {
		return h.onGrow(d)
	}
	d.fsBytes = blocks * 4096
	return nil
}

// flags changes those of the mount at a place.
func (h *host) flags(target, options string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, e := range slices.Backward(h.table) {
		if e.target == target {
			h.table[i].options = options
			break
		}
	}
	h.writeLocked()
}

// mountID is the one whose mount point is the longest above a directory.
func (h *host) mountID(dir string) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id, longest := 1, 0
	for _, e := range h.table {
		if strings.HasPrefix(dir+"/", e.target+"/") && len(e.target) >= longest {
			id, longest = e.id, len(e.target)
		}
	}
	return id, nil
}

func (h *host) unmount(target string) error {
	if h.onUnmount != nil {
		if err := h.onUnmount(target); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.table) - 1; i >= 0; i-- {
		if h.table[i].target == target {
			h.table = slices.Delete(h.table, i, i+1)
			h.writeLocked()
			return nil
		}
	}
	return &os.PathError{Op: "unmount", Path: target, Err: syscall.EINVAL}
}

func (h *host) top(target string) (tableEntry, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.table) - 1; i >= 0; i-- {
		if h.table[i].target == target {
			return h.table[i], true
		}
	}
	return tableEntry{}, false
}

// at counts the mounts at a place.
func (h *host) at(target string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, e := range h.table {
		if e.target == target {
			n++
		}
	}
	return n
}

func (h *host) push(e tableEntry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextID++
	e.id, e.parent = h.nextID, 1
	for _, o := range h.table {
		if o.target == e.target {
			e.parent = o.id
		}
	}
	h.table = append(h.table, e)
	h.writeLocked()
}

func (h *host) write() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writeLocked()
}

func (h *host) writeLocked() {
	lines := []string{"1 0 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw"}
	for _, e := range h.table {
		tags := "shared:7 "
		if e.private {
			tags = ""
		}
		target := strings.NewReplacer(" ", `\040`, "\t", `\011`, `\`, `\134`).Replace(e.target)
		lines = append(lines, fmt.Sprintf("%d %d %d:%d %s %s %s %s- %s %s %s",
			e.id, e.parent, e.major, e.minor, e.root, target, e.options, tags, e.fstype, cmp.Or(e.source, "/dev/x"), e.superOptions))
	}
	// Renamed into place: who reads the kernel's table while it changes does not see half of it.
	next := filepath.Join(h.dir, "mountinfo.next")
	err := os.WriteFile(next, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
	if err == nil {
		err = os.Rename(next, filepath.Join(h.dir, "mountinfo"))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Error(err)
	}
}
