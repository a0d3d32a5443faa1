package driver_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// slow is an RDS that says of a snapshot what it is told to say.
type slow struct {
	driver.Appliance
	says appliance.Snapshot
}

func (s *slow) CreateSnapshot(_ context.Context, req appliance.SnapshotRequest) (appliance.Snapshot, error) {
	said := s.says
	said.ID = appliance.ID{RDS: rds1, Slot: appliance.SnapshotIDFor(cluster, req.Name)}
	return said, nil
}

func (s *slow) DeleteSnapshot(context.Context, string) error { return nil }

// Users see how far a copy is: a few events on the claim of the source, and a line of log for each change, however often the
// snapshotter asks.
func TestProgressOfASnapshotIsTold(t *testing.T) {
	const wait = "; a pod that is to use the volume waits until it is done"
	first, second := time.Unix(1000, 0), time.Unix(2000, 0)
	at := func(begun time.Time, progress ...float64) (says []appliance.Snapshot) {
		for _, p := range progress {
			says = append(says, appliance.Snapshot{Created: begun, Progress: p, Ready: p == 1, SizeBytes: gib})
		}
		return says
	}
	for name, c := range map[string]struct {
		says   []appliance.Snapshot
		events []string
		lines  int
	}{
		"each quarter":                 {at(first, 0, .1, .1, .24, .26, .26, .5, .9, .99, 1, 1), []string{"has begun" + wait, "is 26% done" + wait, "is 50% done" + wait, "is 90% done" + wait, "is done"}, 8},
		"done before anybody asked":    {at(first, 0, 1), []string{"has begun" + wait, "is done"}, 2},
		"begun before this controller": {at(first, .6, .6, 1), []string{"is 60% done" + wait, "is done"}, 2},
		"it was done all the time":     {at(first, 1, 1), nil, 0},
		"failed, and made anew":        {slices.Concat(at(first, 0, .6), at(second, 0, 1)), []string{"has begun" + wait, "is 60% done" + wait, "has begun" + wait, "is done"}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			fake := appliancetest.NewFake(settings(t, rds1), 100*gib)
			rds := &slow{Appliance: fake}
			controller := driver.NewController(rds1, attach.Standalone(), slog.New(slog.NewTextHandler(&log, nil)))
			controller.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: rds}})
			s := &scene{Controller: controller, rds: fake, t: t}
			id := s.create("pvc-1").GetVolumeId()
			var events []string
			controller.Copying = func(volume, message string) {
				if volume != id || !strings.HasPrefix(message, "snapshot "+rds1+"/snap-") {
					t.Errorf("%s is told %q", volume, message)
				}
				_, text, _ := strings.Cut(message, "the full copy of 1073741824 bytes on rds rds1 ")
				events = append(events, text)
			}
			ask := func(say appliance.Snapshot) string {
				rds.says = say
				reply, err := s.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "snapshot-1", SourceVolumeId: id})
				if err != nil {
					t.Fatal(err)
				}
				return reply.GetSnapshot().GetSnapshotId()
			}
			for _, say := range c.says {
				ask(say)
			}
			if !slices.Equal(events, c.events) {
				t.Errorf("events %q, want %q", events, c.events)
			}
			if n := strings.Count(log.String(), "percent="); n != c.lines {
				t.Errorf("%d lines, want %d:\n%s", n, c.lines, log.String())
			}
			// One that is deleted is forgotten: what comes after it is told of from its beginning.
			again := at(first, .4)[0]
			handle := ask(again)
			if _, err := s.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: handle}); err != nil {
				t.Fatal(err)
			}
			events = nil
			if ask(again); len(events) != 1 {
				t.Errorf("after it was deleted: %q", events)
			}
		})
	}
}

// What the RDS shows of a real copy arrives: half-way it is half done.
func TestProgressComesFromTheRDS(t *testing.T) {
	r := start(t, pools()["xfs"])
	id := r.create("pvc-1")
	var events []string
	r.Copying = func(_, message string) { events = append(events, message) }
	release := r.server.Device.HoldCopies()
	defer release()
	half := func() bool {
		if _, err := r.snapshot(t.Context(), "snapshot-1", id); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(events[len(events)-1], "is 50% done")
	}
	waitFor(t, half)
	release()
	r.ready("snapshot-1", id)
	if last := events[len(events)-1]; !strings.HasSuffix(last, "rds1 is done") || !strings.Contains(events[0], "has begun") {
		t.Errorf("%q", events)
	}
}
