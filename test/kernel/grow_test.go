//go:build kernel

package kernel

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/nvme"
	"github.com/rds-csi/rds-csi/internal/sim"
)

func (p *plugin) expand(target string, size int64) error {
	reply, err := p.NodeExpandVolume(soon(p.t), &csi.NodeExpandVolumeRequest{
		VolumeId: p.id(), VolumePath: target, StagingTargetPath: p.staging, VolumeCapability: p.mode, CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	})
	if err == nil && reply.GetCapacityBytes() < size {
		p.t.Errorf("a success with %d bytes", reply.GetCapacityBytes())
	}
	return err
}

// fsBytes is what df says.
func fsBytes(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(path, &st))
	return int64(st.Blocks) * st.Bsize
}

// writers write files under a directory until they are stopped; the result checks every one of them.
func writers(t *testing.T, dir string) (stop func() (check func(dir string))) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	sums := map[string][sha256.Size]byte{}
	done := make(chan struct{})
	for w := range 2 {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				name := fmt.Sprintf("file-%d-%d", w, n%40)
				data := random(t, 64<<10)
				mu.Lock()
				delete(sums, name)
				mu.Unlock()
				f, err := os.Create(filepath.Join(dir, name))
				if err == nil {
					_, err = f.Write(data)
					err = errors.Join(err, f.Sync(), f.Close())
				}
				if err != nil {
					t.Errorf("write: %v", err)
					return
				}
				mu.Lock()
				sums[name] = sha256.Sum256(data)
				mu.Unlock()
			}
		})
	}
	return func() func(string) {
		close(done)
		all.Wait()
		return func(dir string) {
			t.Helper()
			if len(sums) < 4 {
				t.Errorf("only %d files were written, so this proved little", len(sums))
			}
			for name, want := range sums {
				if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || sha256.Sum256(b) != want {
					t.Errorf("%s is not what was written: %v", name, err)
				}
			}
		}
	}
}

// rawWriter writes a raw volume as a virtual machine does, through one file that stays open, near the beginning and at the end of
// what that file has by now: the last write is at its end. The result checks every block.
func rawWriter(t *testing.T, path string) (stop func() (check func(path string))) {
	t.Helper()
	disk, err := newDirect(path, os.O_RDWR)
	must(t, err)
	blocks, turn := written{}, int64(0) // the block's number on the device
	put := func() error {
		end, err := disk.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		for _, n := range []int64{turn % moveBlocks, end/moveBlock - 1 - turn%2} {
			data := random(t, moveBlock)
			if _, err := disk.WriteAt(data, n*moveBlock); err != nil {
				return err
			}
			blocks[n] = data
		}
		turn++
		return nil
	}
	must(t, put()) // before anything grows
	var all sync.WaitGroup
	done := make(chan struct{})
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := put(); err != nil {
				t.Errorf("write: %v", err)
				return
			}
		}
	})
	return func() func(string) {
		t.Helper()
		close(done)
		all.Wait()
		must(t, errors.Join(put(), put())) // one of them at the very end
		if last := deviceBytes(t, path)/moveBlock - 1; blocks[last] == nil {
			t.Errorf("the open file does not reach block %d, the last of the device", last)
		}
		must(t, disk.Close())
		return func(path string) {
			t.Helper()
			in := openDirect(t, path)
			blocks.verify(t, path, in)
			must(t, in.Close())
		}
	}
}

// deviceBytes is what who opens a device now sees.
func deviceBytes(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	n, err := f.Seek(0, io.SeekEnd)
	must(t, errors.Join(err, f.Close()))
	return n
}

func (c *claim) raw() bool { return c.mode.GetBlock() != nil }

// bytes is how large the volume is to the pod.
func (c *claim) bytes() int64 {
	c.s.t.Helper()
	if c.raw() {
		return deviceBytes(c.s.t, c.directory)
	}
	return fsBytes(c.s.t, c.directory)
}

// fileBytes is how large the RDS's target shows it.
func (c *claim) fileBytes() int64 {
	c.s.t.Helper()
	info, err := os.Stat(c.file())
	must(c.s.t, err)
	return info.Size()
}

// sound has a file system checked; what a raw volume holds only its user knows.
func (c *claim) sound() {
	c.s.t.Helper()
	if !c.raw() {
		c.fsck()
	}
}

// writers are those of the pod.
func (c *claim) writers() (stop func() (check func(path string))) {
	c.s.t.Helper()
	if c.raw() {
		return rawWriter(c.s.t, c.directory)
	}
	return writers(c.s.t, c.directory)
}

