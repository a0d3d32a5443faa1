package appliance_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
)

// restless is a device one pool of which comes back, or goes, before the n-th look at one of its tables.
type restless struct {
	odd
	pool  row
	files []row // on that pool
	there bool
	after int // looks
}

func (d *restless) look() {
	if d.after--; d.after == 0 {
		d.move()
	}
}

func (d *restless) move() {
	d.there = !d.there
	disks, files := d.odd["/disk"], d.odd["/file"]
	if d.there {
		disks.rows, files.rows = append(disks.rows, d.pool), append(files.rows, d.files...)
		return
	}
	d.files = slices.DeleteFunc(slices.Clone(files.rows), func(r row) bool { return !d.holds(r) })
	disks.rows = slices.DeleteFunc(disks.rows, func(r row) bool { return r["slot"] == d.pool["slot"] })
	files.rows = slices.DeleteFunc(files.rows, d.holds)
}

func (d *restless) holds(file row) bool {
	return strings.HasPrefix(file["name"].(string), d.pool["slot"].(string)+"/")
}

// lies says whether an image is on the pool, seen or not.
func (d *restless) lies(name string) bool {
	files := d.files
	if d.there {
		files = d.odd["/file"].rows
	}
	return slices.ContainsFunc(files, func(r row) bool { return strings.Contains(r["name"].(string), name) })
}

// newRestless has a snapshot, and the image of a volume whose item is gone, on a pool where another volume of this cluster lies.
func newRestless(pool string, there bool, after int) *restless {
	slot, kept := appliance.SlotFor("homelab", "pvc-1"), appliance.SlotFor("homelab", "pvc-2")
	copied := pool + "/k8s/" + appliance.SnapshotIDFor("homelab", "snapshot-1") + "." + slot
	d := &restless{pool: row{".id": "*F", "slot": pool, "mount-point": pool, "fs": "xfs"}, after: after, odd: odd{
		"/disk": {rows: numbered([]row{{"slot": kept, "comment": "rds-csi/1 cluster=homelab name=x", "file-path": "/" + pool + "/k8s/" + kept + ".img"}})}, "/file": {},
	}}
	if pool != "storage-pool" {
		d.odd["/disk"].rows = append(d.odd["/disk"].rows, row{".id": "*E", "slot": "storage-pool", "mount-point": "storage-pool", "fs": "xfs"})
	}
	for i, name := range []string{copied + ".img", copied + ".done", pool + "/k8s/" + slot + ".img"} {
		d.files = append(d.files, row{".id": fmt.Sprintf("*C%d", i), "name": name, "size": int64(4096), "contents": "rds-csi/1 size=4096 created=1 nonce=x"})
	}
	if there {
		d.move()
	}
	d.odd["/disk"].look, d.odd["/file"].look = d.look, d.look
	return d
}

// A pool comes back between any two looks at the device, as after it has booted, or goes: what lies on it is never absent.
func TestWhatLiesOnAPoolThatComesOrGoesIsNotAbsent(t *testing.T) {
	id, slot := appliance.SnapshotIDFor("homelab", "snapshot-1"), appliance.SlotFor("homelab", "pvc-1")
	for name, absent := range map[string]func(*appliance.RDS, *restless) (bool, error){
		"delete a snapshot": func(rds *appliance.RDS, d *restless) (bool, error) {
			err := rds.DeleteSnapshot(t.Context(), id)
			return err == nil && d.lies(id+"."), err
		},
		"delete a volume": func(rds *appliance.RDS, d *restless) (bool, error) {
			err := rds.Delete(t.Context(), slot)
			return err == nil && d.lies("/"+slot+".img"), err
		},
		"get": func(rds *appliance.RDS, _ *restless) (bool, error) {
			_, err := rds.GetSnapshot(t.Context(), id)
			return errors.Is(err, appliance.ErrNotFound), err
		},
		"list": func(rds *appliance.RDS, _ *restless) (bool, error) {
			list, err := rds.ListSnapshots(t.Context())
			return err == nil && len(list) == 0, err
		},
		"restore": func(rds *appliance.RDS, _ *restless) (bool, error) {
			_, err := rds.Create(t.Context(), appliance.CreateRequest{Name: "pvc-3", Source: appliance.Source{Snapshot: id}})
			return errors.Is(err, appliance.ErrNotFound), err
		},
	} {
		for _, c := range []struct {
			pool  string
			there bool
		}{{"storage-pool", false}, {"raid9", false}, {"storage-pool", true}, {"raid9", true}} {
			n := 1
			for d := newRestless(c.pool, c.there, n); ; d = newRestless(c.pool, c.there, n) {
				rds, err := appliance.NewRDS(appliancetest.Settings(t), d)
				if err != nil {
					t.Fatal(err)
				}
				if wrong, err := absent(rds, d); wrong {
					t.Errorf("%s, %s there %t, moves at look %d: absent: %v", name, c.pool, c.there, n, err)
				}
				if d.after > 0 {
					break // it did not move
				}
				n++
			}
			if n < 2 {
				t.Errorf("%s: only %d looks", name, n)
			}
		}
	}
}
