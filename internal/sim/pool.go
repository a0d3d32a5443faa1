package sim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// flashBytes is the size of the device's own flash [R]: whatever is in no pool is there.
const flashBytes = 128 << 20

// blockBytes is what a file is rounded up to in the books of a pool.
const blockBytes = 4096

// What commands answer when the file system says no. None of the texts has been seen on a device [U], except the
// middle of errFull, which fetch uses.
var (
	errFull        = errors.New("failure: no space left on disk")
	errNoDirectory = errors.New("failure: no such directory")
	errFileExists  = errors.New("failure: file already exists")
	errIsDirectory = errors.New("failure: file is a directory")
	errNotEmpty    = errors.New("failure: directory is not empty")
	errIsDisk      = errors.New("failure: cannot remove a disk")
	errFileUsed    = errors.New("failure: file is in use")
)

// storage is the file system of the device: the flash, with the pools mounted in it. Paths are those of /file, without
// a leading slash. The directory is the authority; nothing about it is remembered.
type storage struct {
	root  string
	pools []Pool

	mu     sync.Mutex
	shared map[string]bool // directories of snapshots, whose blocks belong to somebody else
	arrays map[string]array
}

func newStorage(root string, pools []Pool) (*storage, error) {
	for _, p := range pools {
		if p.Filesystem != "btrfs" && p.Filesystem != "xfs" {
			return nil, fmt.Errorf("pool %s: file system %q: there are btrfs and xfs", p.Slot, p.Filesystem)
		}
		if clean, err := cleanPath(p.Slot); err != nil || clean != p.Slot || strings.Contains(clean, "/") {
			return nil, fmt.Errorf("pool %q: not a name of one path component", p.Slot)
		}
		if p.SizeBytes < 1<<20 {
			return nil, fmt.Errorf("pool %s: a size of %d bytes is less than 1 MiB", p.Slot, p.SizeBytes)
		}
		if err := os.MkdirAll(filepath.Join(root, p.Slot), 0o750); err != nil {
			return nil, fmt.Errorf("pool %s: %w", p.Slot, err)
		}
	}
	return &storage{root: root, pools: pools, shared: map[string]bool{}, arrays: map[string]array{}}, nil
}

func (s *storage) host(name string) string { return filepath.Join(s.root, filepath.FromSlash(name)) }

// pool finds the pool that a path is in.
func (s *storage) pool(name string) (Pool, bool) {
	first, _, _ := strings.Cut(name, "/")
	i := slices.IndexFunc(s.pools, func(p Pool) bool { return p.Slot == first })
	if i < 0 {
		return Pool{}, false
	}
	return s.pools[i], true
}

// overhead is what a file system keeps for itself: 0.71 % on an XFS pool of a real RDS [R], little on Btrfs [U].
func (p Pool) overhead() int64 {
	if p.Filesystem == "xfs" {
		return p.SizeBytes / 10000 * 71
	}
	return p.SizeBytes / 1000
}

// fullKey marks the context of a command for which no pool has space.
type fullKey struct{}

// free computes what is left where a path is. Files count with their whole size although they are sparse here: the
// device allocates them at once [R on XFS, U on Btrfs].
func (s *storage) free(ctx context.Context, name string) int64 {
	if ctx.Value(fullKey{}) != nil {
		return 0
	}
	p, ok := s.pool(name)
	if !ok {
		return max(0, flashBytes-s.used(""))
	}
	return max(0, p.SizeBytes-p.overhead()-s.used(p.Slot))
}

func (s *storage) used(dir string) int64 {
	var sum int64
	s.walk(dir, func(name string, info fs.FileInfo) bool {
		if _, inPool := s.pool(name); inPool && dir == "" || s.isShared(name) {
			return false
		}
		if !info.IsDir() {
			sum += (info.Size() + blockBytes - 1) / blockBytes * blockBytes
		}
		return true
	})
	return sum
}

// share says that what lies below a directory takes no space, or that it does. What is written to a snapshot later would take
// some on a device; these books leave it out.
func (s *storage) share(dir string, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if yes {
		s.shared[dir] = true
	} else {
		delete(s.shared, dir)
	}
}

func (s *storage) isShared(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shared[dir]
}

// walk visits everything below a directory, parents first, and goes into a directory if visit says so. What
// disappears meanwhile was not there.
func (s *storage) walk(dir string, visit func(name string, info fs.FileInfo) bool) {
	entries, err := os.ReadDir(s.host(dir))
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		name := path.Join(dir, e.Name())
		if visit(name, info) && e.IsDir() {
			s.walk(name, visit)
		}
	}
}

func (s *storage) stat(name string) (fs.FileInfo, bool) {
	info, err := os.Lstat(s.host(name))
	return info, err == nil
}

// parent makes sure that the directory of a path is there.
func (s *storage) parent(name string, mayMake bool) error {
	dir := path.Dir(name)
	if info, ok := s.stat(dir); ok && info.IsDir() {
		return nil
	}
	if !mayMake {
		return errNoDirectory
	}
	if err := os.MkdirAll(s.host(dir), 0o750); err != nil {
		return errNoDirectory
	}
	return nil
}

// create makes a file of a size, sparse.
func (s *storage) create(ctx context.Context, name string, size int64) error {
	if size > s.free(ctx, name) {
		return errFull
	}
	f, err := os.OpenFile(s.host(name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("failure: could not create file: %w", errors.Unwrap(err))
	}
	defer f.Close() //nolint:errcheck // nothing was written that could be lost
	if err := f.Truncate(size); err != nil {
		_ = os.Remove(s.host(name)) // it is empty, and there is nobody to tell
		return errFull
	}
	return nil
}

// resize grows or shrinks a file.
func (s *storage) resize(ctx context.Context, name string, size int64) error {
	info, ok := s.stat(name)
	if !ok {
		return errors.New("failure: file not found")
	}
	if size-info.Size() > s.free(ctx, name) {
		return errFull
	}
	if err := os.Truncate(s.host(name), size); err != nil {
		return errFull
	}
	return nil
}

// remove removes a file, or a directory with nothing in it. Whether the device removes a directory with all that is
// in it is not known [U].
func (s *storage) remove(name string) error {
	info, ok := s.stat(name)
	if !ok {
		return errors.New("no such item")
	}
	if _, ok := s.pool(name); ok && !strings.Contains(name, "/") {
		return errIsDisk
	}
	if err := os.Remove(s.host(name)); err != nil {
		if info.IsDir() {
			return errNotEmpty
		}
		return fmt.Errorf("failure: could not remove file: %w", errors.Unwrap(err))
	}
	return nil
}
