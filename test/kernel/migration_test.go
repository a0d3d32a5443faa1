//go:build kernel

package kernel

import (
	"bytes"
	"errors"
	"io"
	"os"
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
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT|unix.O_DSYNC, 0)
	must(t, err)
	buffer, err := unix.Mmap(-1, 0, moveBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	t.Cleanup(func() { _ = f.Close(); _ = unix.Munmap(buffer) })
	return &direct{f, buffer}
}

func (d *direct) WriteAt(p []byte, offset int64) (int, error) {
	return d.File.WriteAt(d.buffer[:copy(d.buffer, p)], offset)
}

func (d *direct) ReadAt(p []byte, offset int64) (int, error) {
	n, err := d.File.ReadAt(d.buffer[:len(p)], offset)
	return copy(p, d.buffer[:n]), err
}

func otherHost() nvme.Host { return nvme.HostFor("rds.csi.test", "cluster", nodeB) }

// A virtual machine goes from one host to the other and back, in KubeVirt's order: the source writes, the target attaches and
// looks, the source stops, the target writes, the source detaches. The other host is another session at the RDS; the ways of
// kubelet, controller and RDS are the real ones.
func TestLiveMigrationLosesNoWrite(t *testing.T) {
	s := newScene(t, btrfs(t), cowPool, nil)
	c := s.create("vm", 64*mib, capability(vm, ""), nil)
	data := written{}
	c.up()
	here := openDirect(t, c.directory)

	// There: this node is the source.
	there := moveTo(c, data, here, func() rawDisk {
		must(t, c.attach(nodeB))
		return newSession(t, otherHost(), c.published)
	}).(*session)
	must(t, here.Close())
	c.down()
	data.verify(t, "the target, alone", there)
	data.write(t, there, 5, 10)

	// Back: this node is the target, and attaches while the other host writes.
	back := moveTo(c, data, there, func() rawDisk {
		c.up()
		return openDirect(t, c.directory)
	}).(*direct)
	there.close()
	c.detach(nodeB)
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

// A raw volume for readers: both hosts read the same, and nobody writes on this node, whatever he opens.
func TestRawVolumeForReadersOnly(t *testing.T) {
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
	must(t, c.attach(nodeB))
	data.verify(t, "the other host", newSession(t, otherHost(), c.published))
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
	if c.sum() != before {
		t.Error("something was written")
	}
}
