package sim

import (
	"context"
	"io"
	"os"
)

// staleBytes is how much old data a new file has at either end with new-file-content=random.
const staleBytes = 1 << 20

// open makes the backing file of a new item, or takes the one that is there as it is: its content, and its size too if
// that is more than was asked for [I: the manual opens existing images so]. made tells whether the file is new.
func (d *Device) open(ctx context.Context, dk *disk, sizeGiven, auto bool) (made bool, err error) {
	info, exists := d.storage.stat(dk.Path)
	switch {
	case exists && info.IsDir():
		return false, errIsDirectory
	case exists && d.quirks.is(quirkExistingFile, failing):
		return false, errFileExists
	case d.readOnly(dk.Path):
		return false, errReadOnly
	case exists:
		if dk.Size > info.Size() {
			return false, d.storage.resize(ctx, dk.Path, dk.Size)
		}
		dk.Size = info.Size()
		return false, nil
	case !sizeGiven || auto || dk.Size == 0:
		return false, errNoSize
	}
	if err := d.storage.parent(dk.Path, d.quirks.is(quirkMissingDirectory, create)); err != nil {
		return false, err
	}
	if err := d.storage.create(ctx, dk.Path, dk.Size); err != nil {
		return false, err
	}
	if d.quirks.is(quirkNewFileContent, random) {
		return true, litter(d.storage.host(dk.Path), dk.Size)
	}
	return true, nil
}

// litter leaves old data in a file, where a file system would have its signatures.
func litter(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // the writes below are checked
	n := min(size, staleBytes)
	for _, at := range []int64{0, size - n} {
		if _, err := f.WriteAt(randomBytes(int(n)), at); err != nil {
			return err
		}
	}
	return nil
}

// look lets the device inspect an item as it does when the item is added, enabled or found at boot: it recognises a
// file system and mounts it unless mount-filesystem=no [V; that it applies to type=file as well is I, strong].
func (d *Device) look(dk *disk) {
	dk.fs, dk.mounted = "", false
	if dk.Disabled {
		return
	}
	dk.fs = recognise(d.storage.host(dk.Path), dk.Offset)
	dk.mounted = dk.fs != "" && dk.MountFilesystem
}

// recognise finds the file systems that hosts put on volumes.
func recognise(name string, offset int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read
	head := make([]byte, 0x10048)
	n, _ := f.ReadAt(head, offset)
	if n < len(head) {
		clear(head[n:])
	}
	switch {
	case string(head[:4]) == "XFSB":
		return "xfs"
	case head[0x438] == 0x53 && head[0x439] == 0xef:
		return "ext4"
	case string(head[0x10040:0x10048]) == "_BHRfS_M":
		return "btrfs"
	}
	return ""
}

// copyText reads a small file, as /file shows contents.
func copyText(name string, limit int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return ""
	}
	return string(text)
}
