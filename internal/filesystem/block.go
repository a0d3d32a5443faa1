package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// A raw block volume is shown by a device file on a file system of its own: a tmpfs of one page that is mounted at the
// staging path, and of which each publish binds the one file to its target.
//
//   - Not a bind of /dev/nvmeXnY: that drags devtmpfs into every pod's directory, where its mounts multiplied until a node
//     ran out of memory, and its file is unlinked under the bind when the kernel removes the device.
//   - Not mknod at the target: a kubelet directory that is mounted nodev makes the file useless to kubelet itself, which
//     opens it with losetup to keep the device's number from being handed on; and on a disk it outlives a reboot, after which
//     its number is another device's.
//
// So what is staged and published, and as which device, is read from the mount table alone, like everything else here: the
// source of the mount names volume and device, every bind of the file carries it (kubelet's own included), and a reboot ends it.
const (
	blockFS     = "tmpfs"
	blockFile   = "device"
	blockMarker = "rds-csi-block:" // begins the source: rds-csi-block:259:3:<volume>
)

// blockCall is one device file to be shown at a place.
type blockCall struct {
	source, target string
	dev            Device
}

func blockSource(volume string, dev Device) string {
	return fmt.Sprintf("%s%d:%d:%s", blockMarker, dev.Major, dev.Minor, volume)
}

// asBlock reads the source of a mount; the numbers of a raw volume's mount are then those of its device.
func (m *Mount) asBlock(source string) {
	rest, ok := strings.CutPrefix(source, blockMarker)
	if !ok || m.FSType != blockFS {
		return
	}
	var major, minor uint32
	numbers := strings.SplitN(rest, ":", 3)
	if len(numbers) < 3 {
		return
	}
	if _, err := fmt.Sscanf(numbers[0]+" "+numbers[1], "%d %d", &major, &minor); err != nil {
		return
	}
	m.Major, m.Minor, m.Volume = major, minor, numbers[2]
}

// shown proves that a mount is the raw volume, as this device.
func (m Mount) shown(volume string, dev Device) error {
	if m.Volume != volume || m.Major != dev.Major || m.Minor != dev.Minor {
		what := fmt.Sprintf("%s %d:%d", m.FSType, m.Major, m.Minor)
		if m.Volume != "" {
			what = fmt.Sprintf("device %d:%d of %s", m.Major, m.Minor, m.Volume)
		}
		return fmt.Errorf("%w: %s is mounted there, the raw volume is device %s of %s", ErrWrongDevice, what, dev.number(), volume)
	}
	return nil
}

// StageBlock makes the device file of a raw volume at target. It neither reads nor writes the device. Repeated, it
// changes nothing.
func (f *Filesystem) StageBlock(ctx context.Context, volume string, dev Device, target string) error {
	path, err := resolve(target)
	if err != nil {
		return fmt.Errorf("stage %s: %w", dev, err)
	}
	ctx, cancel := context.WithTimeout(ctx, bindLimit)
	defer cancel()
	err = f.lanes.Do(ctx, path, func() error {
		there, mounted, err := f.top(path)
		if err != nil {
			return err
		}
		if mounted {
			return there.shown(volume, dev)
		}
		return f.makeBlock(ctx, volume, dev, path)
	}, nil)
	if err != nil {
		return fmt.Errorf("stage %s at %s: %w", dev, target, err)
	}
	return nil
}

func (f *Filesystem) makeBlock(ctx context.Context, volume string, dev Device, path string) error {
	if err := f.still(dev); err != nil {
		return err
	}
	if err := f.reachesHost(path); err != nil {
		return err
	}
	if err := directory(path); err != nil {
		return err
	}
	if err := left(ctx); err != nil {
		return err
	}
	if err := f.system.mountBlock(ctx, blockCall{source: blockSource(volume, dev), target: path, dev: dev}); err != nil {
		return err
	}
	there, mounted, err := f.top(path)
	if err == nil && !mounted {
		return fmt.Errorf("%w: the mount table does not show it", ErrMount)
	}
	if err == nil {
		err = there.shown(volume, dev)
	}
	if err == nil {
		err = f.isDevice(filepath.Join(path, blockFile), dev)
	}
	if err != nil {
		err = errors.Join(err, f.system.unmount(path)) // undone, or every repetition would stumble over it
	}
	return err
}

// isDevice proves what a device file leads to.
func (f *Filesystem) isDevice(path string, dev Device) error {
	at := dev
	at.Path = path
	return f.still(at)
}