func TestGrowUnderIO(t *testing.T) {
	for fstype, fsck := range map[string][]string{"ext4": {"e2fsck", "-fn"}, "xfs": {"xfs_repair", "-n"}} {
		t.Run(fstype, func(t *testing.T) {
			p := newPlugin(t, "pvc-1", volumeSize, capability(oneWriter, fstype))
			target := mountPoint(t, "target")
			must(t, p.stage())
			must(t, p.publish(target, false))
			before := fsBytes(t, target)
			stop := writers(t, target)
			p.resize(2 * volumeSize)
			for range 2 {
				must(t, p.expand(target, 2*volumeSize))
			}
			must(t, p.expand(target, volumeSize)) // not required
			check := stop()
			if after := fsBytes(t, target); after < before+volumeSize*9/10 {
				t.Errorf("from %d to %d bytes", before, after)
			}
			check(target)
			must(t, p.unpublish(target))
			must(t, p.unstage())
			ns := connect(t, p.i, p.export)
			command(t, fsck[0], append(fsck[1:], ns.DevicePath)...)
			must(t, p.i.Disconnect(soon(t), p.nqn))
			must(t, p.stage())
			check(p.staging)
			must(t, p.unstage())
		})
	}
}

// A virtual machine has the device open all the time.
func TestGrowARawVolume(t *testing.T) {
	p := newPlugin(t, "pvc-1", 64*mib, capability(vm, ""))
	target := mountPoint(t, "target")
	must(t, p.stage())
	must(t, p.publish(target, false))
	ns, err := p.i.Find(p.nqn)
	must(t, err)
	open, err := os.OpenFile(ns.DevicePath, os.O_RDWR|unix.O_SYNC, 0)
	must(t, err)
	defer func() { _ = open.Close() }()
	p.resize(96 * mib)
	for range 2 {
		must(t, p.expand(target, 96*mib))
	}
	data := random(t, 4096)
	if _, err := open.WriteAt(data, 90*mib); err != nil {
		t.Errorf("beyond the old end: %v", err)
	}
	if dataBytes(t, p.file) != int64(len(data)) {
		t.Error("something else was written")
	}
	must(t, open.Close())
	must(t, p.unpublish(target))
	must(t, p.unstage())
}

// Growth as a user orders it, at the controller, under writes: the RDS makes the volume larger in each of the ways in which it
// might, and the node makes it so in the pod.
func TestGrowThroughTheController(t *testing.T) {
	for name, tt := range map[string]struct {
		pool, fstype string
		quirks       map[string]string
	}{
		"ext4 on Btrfs, seen when looked for":    {cowPool, "ext4", map[string]string{"growth-visible": "rescan"}},
		"xfs on Btrfs, announced":                {cowPool, "xfs", map[string]string{"growth-visible": "notify"}},
		"ext4 on xfs, announced":                 {copyPool, "ext4", map[string]string{"growth-visible": "notify"}},
		"xfs on xfs, growing bounces the export": {copyPool, "xfs", map[string]string{"resize-bounces-export": "yes"}},
		"raw on Btrfs, seen when looked for":     {cowPool, "", map[string]string{"growth-visible": "rescan"}},
		"raw on xfs, announced":                  {copyPool, "", map[string]string{"growth-visible": "notify"}},
		"raw on xfs, growing bounces the export": {copyPool, "", map[string]string{"resize-bounces-export": "yes"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := ""
			if tt.pool == cowPool {
				dir = btrfs(t)
			}
			s := newScene(t, dir, tt.pool, tt.quirks)
			c := s.create("grows", volumeSize, capability(oneWriter, tt.fstype), nil)
			c.up()
			before := c.bytes()
			stop := c.writers()
			c.expand(2 * volumeSize)
			eventually(t, "grown on the node", func() bool { // kubelet comes again while the connection is re-established
				err := c.nodeExpand(2 * volumeSize)
				if !errors.Is(err, nvme.ErrNotLive) {
					must(t, err)
				}
				return err == nil
			})
			c.expand(2 * volumeSize) // the resizer asks again
			must(t, c.nodeExpand(2*volumeSize))
			check := stop()
			if after := c.bytes(); after < before+volumeSize*9/10 {
				t.Errorf("from %d to %d bytes", before, after)
			}
			check(c.directory)
			c.down()
			c.sound()
			c.expand(3 * volumeSize) // while no node has it: grown when it is staged
			c.up()
			if after := c.bytes(); after < before+2*volumeSize*9/10 {
				t.Errorf("staged with %d bytes", after)
			}
			check(c.directory)
			c.down()
			c.remove()
			s.empty(tt.pool)
		})
	}
}

// user is a volume that is written while it grows, by a pod with a file system or by a virtual machine.
type user struct {
	*claim
	before int64
	stop   func() (check func(path string))
	check  func(path string)
}

