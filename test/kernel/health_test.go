//go:build kernel

package kernel

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func (p *plugin) stats(ctx context.Context, path string) (map[csi.VolumeUsage_Unit]*csi.VolumeUsage, error) {
	reply, err := p.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: p.id(), VolumePath: path})
	usage := map[csi.VolumeUsage_Unit]*csi.VolumeUsage{}
	for _, u := range reply.GetUsage() {
		usage[u.GetUnit()] = u
	}
	return usage, err
}

// health answers the reasons.
func (p *plugin) health(target string) []string {
	p.t.Helper()
	reply, err := p.NodeGetVolumeHealth(soon(p.t), &csi.NodeGetVolumeHealthRequest{
		VolumeId: p.id(), StagingTargetPath: p.staging, VolumePublishPath: target,
	})
	must(p.t, err)
	var reasons []string
	for _, e := range reply.GetVolumeHealth().GetHealthStatuses() {
		reasons = append(reasons, e.GetReason())
	}
	return reasons
}

func (p *plugin) storage() []string {
	p.t.Helper()
	reply, err := p.NodeGetStorageHealth(soon(p.t), &csi.NodeGetStorageHealthRequest{})
	must(p.t, err)
	var reasons []string
	for _, e := range reply.GetBackendHealth() {
		reasons = append(reasons, e.GetReason())
		p.t.Logf("%s %s: %s", e.GetStatus(), e.GetReason(), e.GetMessage())
	}
	return reasons
}

func (p *plugin) expect(target string, reasons ...string) {
	p.t.Helper()
	if got := p.health(target); !slices.Equal(got, reasons) {
		p.t.Errorf("%q, want %q", got, reasons)
	}
}

func TestStats(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			p := newPlugin(t, "pvc-1", volumeSize, capability(oneWriter, fstype))
			target := mountPoint(t, "target")
			must(t, p.stage())
			must(t, p.publish(target, false))
			before, err := p.stats(soon(t), target)
			must(t, err)
			must(t, os.WriteFile(target+"/data", random(t, 8<<20), 0o600))
			write(t, target+"/more", "synced")
			after, err := p.stats(soon(t), target)
			must(t, err)
			b, a := before[csi.VolumeUsage_BYTES], after[csi.VolumeUsage_BYTES]
			if grown := a.GetUsed() - b.GetUsed(); grown < 8*mib || grown > 12*mib || a.GetTotal() != fsBytes(t, target) || a.GetAvailable() >= b.GetAvailable() {
				t.Errorf("before %v, after %v", b, a)
			}
			if n := after[csi.VolumeUsage_INODES].GetUsed() - before[csi.VolumeUsage_INODES].GetUsed(); n != 2 {
				t.Errorf("%d inodes for two files", n)
			}
			must(t, p.unpublish(target))
			must(t, p.unstage())
		})
	}
	p := newPlugin(t, "pvc-2", 32*mib, capability(oneWriter, ""))
	target := mountPoint(t, "target")
	must(t, p.stage())
	must(t, p.publish(target, false))
	if u, err := p.stats(soon(t), target); err != nil || u[csi.VolumeUsage_BYTES].GetTotal() != 32*mib {
		t.Errorf("%v %v", u, err)
	}
	must(t, p.unpublish(target))
	must(t, p.unstage())
}

// The target falls silent under a mounted, dirty volume: statistics and health answer in time, whether or not the file
// system does, and say what is the matter once the kernel has noticed. Then it comes back, and all is well.
func TestStatsAndHealthUnderASilentTarget(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			p := newPlugin(t, "pvc-1", volumeSize, capability(oneWriter, fstype))
			s := newSilencer(t, p.export)
			own := p.port
			p.port = s.target(p.export).Port
			target := mountPoint(t, "target")
			must(t, p.stage())
			must(t, p.publish(target, false))
			p.expect(target)
			if got := p.storage(); len(got) != 0 {
				t.Errorf("%q", got)
			}
			s.freeze(true)
			var pod sync.WaitGroup // it writes, and waits in the kernel
			pod.Go(func() {
				if err := os.WriteFile(target+"/dirty", []byte(strings.Repeat("data", 1<<18)), 0o600); err != nil {
					t.Errorf("a write: %v", err)
				}
			})
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				began := time.Now()
				if _, err := p.stats(ctx, target); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("answered after %v", took)
				}
				cancel()
			}
			eventually(t, "the kernel notices", func() bool { return slices.Equal(p.health(target), []string{"SessionNotLive"}) })
			if got := p.storage(); !slices.Equal(got, []string{"RDSUnreachable"}) {
				t.Errorf("%q", got)
			}
			s.freeze(false)
			pod.Wait()
			eventually(t, "it is live again", func() bool { return len(p.health(target)) == 0 })
			if _, err := p.stats(soon(t), target); err != nil {
				t.Error(err)
			}
			must(t, p.unpublish(target))
			must(t, p.unstage())
			p.port = own
		})
	}
}

