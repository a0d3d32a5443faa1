package appliance_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/routeros"
)

// A job that was not begun leaves nothing behind: no claim that keeps the volume from its nodes, and no volume without its export.
func TestACopyThatIsNotBegunIsTakenBack(t *testing.T) {
	slot := appliance.SlotFor("homelab", "pvc-1")
	d := odd{
		"/disk": {rows: numbered([]row{
			{"slot": "storage-pool", "mount-point": "storage-pool", "fs": "xfs", "free": int64(10 * gib)},
			{"slot": slot, "type": "file", "comment": "rds-csi/1 cluster=homelab name=pvc-1", "file-path": "/storage-pool/k8s/" + slot + ".img", "size": int64(gib), "mount-filesystem": false, "nvme-tcp-export": true},
		})},
		"/file": {rows: numbered([]row{{"name": "storage-pool/k8s"}, {"name": "storage-pool/k8s/" + slot + ".img", "size": int64(gib)}})},
	}
	_, err := over(t, d).CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: slot})
	if !errors.Is(err, appliance.ErrAnswer) || !strings.Contains(err.Error(), "begun") {
		t.Errorf("%v", err)
	}
	if export := d["/disk"].rows[1]["nvme-tcp-export"]; export != "yes" || len(d["/file"].rows) != 2 {
		t.Errorf("export %v, files %v", export, d["/file"].rows)
	}
}

// A snapshot that the RDS says to have taken, and that nobody sees, is none, and no copy either.
func TestASnapshotThatIsNotSeenIsNone(t *testing.T) {
	slot := appliance.SlotFor("homelab", "pvc-1")
	image := "storage-pool/k8s/" + slot + "/volume.img"
	subvolumes := &table{rows: numbered([]row{{"name": slot, "fullname": "k8s/" + slot, "fs": "label", "dead": false}}), deaf: true}
	d := odd{
		"/disk": {rows: numbered([]row{
			{"slot": "storage-pool", "mount-point": "storage-pool", "fs": "btrfs", "fs-label": "label"},
			{"slot": slot, "type": "file", "comment": "rds-csi/1 cluster=homelab name=pvc-1", "file-path": "/" + image, "size": int64(gib), "mount-filesystem": false},
		})},
		"/file":                 {rows: numbered([]row{{"name": image, "size": int64(gib)}})},
		"/disk/btrfs/subvolume": subvolumes,
	}
	s, err := over(t, d).CreateSnapshot(t.Context(), appliance.SnapshotRequest{Name: "snapshot-1", Source: slot})
	if !errors.Is(err, appliance.ErrAnswer) || !strings.Contains(err.Error(), "not seen") || len(d["/file"].rows) != 1 {
		t.Errorf("%+v, %v, files %v", s, err, d["/file"].rows)
	}
}

// An item is finished by the create that began it and by no other, and only when its size is known: what is compared is a number.
func TestWhatIsNotOursToFinishIsNot(t *testing.T) {
	source, slot := appliance.SlotFor("homelab", "pvc-1"), appliance.SlotFor("homelab", "pvc-2")
	ours := "rds-csi/1 cluster=homelab name=pvc-2 from=" + source + " claim=a/b unfinished=yes"
	for name, c := range map[string]struct {
		change row
		want   error
	}{
		"it is ours":             {nil, nil},
		"no size":                {row{"file-size": nil}, appliance.ErrAnswer},
		"no size that is one":    {row{"file-size": "1GiB"}, appliance.ErrAnswer},
		"nothing":                {row{"file-size": int64(0)}, appliance.ErrAnswer},
		"of another source":      {row{"comment": strings.Replace(ours, source, "pvc-x", 1)}, appliance.ErrIncompatible},
		"of another cluster":     {row{"comment": strings.Replace(ours, "homelab", "other", 1)}, appliance.ErrForeign},
		"of a namesake's":        {row{"comment": strings.Replace(ours, "homelab", "homelab2", 1)}, appliance.ErrForeign},
		"finished in other ways": {row{"comment": ours + " note=x"}, appliance.ErrCopying},
	} {
		item := row{"slot": slot, "type": "file", "comment": ours, "file-path": "/storage-pool/k8s/" + slot + ".img", "size": int64(gib), "file-size": int64(gib), "mount-filesystem": false, "nvme-tcp-export": false}
		maps.Copy(item, c.change)
		before := maps.Clone(item)
		d := odd{"/disk": {rows: numbered([]row{{"slot": "storage-pool", "mount-point": "storage-pool", "fs": "xfs"}, item})}, "/file": {}}
		v, err := over(t, d).Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: source}})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v, want %v", name, v, err, c.want)
		}
		after := maps.Clone(d["/disk"].rows[1])
		delete(after, ".id")
		if changed := !maps.Equal(before, after); changed != (c.want == nil) {
			t.Errorf("%s: %v became %v", name, before, after)
		}
	}
}

// meddler does something right before a script of some name is run.
type meddler struct {
	appliance.Runner
	before string
	do     func()
}

func (m meddler) Run(ctx context.Context, s routeros.Script) (routeros.Reply, error) {
	if s.Name() == m.before {
		m.do()
	}
	return m.Runner.Run(ctx, s)
}

// What a copy was found to be is looked at again in the very command that makes a volume of it.
func TestACopyIsProvenWhereItIsUsed(t *testing.T) {
	for name, c := range map[string]struct {
		meddle func(r rig, image string)
		want   error
	}{
		"nobody meddles":    {func(rig, string) {}, nil},
		"the image is cut":  {func(r rig, image string) { r.device.resize(t, image, gib/2) }, appliance.ErrLeftover},
		"the image is gone": {func(r rig, image string) { _ = os.Remove(r.device.host(image)) }, appliance.ErrLeftover},
		"the proof is gone": {func(r rig, _ string) { r.device.console(t, `/file remove [find where name~"[.]done\$"]`) }, appliance.ErrLeftover},
		"the proof is another's": {func(r rig, _ string) {
			r.device.console(t, `/file set [find where name~"[.]done\$"] contents="rds-csi/1 size=1073741824 nonce=0"`)
		}, appliance.ErrLeftover},
		"somebody has opened it": {func(r rig, image string) {
			r.device.console(t, `/disk add type=file slot=look file-path="`+image+`" mount-filesystem=no`)
		}, appliance.ErrInUse},
	} {
		r := startOn(t, "xfs", nil)
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		req := appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Volume: v.ID.Slot}}
		if _, err := r.Create(t.Context(), req); !errors.Is(err, appliance.ErrCopying) {
			t.Fatal(err)
		}
		ready(t, func() (int, bool, error) { n := r.server.Device.Jobs(); return n, n == 0, nil })
		slot := appliance.SlotFor("homelab", "pvc-2")
		rds := over(t, meddler{r.client(t, "csi"), "disk_adopt", func() { c.meddle(r, "/storage-pool/k8s/"+slot+".img") }})
		if _, err := rds.Create(t.Context(), req); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		made := slices.ContainsFunc(slices.Collect(maps.Keys(r.device.Disks(t))), func(s string) bool { return s == slot })
		if made != (c.want == nil) {
			t.Errorf("%s: %v", name, r.device.Disks(t))
		}
	}
}
