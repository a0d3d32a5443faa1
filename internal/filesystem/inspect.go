package filesystem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30

	inspectLimit = time.Minute // for callers without a deadline
	window       = mib         // how much is read at the head and at the tail
	peek         = 64 * kib    // how much at each place between
)

// Inspect reads the device and says what it holds; it writes nothing. The answer
// Blank is a proof: everything that was to be read was read, and is zero. An
// unreadable device is never blank, though blkid says the same of both
// (kubernetes/kubernetes#142243).
func (f *Filesystem) Inspect(ctx context.Context, dev Device) (Content, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	found := make(chan Content, 1)
	err := f.lanes.Do(ctx, "device "+dev.number(), func() error {
		d, err := f.open(dev)
		if err != nil {
			return err
		}
		defer func() { _ = d.Close() }()
		c, err := f.inspect(ctx, dev, d)
		found <- c
		return err
	}, nil)
	if err != nil {
		return Content{}, fmt.Errorf("inspect %s: %w", dev, err)
	}
	return <-found, nil
}

// open opens the device and proves that it is the one.
func (f *Filesystem) open(dev Device) (disk, error) {
	d, err := f.system.open(dev.Path)
	if errors.Is(err, ErrWrongDevice) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if major, minor := d.Number(); major != dev.Major || minor != dev.Minor {
		err = fmt.Errorf("%w: it is %d:%d now", ErrWrongDevice, major, minor)
	} else if dev.SizeBytes != 0 && d.Size() != dev.SizeBytes {
		err = fmt.Errorf("%w: it has %d bytes, the volume has %d", ErrWrongDevice, d.Size(), dev.SizeBytes)
	}
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// still proves that the path leads to the device yet. While the device is held
// open its number cannot go to another one.
func (f *Filesystem) still(dev Device) error {
	major, minor, err := f.system.number(dev.Path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrongDevice, err)
	}
	if major != dev.Major || minor != dev.Minor {
		return fmt.Errorf("%w: %s is %d:%d now", ErrWrongDevice, dev, major, minor)
	}
	return nil
}

func (f *Filesystem) inspect(ctx context.Context, dev Device, d disk) (Content, error) {
	data, err := firstData(ctx, d)
	if err != nil {
		return Content{}, err
	}
	content, err := f.probe(ctx, dev)
	if err != nil || content.Kind != Unknown {
		return content, err
	}
	if data < 0 {
		return Content{Kind: Blank}, nil
	}
	content.Detail = fmt.Sprintf("data at offset %d", data)
	return content, nil
}

// firstData reads every sample and returns the offset of the first byte that is
// not zero, -1 if there is none.
func firstData(ctx context.Context, d disk) (int64, error) {
	// Direct I/O wants aligned memory; a mapping is aligned to pages.
	buf, err := unix.Mmap(-1, 0, int(window), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	if d.Size() <= 0 {
		return 0, fmt.Errorf("%w: its size is %d", ErrUnreadable, d.Size())
	}
	first := int64(-1)
	for n, s := range samples(d.Size()) {
		if n >= 2 && first >= 0 {
			break // it is not blank, and its head and its tail were read
		}
		if err := left(ctx); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
		part := buf[:s.length]
		if n, err := d.ReadAt(part, s.offset); n < len(part) {
			return 0, fmt.Errorf("%w: read at offset %d: %d of %d bytes: %w", ErrUnreadable, s.offset, n, len(part), err)
		}
		if first < 0 && !zero(part) {
			first = s.offset + int64(len(part)-len(bytes.TrimLeft(part, "\x00")))
		}
	}
	return first, nil
}

func zero(b []byte) bool { return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

type span struct{ offset, length int64 }

// samples are the places that must be zero on a blank device: head and tail,
// where filesystems, partition tables, RAID, LVM and LUKS have their signatures;
// where the copies of superblocks lie, for a wiped head does not make a device
// blank; and places spread over the rest. About 200 reads, whatever the size.
func samples(size int64) []span {
	offsets := make([]int64, 0, 256)
	offsets = append(offsets, 2*mib, 4*mib) // LUKS2's second header may be there
	// ext4 keeps copies at the start of groups 1 and the powers of 3, 5 and 7; a
	// group has 8 blocks per byte of a block, and with 1 KiB blocks starts one late.
	for _, group := range []int64{1, 3, 5, 7, 9, 25, 27, 49, 81, 125} {
		offsets = append(offsets, group*8*mib, group*32*mib, group*128*mib)
	}
	offsets = append(offsets, 64*mib, 256*gib) // btrfs; its first copy is in the head
	// xfs has one per allocation group: quarters of the device by default, up to
	// 1 TiB each, more of them on striped disks.
	for n := range int64(32) {
		offsets = append(offsets, size/32*n, n<<10*gib)
	}
	for n := range int64(64) { // no pattern of anybody's
		offsets = append(offsets, size/67*n+size/211)
	}
	spans := []span{at(0, window, size), at(size-window+4095, window, size)}
	for _, o := range offsets {
		// Backwards a little, for the start of a group is rounded.
		if o > 0 && o < size {
			spans = append(spans, at(o-peek/2, peek, size))
		}
	}
	slices.SortFunc(spans[2:], func(a, b span) int { return int(min(max(a.offset-b.offset, -1), 1)) })
	return slices.Compact(spans)
}

// at is aligned for direct I/O and lies within the device.
func at(offset, length, size int64) span {
	offset = max(offset, 0) / 4096 * 4096
	return span{offset, min(length, size-offset)}
}

// probe asks blkid for signatures; with -p it reads the device and no cache.
func (f *Filesystem) probe(ctx context.Context, dev Device) (Content, error) {
	r, err := f.system.run(ctx, "blkid", "-p", "-o", "export", dev.Path)
	if err != nil {
		return Content{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	switch r.code {
	case 0:
		return content(r.output), nil
	case 2: // nothing found, or nothing readable: firstData told the two apart
		return Content{Kind: Unknown}, nil
	case 8:
		return Content{Kind: Foreign, Detail: "several signatures at once"}, nil
	}
	return Content{}, fmt.Errorf("%w: blkid ended with %d: %s", ErrUnreadable, r.code, r.output)
}

// content reads blkid's KEY=value lines.
func content(output string) Content {
	v := map[string]string{}
	for line := range strings.Lines(output) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		v[key] = value
	}
	switch {
	case v["PTTYPE"] != "" && v["TYPE"] != "":
		return Content{Kind: Foreign, Detail: fmt.Sprintf("%s and a %s partition table", v["TYPE"], v["PTTYPE"])}
	case v["PTTYPE"] != "":
		return Content{Kind: Foreign, Detail: v["PTTYPE"] + " partition table"}
	case v["USAGE"] == "filesystem" && v["TYPE"] != "":
		return Content{Kind: FileSystem, FSType: v["TYPE"]}
	case v["TYPE"] != "":
		return Content{Kind: Foreign, FSType: v["TYPE"], Detail: v["TYPE"] + " (" + v["USAGE"] + ")"}
	}
	return Content{Kind: Foreign, Detail: fmt.Sprintf("what blkid calls %.200q", output)}
}
