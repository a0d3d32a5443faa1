package driver_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/sim"
)

// columns of README.md's table: the releases that each stands for, and the file system of the pool.
var columns = []struct {
	title, filesystem string
	versions          []string
}{
	{"Btrfs, 7.21 and 7.22", "btrfs", []string{"7.21", "7.22.1"}},
	{"Btrfs, 7.23 and newer", "btrfs", []string{"7.23", "7.25.1"}},
	{"any other pool, 7.21 and 7.22", "xfs", []string{"7.21", "7.22.1"}},
	{"any other pool, 7.23 and newer", "xfs", []string{"7.23", "7.25.1"}},
}

// features are its rows: each tries it on a device and says what came of it.
var features = []struct {
	title string
	try   func(r *rig, id string) string
}{
	{"volumes, file system or raw block: create, attach, delete", func(r *rig, id string) string {
		req := createRequest("raw", 64*mib)
		req.VolumeCapabilities = []*csi.VolumeCapability{raw(oneWriter)}
		reply, err := r.CreateVolume(r.t.Context(), req)
		return r.yes(err, r.used(id), r.used(reply.GetVolume().GetVolumeId()))
	}},
	{"growth, attached or not", func(r *rig, id string) string {
		return r.yes(r.expand(r.t.Context(), id, 128*mib), r.publish(r.t.Context(), id, "node-a"), r.expand(r.t.Context(), id, 256*mib))
	}},
	{"live migration of a virtual machine (raw block)", func(r *rig, _ string) string {
		req := createRequest("machine", 64*mib)
		req.VolumeCapabilities = []*csi.VolumeCapability{raw(manyWrite)}
		reply, err := r.CreateVolume(r.t.Context(), req)
		errs := []error{err}
		for _, node := range []string{"node-a", "node-b"} {
			_, err := r.ControllerPublishVolume(r.t.Context(), &csi.ControllerPublishVolumeRequest{
				VolumeId: reply.GetVolume().GetVolumeId(), NodeId: node, VolumeCapability: raw(manyWrite), VolumeContext: reply.GetVolume().GetVolumeContext(),
			})
			errs = append(errs, err)
		}
		return r.yes(append(errs, r.unpublish(r.t.Context(), reply.GetVolume().GetVolumeId(), "node-a"))...)
	}},
	{"snapshot of an attached volume", func(r *rig, id string) string {
		if err := r.publish(r.t.Context(), id, "node-a"); err != nil {
			return err.Error()
		}
		return r.taken(id)
	}},
	{"snapshot, restore, clone of a detached volume", func(r *rig, id string) string { return r.all(id) }},
	{"volumes of the existing driver: attach, grow, delete", func(r *rig, _ string) string {
		old := r.old()
		return r.yes(r.publish(r.t.Context(), old, "node-a"), r.expand(r.t.Context(), old, 2*gib), r.unpublish(r.t.Context(), old, "node-a"), r.delete(r.t.Context(), old))
	}},
	{"their snapshots and clones, detached", func(r *rig, _ string) string {
		old := r.old()
		if got := r.yes(r.publish(r.t.Context(), old, "node-a"), r.unpublish(r.t.Context(), old, "node-a")); got != "yes" {
			return got
		}
		return r.all(old)
	}},
}

func (r *rig) yes(errs ...error) string {
	for _, err := range errs {
		if err != nil {
			return err.Error()
		}
	}
	return "yes"
}

// used attaches a volume, detaches it and deletes it.
func (r *rig) used(id string) error {
	if err := r.publish(r.t.Context(), id, "node-a"); err != nil {
		return err
	}
	if err := r.unpublish(r.t.Context(), id, "node-a"); err != nil {
		return err
	}
	return r.delete(r.t.Context(), id)
}

// old is the handle of the existing driver's volume on this device.
func (r *rig) old() string {
	for _, d := range r.server.Device.Disks() {
		if d.Comment == "" && strings.HasPrefix(d.Slot, "pvc-") {
			return d.Slot
		}
	}
	r.t.Fatal("no volume of the existing driver")
	return ""
}

// word says how a copy was made, by what its first answer was while no file could be copied to its end.
func word(ready bool, err error) string {
	switch code := driver.Code(err); {
	case err == nil && ready:
		return "at once"
	case err == nil || code == codes.Aborted || code == codes.Unavailable:
		return "full copy"
	case code == codes.FailedPrecondition:
		return "no"
	default:
		return err.Error()
	}
}

// taken takes a snapshot.
func (r *rig) taken(id string) string {
	s, err := r.snapshot(r.t.Context(), "snapshot of "+id, id)
	return word(s.GetReadyToUse(), err)
}

// all takes a snapshot, restores it and clones the volume, and says how, if all three are made alike and end well.
func (r *rig) all(id string) string {
	release := r.server.Device.HoldCopies()
	defer release()
	got := r.taken(id)
	_, err := r.from(r.t.Context(), "clone", 0, ofVolume(id))
	if how := word(true, err); how != got && got != "full copy" { // one copy of a volume at a time: the clone's turn comes
		return "snapshot " + got + ", clone " + how
	}
	release()
	if got == "no" {
		return got
	}
	s := r.ready("snapshot of "+id, id)
	r.restored("clone", 0, ofVolume(id))
	release = r.server.Device.HoldCopies()
	defer release()
	_, err = r.from(r.t.Context(), "restored", 0, ofSnapshot(s.GetSnapshotId()))
	if how := word(true, err); how != got {
		return "snapshot " + got + ", restore " + how
	}
	release()
	r.restored("restored", 0, ofSnapshot(s.GetSnapshotId()))
	return got
}

// What README.md says works on which kind of pool and which RouterOS is what happens there.
func TestReadmeSaysWhatWorksWhere(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := table(t, string(page))
	for i, column := range columns {
		if want[""][i] != column.title {
			t.Errorf("column %d is %q, want %q", i, want[""][i], column.title)
		}
		for _, version := range column.versions {
			t.Run(column.filesystem+" "+version, func(t *testing.T) {
				t.Parallel()
				for _, f := range features {
					r, _ := adoptOn(t, sim.Options{Version: version, Pools: []sim.Pool{{Slot: "storage-pool", Filesystem: column.filesystem, SizeBytes: 1 << 40}}})
					if got := f.try(r, r.create("pvc-1")); len(want[f.title]) != len(columns) || got != want[f.title][i] {
						t.Errorf("%s: %s; README.md has %q", f.title, got, want[f.title])
					}
				}
			})
		}
	}
	if len(want) != len(features)+1 {
		t.Errorf("%d rows, %d of them tried", len(want)-1, len(features))
	}
}

// table reads the cells of each row below and with the one that begins with the first column, by the row's first cell.
func table(t *testing.T, page string) map[string][]string {
	t.Helper()
	_, text, found := strings.Cut(page, "\n| | "+columns[0].title+" |")
	if !found {
		t.Fatal("README.md has no such table")
	}
	text, _, _ = strings.Cut("| | "+columns[0].title+" |"+text, "\n\n")
	rows := map[string][]string{}
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if !slices.Contains(cells, "---") {
			rows[cells[0]] = cells[1:]
		}
	}
	return rows
}
