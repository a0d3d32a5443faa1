package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// copySteps is in how many pieces a copy that takes time is made.
const copySteps = 20

var (
	errReadOnly   = errors.New("failure: read-only file system")
	errCopyTarget = errors.New("failure: could not copy: file already exists")
	errOneSource  = errors.New("failure: this simulator copies one file at a time")
)

// copy copies one file. Whether RouterOS shares blocks when it does is not known [U]: here the data is shared if the file
// system below can, and counted as if it were not.
func (m fileMenu) copy(ctx context.Context, list []*row, a arguments) error {
	if len(list) != 1 {
		return errOneSource
	}
	target, err := cleanPath(a.text("name"))
	if err != nil {
		return errors.New("invalid value for argument name")
	}
	c, err := m.d.beginCopy(ctx, list[0].name, target)
	if err != nil {
		return err
	}
	c.took, c.gate = m.d.quirks.duration(quirkCopyTime), m.d.copyGate()
	if !m.d.quirks.is(quirkCopyReturns, started) {
		return c.run(ctx)
	}
	//nolint:contextcheck // it outlives the command
	_, err = m.d.jobs.begin("", func(ctx context.Context) { m.d.note(c.run(ctx)) })
	return err
}

// copying is a copy that has begun.
type copying struct {
	from, to string // on this machine
	size     int64
	room     int64 // what the pool had when it began
	took     time.Duration
	gate     <-chan struct{} // the second half waits for it
}

// HoldCopies makes copies that begin from now on wait half-way until release is called.
func (d *Device) HoldCopies() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gate := make(chan struct{})
	d.held = gate
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.held = nil
		close(gate)
	})
}

func (d *Device) copyGate() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held != nil {
		return d.held
	}
	open := make(chan struct{})
	close(open)
	return open
}

// beginCopy makes the target, if there may be one.
func (d *Device) beginCopy(ctx context.Context, source, target string) (copying, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, ok := d.storage.stat(source)
	switch {
	case !ok:
		return copying{}, errors.New("no such item")
	case info.IsDir():
		return copying{}, errIsDirectory // the device copies directories too [V]; nobody here needs it
	}
	if _, exists := d.storage.stat(target); exists && d.quirks.is(quirkCopyExisting, failing) {
		return copying{}, errCopyTarget
	}
	if d.readOnly(target) {
		return copying{}, errReadOnly
	}
	if err := d.storage.parent(target, false); err != nil {
		return copying{}, err
	}
	c := copying{from: d.storage.host(source), to: d.storage.host(target), size: info.Size(), room: d.storage.free(ctx, target)}
	first := int64(0)
	if d.quirks.is(quirkCopySize, atOnce) {
		first = min(c.size, c.room)
	}
	f, err := os.OpenFile(c.to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return copying{}, fmt.Errorf("failure: could not create file: %w", errors.Unwrap(err))
	}
	return c, errors.Join(f.Truncate(first), f.Close())
}

// run copies to the end, or until the device goes down or the pool is full: then what was copied stays.
func (c copying) run(ctx context.Context) error {
	if c.size > c.room {
		return errFull
	}
	for i := range int64(copySteps) {
		if c.took == 0 {
			break
		}
		pause(ctx, c.took/copySteps)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := grow(c.to, c.size/copySteps*i); err != nil {
			return errFull
		}
	}
	if err := grow(c.to, c.size/2); err != nil {
		return errFull
	}
	select {
	case <-c.gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := copyFile(c.from, c.to); err != nil {
		return fmt.Errorf("failure: could not copy: %w", err)
	}
	return nil
}

// grow makes a file at least so large.
func grow(name string, size int64) error {
	info, err := os.Stat(name)
	if err != nil || info.Size() >= size {
		return nil //nolint:nilerr // somebody removed it: the copy goes on into nowhere, as on the device
	}
	return os.Truncate(name, size)
}

// copyFile gives a file the content of another one, sharing the blocks where that is possible. A target that somebody has
// removed meanwhile stays removed.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return out.Close()
	}
	return errors.Join(copySparse(in, out), out.Close())
}

// copySparse copies what is not a hole: volumes are mostly holes here.
func copySparse(in, out *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.Truncate(0); err != nil {
		return err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		begin, err := in.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only holes follow
		}
		if err != nil {
			return err
		}
		end, err := in.Seek(begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, begin), io.NewSectionReader(in, begin, end-begin)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// copyTree copies a directory with all files in it, but nothing of the directories that leave says to leave out: they are
// there, and empty, as a subvolume is in the snapshot of the one around it.
func copyTree(from, to string, leave func(relative string) bool) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir() && relative != "." && leave(filepath.ToSlash(relative)):
			return errors.Join(os.Mkdir(target, 0o750), fs.SkipDir)
		case entry.IsDir():
			return os.Mkdir(target, 0o750)
		}
		f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		return copyFile(path, target)
	})
}