// The export is gone under a listening port: the kernel gives up, and the way out is said.
func TestHealthOfAVolumeWhoseExportIsGone(t *testing.T) {
	p, keep := newPlugin(t, "pvc-1", volumeSize, capability(oneWriter, "ext4")), newExport(t, "pvc-2", 32*mib)
	p.also(keep)
	target := mountPoint(t, "target")
	must(t, p.stage())
	must(t, p.publish(target, false))
	p.down()
	eventually(t, "the kernel gives up", func() bool { return slices.Equal(p.health(target), []string{"ConnectionLost"}) })
	if _, err := p.stats(soon(t), target); !refused(err) || !strings.Contains(err.Error(), "stop the pods") {
		t.Errorf("%v", err)
	}
	p.up()
	must(t, p.unpublish(target))
	must(t, p.publish(target, false))
	p.expect(target)
	must(t, p.unpublish(target))
	must(t, p.unstage())
	if _, err := p.NodeGetVolumeHealth(soon(t), &csi.NodeGetVolumeHealthRequest{VolumeId: p.id(), StagingTargetPath: p.staging}); !refused(err) {
		t.Errorf("of a volume that is not here: %v", err)
	}
}

// A file system that the kernel stopped trusting.
func TestHealthOfAFilesystemWithErrors(t *testing.T) {
	t.Run("ext4", func(t *testing.T) {
		p := newPlugin(t, "pvc-1", volumeSize, capability(oneWriter, "ext4"))
		p.mode.GetMount().MountFlags = []string{"errors=remount-ro"}
		target := mountPoint(t, "target")
		must(t, p.stage())
		must(t, p.publish(target, false))
		mounted := time.Now().Unix()
		eventually(t, "the next second, which is how exactly ext4 notes times", func() bool { return time.Now().Unix() > mounted })
		ns, err := p.i.Find(p.nqn)
		must(t, err)
		must(t, os.WriteFile(filepath.Join("/sys/fs/ext4", ns.Name, "trigger_fs_error"), []byte("test"), 0o200))
		eventually(t, "it turns read-only", func() bool { return os.WriteFile(target+"/x", nil, 0o600) != nil })
		p.expect(target, "FilesystemReadOnly", "FilesystemErrors")
		must(t, p.unpublish(target))
		must(t, p.unstage())
		must(t, p.stage()) // its data is there all the same
		p.expect("", "FilesystemErrors")
		must(t, p.unstage())
	})
	t.Run("xfs", func(t *testing.T) {
		p := newPlugin(t, "pvc-1", volumeSize, capability(oneWriter, "xfs"))
		must(t, p.stage())
		shutdown(t, p.staging)
		p.expect("", "FilesystemShutDown")
		must(t, p.unstage())
		must(t, p.stage())
		p.expect("")
		must(t, p.unstage())
	})
	t.Run("device smaller than its file system", func(t *testing.T) {
		p := newPlugin(t, "pvc-1", volumeSize, capability(oneWriter, "ext4"))
		must(t, p.stage())
		write(t, p.staging+"/data", "precious")
		p.resize(volumeSize / 2)
		eventually(t, "the node sees it", func() bool {
			ns, err := p.i.Find(p.nqn)
			return err == nil && ns.SizeBytes == volumeSize/2
		})
		p.expect("", "DeviceTooSmall")
		p.resize(volumeSize)
		eventually(t, "the node sees it", func() bool {
			ns, err := p.i.Find(p.nqn)
			return err == nil && ns.SizeBytes == volumeSize
		})
		p.expect("")
		must(t, p.unstage())
	})
	if _, err := os.Stat("/sys/fs/ext4/features"); errors.Is(err, fs.ErrNotExist) {
		t.Error("no ext4 in sysfs, so this proved less")
	}
}
