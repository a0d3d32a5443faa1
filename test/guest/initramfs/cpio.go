// Package initramfs makes the guest's root file system: a cpio archive in the "newc" form that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst). It needs no root: device nodes are only headers.
package initramfs

import (
	"fmt"
	"io"
	"math"
)

// Mode bits of stat(2) that the archive carries as they are.
const (
	modeDir     = 0o040000
	modeFile    = 0o100000
	modeSymlink = 0o120000
	modeChar    = 0o020000
)

const trailer = "TRAILER!!!"

// archive writes newc entries. The first error sticks and is told by close.
type archive struct {
	w       io.Writer
	written int64
	inode   uint32
	err     error
}

type entry struct {
	name         string // without a leading slash
	mode         uint32
	size         int64
	major, minor uint32 // of a device node
}

// add writes one entry with size bytes of content. The content must have exactly that many.
func (a *archive) add(e entry, content io.Reader) error {
	if e.size > math.MaxUint32 {
		return fmt.Errorf("%s: %d bytes do not fit into a newc archive", e.name, e.size)
	}
	a.header(e)
	if a.err == nil && e.size > 0 {
		n, err := io.Copy(a.w, io.LimitReader(content, e.size))
		a.written += n
		if err == nil && n < e.size {
			err = fmt.Errorf("%s: %d bytes instead of %d: %w", e.name, n, e.size, io.ErrUnexpectedEOF)
		}
		a.err = err
	}
	a.pad()
	return a.err
}

// header writes the 110 bytes of header, the name and its padding. Every number is eight hexadecimal digits.
func (a *archive) header(e entry) {
	a.inode++
	links := 1
	if e.mode&modeDir != 0 && e.mode&modeFile == 0 {
		links = 2
	}
	a.print("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inode, e.mode, 0, 0, links, 0, e.size, // inode, mode, uid, gid, links, mtime, size
		0, 0, e.major, e.minor, // device of the file, device that it is
		len(e.name)+1, 0, e.name) // length of the name with its NUL, checksum (unused in newc)
	a.pad()
}

// close writes the trailer and tells the first error.
func (a *archive) close() error {
	a.inode = math.MaxUint32 // wraps to 0, as the trailer has it
	a.header(entry{name: trailer})
	return a.err
}

// pad fills up to a multiple of four, where header and content must begin.
func (a *archive) pad() {
	if rest := a.written % 4; rest != 0 {
		a.print("%s", "\x00\x00\x00"[:4-rest])
	}
}

func (a *archive) print(format string, args ...any) {
	if a.err != nil {
		return
	}
	n, err := fmt.Fprintf(a.w, format, args...)
	a.written += int64(n)
	a.err = err
}