// PublishBlock shows the staged device file at target, and makes the device read-only or writable.
//
// Read-only is a property of the whole device: a mount flag says nothing about device files. So on this node a raw
// volume is published either read-only everywhere or writable everywhere, and a publish that differs is refused.
func (f *Filesystem) PublishBlock(ctx context.Context, volume string, dev Device, staging, target string, readonly bool) error {
	from, err := resolve(staging)
	if err != nil {
		return fmt.Errorf("publish %s: %w", dev, err)
	}
	to, err := resolve(target)
	if err != nil {
		return fmt.Errorf("publish %s: %w", dev, err)
	}
	ctx, cancel := context.WithTimeout(ctx, bindLimit)
	defer cancel()
	err = f.lanes.Do(ctx, to, func() error {
		source, mounted, err := f.top(from)
		if err != nil {
			return err
		}
		if !mounted {
			return fmt.Errorf("%w: %s; stage the volume first", ErrNotMounted, from)
		}
		if err := source.shown(volume, dev); err != nil {
			return err
		}
		return f.publishBlock(ctx, volume, dev, from, to, readonly)
	}, nil)
	if err != nil {
		return fmt.Errorf("publish %s at %s: %w", dev, target, err)
	}
	return nil
}

func (f *Filesystem) publishBlock(ctx context.Context, volume string, dev Device, from, to string, readonly bool) error {
	there, made, err := f.top(to)
	if err != nil {
		return err
	}
	if made {
		if err := there.shown(volume, dev); err != nil {
			return err
		}
		return f.isReadOnly(dev, readonly)
	}
	if err := f.protect(ctx, volume, dev, from, readonly); err != nil {
		return err
	}
	return f.bindBlock(ctx, volume, dev, from, to)
}

func (f *Filesystem) isReadOnly(dev Device, want bool) error {
	have, err := f.system.readOnly(dev)
	if err != nil {
		return fmt.Errorf("%w: whether it is read-only: %w", ErrUnreadable, err)
	}
	if have != want {
		return fmt.Errorf("%w: %s, wanted %s", ErrIncompatible, access(have), access(want))
	}
	return nil
}

// protect makes the device read-only or writable, unless a pod has it otherwise.
func (f *Filesystem) protect(ctx context.Context, volume string, dev Device, staging string, readonly bool) error {
	leave, err := f.lanes.Enter(ctx, "device "+dev.number())
	if err != nil {
		return err
	}
	defer leave()
	have, err := f.system.readOnly(dev)
	if err != nil || have == readonly {
		return err
	}
	places, err := f.BlockPlaces(volume)
	if err != nil {
		return err
	}
	for _, place := range places {
		if place != staging {
			return fmt.Errorf("%w: it is %s at %s, and a device is %s as a whole: unpublish it there first, or ask for the same",
				ErrShared, access(have), place, access(readonly))
		}
	}
	return f.setReadOnly(dev, readonly)
}

// setReadOnly tells the kernel and believes what it then reads.
func (f *Filesystem) setReadOnly(dev Device, readonly bool) error {
	if err := f.still(dev); err != nil {
		return err
	}
	if err := f.system.setReadOnly(dev.Path, readonly); err != nil {
		return fmt.Errorf("%w: make %s %s: %w", ErrUnreadable, dev, access(readonly), err)
	}
	have, err := f.system.readOnly(dev)
	if err == nil && have != readonly {
		err = fmt.Errorf("%w: the kernel keeps %s %s: the RDS may have write-protected it", ErrShared, dev, access(have))
	}
	return err
}

func access(readonly bool) string {
	if readonly {
		return "read-only"
	}
	return "writable"
}

func (f *Filesystem) bindBlock(ctx context.Context, volume string, dev Device, from, to string) error {
	if err := f.reachesHost(to); err != nil {
		return err
	}
	if err := emptyFile(to); err != nil {
		return err
	}
	if err := left(ctx); err != nil {
		return err
	}
	if err := f.system.bindFile(ctx, filepath.Join(from, blockFile), to); err != nil {
		return err
	}
	there, mounted, err := f.top(to)
	if err == nil && !mounted {
		return fmt.Errorf("%w: the mount table does not show it", ErrMount)
	}
	if err == nil {
		err = there.shown(volume, dev)
	}
	if err == nil {
		err = f.isDevice(to, dev)
	}
	if err != nil {
		err = errors.Join(err, f.system.unmount(to))
	}
	return err
}

// BlockPlaces are the places at which a raw volume is staged or published, or bound by kubelet, under whatever device
// number, as the mount table of this process has them.
func (f *Filesystem) BlockPlaces(volume string) ([]string, error) {
	mounts, err := f.mounts(func(i *mountinfo.Info) bool { return entry(i).Volume == volume })
	if err != nil {
		return nil, fmt.Errorf("cannot tell where %s is published: %w", volume, err)
	}
	places := make([]string, 0, len(mounts))
	for _, m := range mounts {
		places = append(places, m.Mountpoint)
	}
	return places, nil
}

// emptyFile makes a mount point for a file and refuses anything else.
func emptyFile(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		return file.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	if !info.Mode().IsRegular() || info.Size() != 0 {
		return fmt.Errorf("%w: %s is %s of %d bytes, not an empty file", ErrTarget, path, info.Mode(), info.Size())
	}
	return nil
}
