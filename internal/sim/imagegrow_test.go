package sim

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// sees waits until those who connect to item a see so many MiB, and proves that the table says the same as ever.
func (d *Device) sees(t *testing.T, seen, table int64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for {
		a, _ := d.Disk("a")
		info, err := os.Stat(a.HostFile)
		if err != nil || a.FileSize != table<<20 {
			t.Fatalf("the table says %d bytes (%v)", a.FileSize, err)
		}
		if info.Size() == seen<<20 {
			_ = d.Disks() // whoever made the file larger is done with what comes after
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("hosts see %d bytes, not %d MiB", info.Size(), seen)
		}
	}
}

// looks lets the device look at its connections as it does all the time.
func (d *Device) looks() {
	d.mu.Lock()
	id := d.flash.Disks[0].ID
	d.mu.Unlock()
	d.waits(id)
}

// hosts are entries that this kernel has of the connections of its hosts, or of its target.
type hosts struct {
	k   *fakeKernel
	dir string
}

func (h hosts) connect(name string) {
	h.k.t.Helper()
	made := filepath.Join(h.k.t.TempDir(), name) // beside one that may have the name still: it gets an inode of its own
	h.k.must(os.Mkdir(made, 0o750))
	h.k.must(os.WriteFile(filepath.Join(made, "subsysnqn"), []byte("nqn.a\n"), 0o600))
	path := filepath.Join(h.k.root, h.dir, name)
	h.k.must(os.MkdirAll(filepath.Dir(path), 0o750))
	if exists(path) {
		h.k.must(os.Rename(path, filepath.Join(h.k.t.TempDir(), "old")))
	}
	h.k.must(os.Rename(made, path))
}

func (h hosts) disconnect(name string) {
	h.k.t.Helper()
	h.k.must(os.RemoveAll(filepath.Join(h.k.root, h.dir, name)))
}

const (
	ofTarget = "sys/kernel/debug/nvmet/nqn.a"
	ofHosts  = "sys/class/nvme"
)

// Growth that is seen after reconnecting waits for all who were connected, and for nobody else.
func TestGrowthWaitsForThoseWhoAreConnected(t *testing.T) {
	for _, dir := range []string{ofTarget, ofHosts} {
		t.Run(dir, func(t *testing.T) {
			k := newFakeKernel(t)
			o, h := k.options(), hosts{k, dir}
			o.Quirks[quirkGrowthVisible] = reconnect
			d := device(t, o)
			d.quiet(t, addExported)
			h.connect("ctrl1")
			h.connect("ctrl2")
			d.quiet(t, `/disk/set a file-size=2M comment=grown`)
			d.looks()
			d.sees(t, 1, 2)
			h.disconnect("ctrl1")
			h.connect("ctrl3")
			d.quiet(t, `/disk/set a comment=again`)
			d.looks()
			d.sees(t, 1, 2)
			k.take()
			h.connect("ctrl2") // another connection, of the same name
			d.sees(t, 2, 2)    // and nobody asked
			if !slices.Contains(k.take(), "write subsystems/nqn.a/namespaces/1/revalidate_size 1") {
				t.Error("ctrl3 is not told, and would keep the old size")
			}
			d.quiet(t, `/disk/set a file-size=3M`)
			d.quiet(t, `/disk/set a file-size=4M`)
			d.looks()
			d.sees(t, 2, 4)
			h.disconnect("ctrl2")
			h.disconnect("ctrl3")
			d.sees(t, 4, 4)
			d.quiet(t, `/disk/set a file-size=5M`) // nobody is connected
			d.sees(t, 5, 5)
		})
	}
}

// Without a target it is the hosts that a test pretends.
func TestGrowthWaitsForPretendedHosts(t *testing.T) {
	d := device(t, Options{Users: admin(), Quirks: map[string]string{quirkGrowthVisible: reconnect}})
	d.quiet(t, addExported)
	d.PretendHosts("a", 1)
	d.quiet(t, `/disk/set a file-size=2M`)
	d.PretendHosts("a", 2)
	d.looks()
	d.sees(t, 1, 2)
	d.PretendHosts("a", 0)
	d.PretendHosts("a", 1)
	if info, err := os.Stat(filepath.Join(d.dir, "files/storage-pool/a.img")); err != nil || info.Size() != 2<<20 {
		t.Errorf("the next connection sees %v (%v)", info, err)
	}
}

// What ends the export ends the wait: the next one has the size that the table says, and so has the file without an export.
func TestNoGrowthIsHiddenWithoutAnExport(t *testing.T) {
	for what, do := range map[string]func(*testing.T, *Device){
		"no export": func(t *testing.T, d *Device) { d.quiet(t, `/disk/set a nvme-tcp-export=no`) },
		"disabled":  func(t *testing.T, d *Device) { d.quiet(t, `/disk/disable a`) },
		"another name": func(t *testing.T, d *Device) {
			d.quiet(t, `/disk/set a nvme-tcp-server-nqn=nqn.b`)
		},
		"reboot": func(t *testing.T, d *Device) {
			if err := d.Reboot(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"growth that bounces the export": func(t *testing.T, d *Device) {
			if err := d.SetQuirk(quirkResizeBouncesExport, yes); err != nil {
				t.Fatal(err)
			}
			d.quiet(t, `/disk/set a file-size=3M`)
			d.quiet(t, `/disk/set a file-size=3M`)
		},
	} {
		for _, value := range []string{reconnect, reexport} {
			t.Run(what+", "+value, func(t *testing.T) {
				k := newFakeKernel(t)
				o, h := k.options(), hosts{k, ofHosts}
				o.Quirks[quirkGrowthVisible] = value
				d := device(t, o)
				d.quiet(t, addExported)
				h.connect("nvme0")
				d.quiet(t, `/disk/set a file-size=2M`)
				d.sees(t, 1, 2)
				do(t, d)
				a, _ := d.Disk("a")
				if info, err := os.Stat(a.HostFile); err != nil || info.Size() != a.FileSize {
					t.Errorf("the file has %d bytes (%v), the table says %d", info.Size(), err, a.FileSize)
				}
				d.quiet(t, `/disk/remove a`)
			})
		}
	}
	for _, value := range []string{reconnect, reexport} {
		d := device(t, Options{Users: admin(), Quirks: map[string]string{quirkGrowthVisible: value}})
		d.quiet(t, addExported)
		d.PretendHosts("a", 1)
		d.quiet(t, `/disk/set a file-size=2M`)
		a, _ := d.Disk("a")
		d.quiet(t, `/disk/remove a`)
		if info, err := os.Stat(a.HostFile); err != nil || info.Size() != 2<<20 {
			t.Errorf("%s: what is left of a removed item is %v (%v)", value, info, err)
		}
	}
}