// users have volumes of 512 MiB, twice as large by now on the RDS.
func (s *scene) users(fstypes ...string) (all []*user) {
	s.t.Helper()
	for _, fstype := range fstypes {
		c := s.create("grows-"+cmp.Or(fstype, "raw"), volumeSize, capability(oneWriter, fstype), nil)
		c.up()
		u := &user{claim: c, before: c.bytes()}
		u.stop = c.writers()
		c.expand(2 * volumeSize)
		all = append(all, u)
	}
	return all
}

// refuse asks the node for all of them, at once, for it takes as long as the kernel may take to notice that a target is silent. Each is
// refused, and told what to do; the pods keep what they had, export and all, and stop.
func refuse(t *testing.T, all []*user) {
	t.Helper()
	var asked sync.WaitGroup
	for _, u := range all {
		asked.Go(func() {
			err := u.nodeExpand(2 * volumeSize)
			if !refused(err) || !errors.Is(err, nvme.ErrOldSize) || !strings.Contains(err.Error(), "stop the pods") || !strings.Contains(err.Error(), "disconnected") {
				t.Errorf("%s: %v", u.slot(), err)
			}
		})
	}
	asked.Wait()
	for _, u := range all {
		exported := u.export()
		must(t, u.attach(nodeA)) // again
		if u.export().UUID != exported.UUID {
			t.Errorf("%s: exported anew while a pod has it", u.slot())
		}
		u.check = u.stop()
		u.check(u.directory)
		u.has(volumeSize)
	}
}

// has: as much of the RDS's size as a file system leaves to files.
func (u *user) has(size int64) {
	u.s.t.Helper()
	if got, want := u.bytes(), u.before+(size-volumeSize)*9/10; got < want || size == volumeSize && got != u.before {
		u.s.t.Errorf("%s: it has %d bytes, and had %d of %d", u.slot(), got, u.before, volumeSize)
	}
}

func (u *user) export() sim.Disk {
	on, _ := u.s.server.Device.Disk(u.slot())
	return on
}

// A target that shows growth to new connections only. Nothing is said to have grown while a pod has the volume; when the last pod has
// left, the same attachment and the same export show the new size at the next stage, where the file system grows, for nobody asks
// again. The driver cannot tell that this was enough: so the first attach after all nodes are detached exports it anew, once.
func TestGrowthThatIsSeenAfterReconnecting(t *testing.T) {
	s := newScene(t, btrfs(t), cowPool, map[string]string{"growth-visible": "reconnect", "identifiers-on-reexport": "change"})
	all := s.users("ext4", "")
	refuse(t, all)
	for _, u := range all {
		exported := u.export()
		u.leave()
		eventually(t, "the RDS shows the new size", func() bool { return u.fileBytes() == 2*volumeSize })
		must(t, u.stage())
		must(t, u.publish(false))
		if u.export().UUID != exported.UUID {
			t.Error("exported anew while it is attached")
		}
		u.has(2 * volumeSize)
		must(t, u.nodeExpand(2*volumeSize)) // kubelet, whose last attempt was refused
		u.check(u.directory)
		u.down()
		u.up()
		anew := u.export()
		u.has(2 * volumeSize)
		u.check(u.directory)
		u.down()
		must(t, u.attach(nodeA))
		if now := u.export(); anew.UUID == exported.UUID || now.UUID != anew.UUID {
			t.Errorf("%s is to be exported anew once: %s, %s, %s", u.slot(), exported.UUID, anew.UUID, now.UUID)
		}
		u.detach(nodeA)
		u.sound()
		u.remove()
	}
	s.empty(cowPool)
}

// A target that fixes the size of a namespace when it is enabled, as Linux does before 5.8 and so perhaps an RDS: no connection
// sees the growth until the item is exported anew. Nothing is said to have grown before it has, and nobody is cut off: neither a pod
// that writes, nor by an attach that is repeated. The first attach after that shows the new size, attached or not when it grew.
func TestGrowthThatNeedsAnotherExport(t *testing.T) {
	s := newScene(t, btrfs(t), cowPool, map[string]string{"growth-visible": "reexport", "identifiers-on-reexport": "change"})
	all := s.users("ext4", "")
	refuse(t, all)
	for _, u := range all {
		for size := 2 * volumeSize; size <= 3*volumeSize; size += volumeSize { // attached when it grew, and then detached
			u.down()
			u.expand(size)
			u.up()
			u.has(size)
			u.check(u.directory)
			must(t, u.nodeExpand(size)) // as kubelet does where the claim says that it has grown
		}
		u.down()
		u.sound()
		u.remove()
	}
	s.empty(cowPool)
}
