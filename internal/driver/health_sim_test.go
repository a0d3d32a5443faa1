package driver_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim"
)

// spoiled is what happens to a volume of 64 MiB on a device, and what is to be told of it and of another volume beside it.
type spoiled struct {
	options sim.Options
	change  func(r *rig, slot string)
	want    []string // of the volume
	beside  []string // of the other one
	words   []string // of the first message
	extra   int      // commands beyond two for one and two for all
}

// by is somebody at the device's console.
func by(types func(hand *routeros.Builder, slot routeros.Value)) func(*rig, string) {
	return func(r *rig, slot string) {
		hand := routeros.NewScript("by_hand")
		types(hand, routeros.Text(slot))
		r.run(hand)
	}
}

// fill leaves so much of a pool of 1 GiB with two volumes, the file system's own needs included.
func fill(left int64) func(*rig, string) {
	return by(func(hand *routeros.Builder, _ routeros.Value) {
		hand.Add(`/disk add type=file slot=filler file-path=/storage-pool/filler.img mount-filesystem=no file-size=?`, routeros.Number(gib-128*mib-left))
	})
}

func array(state string, failed ...int) func(*rig, string) {
	return func(r *rig, _ string) {
		if !r.server.Device.SetPoolState("storage-pool", state, failed...) {
			r.t.Fatal("no such pool, or no such member")
		}
	}
}

func poolOf(filesystem string) sim.Options {
	return sim.Options{Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: filesystem, SizeBytes: gib}}}
}

// onTheRDS is all that a device can have against a volume, done to it as it happens: at its console, or to its hardware.
func onTheRDS() map[string]spoiled {
	toBoth := func(reasons ...string) spoiled { return spoiled{want: reasons, beside: reasons} }
	pool := func(filesystem string, change func(*rig, string), s spoiled, words ...string) spoiled {
		s.options, s.change, s.words = poolOf(filesystem), change, words
		return s
	}
	lostImage := func(item string, extra int) spoiled {
		return spoiled{
			options: sim.Options{Quirks: map[string]string{"image-gone": item}}, extra: extra,
			change: by(func(hand *routeros.Builder, slot routeros.Value) {
				hand.Add(`:local p [/disk get [find slot=?] file-path]; :set p [:pick $p 1 [:len $p]]; /file remove [find where name=$p]`, slot)
			}),
			want: []string{"INACCESSIBLE ImageGone"}, words: []string{"volume.img", "backup"},
		}
	}
	return map[string]spoiled{
		"well": {change: func(*rig, string) {}},
		"the export is off": {
			change: by(func(hand *routeros.Builder, slot routeros.Value) {
				hand.Add(`/disk set [find slot=?] nvme-tcp-export=no`, slot)
			}),
			want: []string{"INACCESSIBLE NotExported"}, words: []string{"nvme-tcp-export=yes"},
		},
		"the disk item is gone": {
			change: by(func(hand *routeros.Builder, slot routeros.Value) { hand.Add(`/disk remove [find slot=?]`, slot) }),
			want:   []string{"INACCESSIBLE DiskItemGone"}, words: []string{"file-path"}, extra: -1, // no look at a pool
		},
		"the image is gone":                  lostImage("size-stays", 0),
		"the image is gone, and so the size": lostImage("no-size", 1), // one more: the list says more than the item
		"mount-filesystem is on": {
			change: by(func(hand *routeros.Builder, slot routeros.Value) {
				hand.Add(`/disk set [find slot=?] mount-filesystem=yes`, slot)
			}),
			want: []string{"DEGRADED MountFilesystemOn"}, words: []string{"mount-filesystem=no"},
		},
		"made smaller": {
			options: sim.Options{Quirks: map[string]string{"shrink": "accept"}}, change: by(func(hand *routeros.Builder, slot routeros.Value) {
				hand.Add(`/disk set [find slot=?] file-size=32M`, slot)
			}),
			want: []string{"DATA_LOSS DiskItemTooSmall"}, words: []string{"33554432", "67108864"},
		},
		"refused to be made smaller": {
			options: sim.Options{Quirks: map[string]string{"shrink": "refuse"}}, change: by(func(hand *routeros.Builder, slot routeros.Value) {
				hand.Add(`:onerror e in={/disk set [find slot=?] file-size=32M} do={}`, slot)
			}),
		},
		"a drive failed, and the array says so":              pool("btrfs", array("clean, degraded", 2), toBoth("DEGRADED PoolDegraded"), "nvme3", "clean, degraded"),
		"a drive failed, and the array does not":             pool("xfs", array("clean", 0, 3), toBoth("DEGRADED PoolDegraded"), "nvme1, nvme4"),
		"the array says something":                           pool("btrfs", array("clean, sync:repair, resync = 3%"), toBoth("DEGRADED PoolDegraded"), "sync:repair"),
		"the pool is nearly full":                            pool("btrfs", fill(32*mib), toBoth("DEGRADED PoolNearlyFull"), "snapshots first"),
		"the pool is full":                                   pool("btrfs", fill(5*mib), toBoth("DEGRADED PoolFull"), "snapshots first"),
		"the pool is full, and all images have their blocks": pool("xfs", fill(9*mib), spoiled{}),
	}
}

// Against the device itself, by both calls alike: a file system and a raw block volume, of which the RDS knows as little.
func TestHealthOnTheRDS(t *testing.T) {
	for name, c := range onTheRDS() {
		t.Run(name, func(t *testing.T) {
			r := start(t, c.options)
			id, other := r.raw("pvc-1"), r.create("pvc-2")
			r.Claimed = func() ([]string, bool) { return []string{id, other}, true }
			r.Promised = func(string) int64 { return 64 * mib }
			c.change(r, strings.TrimPrefix(id, rds1+"/"))
			before := len(r.server.Device.Commands())
			reply, err := r.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id})
			if err != nil || !slices.Equal(conditions(t, reply.GetVolumeHealth()), c.want) {
				t.Fatalf("got %v, %v; want %v", reply, err, c.want)
			}
			for _, w := range c.words {
				if m := reply.GetVolumeHealth().GetHealthStatuses()[0].GetMessage(); !strings.Contains(m, w) {
					t.Errorf("%q does not tell %q", m, w)
				}
			}
			all, err := r.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{})
			if err != nil {
				t.Fatal(err)
			}
			listed := map[string][]string{}
			for _, h := range all.GetEntries() {
				listed[h.GetVolumeId()] = conditions(t, h)
			}
			if !slices.Equal(listed[id], c.want) || !slices.Equal(listed[other], c.beside) {
				t.Errorf("the list has %v", listed)
			}
			if n := len(r.server.Device.Commands()) - before; n != 4+c.extra {
				t.Errorf("%d commands", n)
			}
		})
	}
}

// raw makes a raw block volume of 64 MiB.
func (r *rig) raw(name string) string {
	r.t.Helper()
	req := createRequest(name, 64*mib)
	req.VolumeCapabilities[0].AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	reply, err := r.CreateVolume(r.t.Context(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	return reply.GetVolume().GetVolumeId()
}

// run is somebody at the device's console.
func (r *rig) run(command *routeros.Builder) {
	r.t.Helper()
	script, err := command.Build()
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.client.Run(r.t.Context(), script); err != nil {
		r.t.Fatal(err)
	}
}
