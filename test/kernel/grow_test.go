//go:build kernel

package kernel

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/internal/nvme"
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

// A target that keeps the size which a connection began with: refused while a pod has it, there with the next connection,
// where the file system grows at stage, for nobody asks again.
func TestGrowthThatIsSeenAfterReconnecting(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			p := newPlugin(t, "pvc-1", volumeSize, capability(oneWriter, fstype))
			target := mountPoint(t, "target")
			must(t, p.stage())
			must(t, p.publish(target, false))
			write(t, target+"/data", "precious")
			before := fsBytes(t, target)
			must(t, os.Truncate(p.file, 2*volumeSize)) // the loop device does not look at its file
			if fstype == "ext4" {                      // the device's part in it, which takes as long as the kernel may take to tell a silent target
				if err := p.expand(target, 2*volumeSize); !refused(err) || !errors.Is(err, nvme.ErrOldSize) || !strings.Contains(err.Error(), "stop the pods") {
					t.Errorf("%v", err)
				}
			}
			if after := fsBytes(t, target); after != before {
				t.Errorf("from %d to %d", before, after)
			}
			must(t, p.unpublish(target))
			must(t, p.unstage())
			must(t, unix.IoctlSetInt(int(p.loop.Fd()), unix.LOOP_SET_CAPACITY, 0))
			p.set(p.namespace()+"/revalidate_size", "1")
			must(t, p.stage())
			if after := fsBytes(t, p.staging); after < before+volumeSize*9/10 {
				t.Errorf("staged with %d bytes, before %d", after, before)
			}
			must(t, p.publish(target, false))
			must(t, p.expand(target, 2*volumeSize))
			if read(t, target+"/data") != "precious" {
				t.Error("data lost")
			}
			must(t, p.unpublish(target))
			must(t, p.unstage())
		})
	}
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
	} {
		t.Run(name, func(t *testing.T) {
			dir := ""
			if tt.pool == cowPool {
				dir = btrfs(t)
			}
			s := newScene(t, dir, tt.pool, tt.quirks)
			c := s.create("grows", volumeSize, capability(oneWriter, tt.fstype), nil)
			c.up()
			before := fsBytes(t, c.directory)
			stop := writers(t, c.directory)
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
			if after := fsBytes(t, c.directory); after < before+volumeSize*9/10 {
				t.Errorf("from %d to %d bytes", before, after)
			}
			check(c.directory)
			c.down()
			c.fsck()
			c.expand(3 * volumeSize) // while no node has it: grown when it is staged
			c.up()
			if after := fsBytes(t, c.directory); after < before+2*volumeSize*9/10 {
				t.Errorf("staged with %d bytes", after)
			}
			check(c.directory)
			c.down()
			c.remove()
			s.empty(tt.pool)
		})
	}
}

// A target that fixes the size of a namespace when it is enabled, as Linux does before 5.8 and so perhaps an RDS: no connection
// sees the growth until the item is exported anew. Nothing is said to have grown before it has, and nobody is cut off: neither a pod
// that writes, nor by an attach that is repeated. The first attach after that shows the new size, attached or not when it grew.
func TestGrowthThatNeedsAnotherExport(t *testing.T) {
	s := newScene(t, btrfs(t), cowPool, map[string]string{"growth-visible": "reexport", "identifiers-on-reexport": "change"})
	c := s.create("grows", volumeSize, capability(oneWriter, "ext4"), nil)
	c.up()
	before := fsBytes(t, c.directory)
	exported, _ := s.server.Device.Disk(c.slot())
	stop := writers(t, c.directory)
	c.expand(2 * volumeSize)
	if err := c.nodeExpand(2 * volumeSize); !errors.Is(err, nvme.ErrOldSize) || !strings.Contains(err.Error(), "stop the pods") {
		t.Errorf("%v", err)
	}
	must(t, c.attach(nodeA)) // again
	check := stop()
	check(c.directory)
	if after := fsBytes(t, c.directory); after != before {
		t.Errorf("from %d to %d bytes", before, after)
	}
	if now, _ := s.server.Device.Disk(c.slot()); now.UUID != exported.UUID {
		t.Error("exported anew while a pod has it")
	}
	for size := 2 * volumeSize; size <= 3*volumeSize; size += volumeSize { // attached when it grew, and then detached
		c.down()
		c.expand(size)
		c.up()
		if after := fsBytes(t, c.directory); after < before+(size-volumeSize)*9/10 {
			t.Errorf("staged with %d bytes, before %d", after, before)
		}
		check(c.directory)
		must(t, c.nodeExpand(size)) // as kubelet does where the claim says that it has grown
	}
	c.down()
	c.fsck()
	c.remove()
	s.empty(cowPool)
}
