//go:build kernel

package kernel

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// written is what a volume is to hold: the newest content of each block that was written.
type written map[int64][]byte

const (
	moveBlock  = 8 << 10
	moveBlocks = 48
)

// rawDisk is a host's view of a raw volume.
type rawDisk interface {
	io.ReaderAt
	io.WriterAt
}

// write makes the blocks of one turn, some of them over what another host wrote.
func (w written) write(t *testing.T, to rawDisk, from, blocks int64) {
	t.Helper()
	for n := from; n < from+blocks; n++ {
		data := random(t, moveBlock)
		_, err := to.WriteAt(data, n*moveBlock)
		must(t, err)
		w[n] = data
	}
}

// verify: every write of every host is there, as the last one left it.
func (w written) verify(t *testing.T, who string, in io.ReaderAt) {
	t.Helper()
	for n, want := range w {
		got := make([]byte, moveBlock)
		if _, err := in.ReadAt(got, n*moveBlock); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: block %d is not what was written to it last: %v", who, n, err)
		}
	}
}

// direct is a device as qemu opens it for a migration: past the page cache, flushed.
type direct struct {
	*os.File
	buffer []byte // aligned
}

func openDirect(t *testing.T, path string) *direct {
	t.Helper()
	d, err := newDirect(path, os.O_RDWR)
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func newDirect(path string, access int) (*direct, error) {
	f, err := os.OpenFile(path, access|unix.O_DIRECT|unix.O_DSYNC, 0)
	if err != nil {
		return nil, err
	}
	buffer, err := unix.Mmap(-1, 0, moveBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &direct{f, buffer}, nil
}

// Close may be called again.
func (d *direct) Close() error { return errors.Join(d.File.Close(), unix.Munmap(d.buffer)) }

func (d *direct) WriteAt(p []byte, offset int64) (int, error) {
	return d.File.WriteAt(d.buffer[:copy(d.buffer, p)], offset)
}

func (d *direct) ReadAt(p []byte, offset int64) (int, error) {
	n, err := d.File.ReadAt(d.buffer[:len(p)], offset)
	return copy(p, d.buffer[:n]), err
}

// A virtual machine goes from one host to the other and back, in KubeVirt's order: the source writes, the target attaches and
// looks, the source stops, the target writes, the source detaches. The hosts are two kernels, each with its node plugin.
func TestLiveMigrationLosesNoWrite(t *testing.T) {
	b := newSecond(t)
	s := newScene(t, btrfs(t), cowPool, nil)
	said := kernelLog(t)
	c := s.create("vm", 64*mib, capability(vm, ""), nil)
	there := c.on(b)
	data := written{}
	c.up()
	here := openDirect(t, c.directory)

	// There: this node is the source.
	afar := moveTo(c, data, here, func() rawDisk {
		there.up()
		return b.openDirect(there.directory, os.O_RDWR)
	}).(rawThere)
	bothConnected(t, c, there, said())
	must(t, here.Close())
	c.down()
	data.verify(t, "the target, alone", afar)
	data.write(t, afar, 5, 10)

	// Back: this node is the target, and attaches while the other host writes.
	back := moveTo(c, data, afar, func() rawDisk {
		c.up()
		return openDirect(t, c.directory)
	}).(*direct)
	must(t, afar.Close())
	there.down()
	data.write(t, back, 30, 8)
	data.verify(t, "back home", back)
	must(t, back.Close())
	c.down()

	image, err := os.Open(c.file())
	must(t, err)
	data.verify(t, "the rds", image)
	must(t, image.Close())
	if n := dataBytes(t, c.file()); n != int64(len(data))*moveBlock {
		t.Errorf("%d bytes on the rds, %d were written: somebody else wrote too", n, len(data)*moveBlock)
	}
	c.remove()
	s.empty(cowPool)
}

// bothConnected: the target has let in two hosts, by its own kernel's word, and each has one controller, which is live.
func bothConnected(t *testing.T, here, there *claim, targetSaid string) {
	t.Helper()
	for c, who := range map[*claim]nvme.Host{here: ourHost(t), there: nvme.HostFor(driverName, clusterID, nodeB)} {
		if !strings.Contains(targetSaid, "for subsystem "+c.nqn()+" for NQN "+who.NQN) {
			t.Errorf("the target has not seen %s of %s connect: %s", who.NQN, c.name, targetSaid)
		}
		if got := c.controllers(c.nqn()); len(got) != 1 || got[0] != who.NQN+" live" {
			t.Errorf("controllers of %s on %s: %q", c.nqn(), c.name, got)
		}
	}
}

// moveTo is the middle of a migration: it ends with the target writing and the source idle, still attached.
func moveTo(c *claim, data written, source rawDisk, attached func() rawDisk) (target rawDisk) {
	t := c.s.t
	t.Helper()
	data.write(t, source, 0, moveBlocks/2)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	var busy sync.WaitGroup
	last := random(t, moveBlock)
	delete(data, moveBlocks)
	busy.Go(func() { // over and over, until the target is there
		defer close(stopped)
		for n := 0; ; n++ {
			copy(last, []byte{byte(n), byte(n >> 8)})
			if _, err := source.WriteAt(last, moveBlocks*moveBlock); err != nil {
				stopped <- err
				return
			}
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
		}
	})
	target = attached()
	var conflict *attach.ConflictError
	if err := c.attach("node-c"); !errors.As(err, &conflict) {
		t.Errorf("a third node: %v", err)
	}
	data.verify(t, "the target, while the source writes", target)
	close(stop)
	busy.Wait()
	must(t, <-stopped)
	data[moveBlocks] = bytes.Clone(last)
	data.verify(t, "the target, when the source has stopped", target)
	data.write(t, target, moveBlocks/4, moveBlocks/2) // half of it over the source's
	data.verify(t, "the source, before it detaches", source)
	return target
}

// A raw volume for readers: both hosts read the same, and nobody writes on either, whatever he opens.
func TestRawVolumeForReadersOnly(t *testing.T) {
	b := newSecond(t)
	s := newScene(t, btrfs(t), cowPool, nil)
	source := s.create("source", 64*mib, capability(oneWriter, ""), nil)
	source.up()
	data := written{}
	disk := openDirect(t, source.directory)
	data.write(t, disk, 0, moveBlocks)
	c := s.create("readers", 64*mib, capability(readers, ""), fromSnapshot(source.snapshot("taken")))
	data.write(t, disk, moveBlocks, 4) // no longer in it
	must(t, disk.Close())
	source.down()
	for n := range int64(4) {
		data[moveBlocks+n] = make([]byte, moveBlock)
	}
	before := c.sum()
	c.up()
	there := c.on(b)
	there.up()
	afar := b.openDirect(there.directory, os.O_RDONLY)
	data.verify(t, "the other host", afar)
	must(t, afar.Close())
	if said := b.shell("dd if=/dev/zero of=" + there.directory + " bs=4k count=1 oflag=direct 2>&1 || true"); !strings.Contains(said, "not permitted") && !strings.Contains(said, "denied") {
		t.Errorf("a write on the other host: %s", said)
	}
	in, err := os.Open(c.directory)
	must(t, err)
	data.verify(t, "this host", in)
	must(t, in.Close())
	ns, err := s.i.Find(c.nqn())
	must(t, err)
	for _, path := range []string{c.directory, ns.DevicePath} {
		err := pwrite(t, path, 0, make([]byte, 4096))
		if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EROFS) {
			t.Errorf("a write to %s: %v", path, err)
		}
	}
	c.down()
	there.down()
	if c.sum() != before {
		t.Error("something was written")
	}
}
