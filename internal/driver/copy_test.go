package driver_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// copying is something that takes a full copy, with a call that is repeated until it is done.
type copying struct {
	target string // slot or id of what is made
	call   func() (made string, err error)
}

// copies are the three kinds of it on one pool, each of a volume that holds "before".
func (r *rig) copies(ctx context.Context) map[string]copying {
	id := r.create("pvc-1")
	r.scribble(id, "before")
	s := r.ready("kept", id)
	volume := func(name string, source *csi.VolumeContentSource) copying {
		return copying{appliance.SlotFor(cluster, name), func() (string, error) {
			v, err := r.from(ctx, name, 128*mib, source)
			return v.GetVolumeId(), err
		}}
	}
	return map[string]copying{
		"restore": volume("restored", ofSnapshot(s.GetSnapshotId())),
		"clone":   volume("cloned", ofVolume(id)),
		"snapshot": {appliance.SnapshotIDFor(cluster, "snapshot-1"), func() (string, error) {
			s, err := r.snapshot(ctx, "snapshot-1", id)
			if err == nil && !s.GetReadyToUse() {
				err = fmt.Errorf("snapshot: %w", appliance.ErrCopying)
			}
			return s.GetSnapshotId(), err
		}},
	}
}

func (r *rig) image(id string) string {
	slot := strings.TrimPrefix(id, "rds1/")
	if d, ok := r.server.Device.Disk(slot); ok {
		return d.HostFile
	}
	return r.filesOf(slot, ".img")
}

func (r *rig) scribble(id, text string) {
	r.t.Helper()
	f, err := os.OpenFile(r.image(id), os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString(text); err != nil {
		r.t.Fatal(err)
	}
}

// filesOf are the files on the RDS that are called after a slot or a snapshot.
func (r *rig) filesOf(name, suffix string) string {
	r.t.Helper()
	var found []string
	err := filepath.WalkDir(filepath.Join(r.server.Dir, "files"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasPrefix(entry.Name(), name+".") && strings.HasSuffix(path, suffix) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Join(found, " ")
}

// begun counts the copies that the RDS was told to make.
func (r *rig) begun() (n int) {
	for _, script := range r.server.Device.Commands() {
		if strings.Contains(script, ":execute script=") {
			n++
		}
	}
	return n
}

// A controller that is started anew in the middle of a copy, and once more when it is done and nobody has asked yet, goes on with
// the one that there is: for a snapshot, a restore and a clone.
func TestARestartNeitherLosesNorDoublesACopy(t *testing.T) {
	for _, kind := range []string{"snapshot", "restore", "clone"} {
		t.Run(kind, func(t *testing.T) {
			r := start(t, pools()["xfs"])
			c := r.copies(t.Context())[kind]
			before := r.begun()
			release := r.server.Device.HoldCopies()
			defer release()
			for range 2 {
				_, err := c.call()
				wants(t, err, codes.Aborted)
				r.restart()
			}
			if n := r.server.Device.Jobs(); n != 1 {
				t.Errorf("%d jobs in the middle", n)
			}
			release()
			waitFor(t, func() bool { return r.server.Device.Jobs() == 0 })
			r.restart()
			made, err := c.call()
			if err != nil {
				t.Fatalf("the copy is done: %v", err)
			}
			if again, err := c.call(); again != made || err != nil {
				t.Errorf("again: %s, %v; it was %s", again, err, made)
			}
			if n := r.begun() - before; n != 1 {
				t.Errorf("%d copies were begun", n)
			}
			r.checkCopy(made, c.target)
		})
	}
}

// checkCopy: it holds what its source did, nothing but the marks of a snapshot is left beside it, and all can be attached.
func (r *rig) checkCopy(made, target string) {
	r.t.Helper()
	waitFor(r.t, func() bool { return r.server.Device.Jobs() == 0 }) // it takes its claim away last
	data, err := os.ReadFile(r.image(made))
	if err != nil || !strings.HasPrefix(string(data), "before") {
		r.t.Errorf("%s does not hold what its source did: %v", made, err)
	}
	left := strings.Fields(r.filesOf(target, ""))
	left = slices.DeleteFunc(left, func(name string) bool {
		ext := filepath.Ext(name)
		return ext == ".img" || appliance.ValidSnapshotID(target) && (ext == ".done" || ext == ".job")
	})
	if len(left) > 0 || len(strings.Fields(r.filesOf(target, ".img"))) != 1 {
		r.t.Errorf("beside %s lie %v", made, left)
	}
	for _, d := range r.server.Device.Disks() {
		if !d.Up {
			r.t.Errorf("%s is not exported any more", d.Slot)
		}
	}
}

// What each call of a copy costs, the first, those that find it under way, the one that finds it done, and all after it.
func TestCommandsOfACopy(t *testing.T) {
	for kind, want := range map[string][4]int{"snapshot": {2, 1, 1, 1}, "restore": {2, 1, 2, 1}, "clone": {2, 1, 2, 1}} {
		t.Run(kind, func(t *testing.T) {
			r := start(t, pools()["xfs"])
			c := r.copies(t.Context())[kind]
			release := r.server.Device.HoldCopies()
			defer release()
			var got [4]int
			for i := range got {
				if i == 2 {
					release()
					waitFor(t, func() bool { return r.server.Device.Jobs() == 0 })
				}
				var err error
				got[i] = r.cost(func() { _, err = c.call() })
				if wrong := i < 2 != (driver.Code(err) == codes.Aborted) || i >= 2 && err != nil; wrong {
					t.Errorf("call %d: %v", i, err)
				}
			}
			if got != want {
				t.Errorf("commands of the first call, of one in between, of the one that finds it done and of one more: %v, want %v", got, want)
			}
		})
	}
}

// A copy that was done, and that a power loss has cut short after all: it is looked at twice before it is made anew, since a list
// of files may also be of two instants.
func TestCommandsAfterACopyWasCutShort(t *testing.T) {
	for _, kind := range []string{"snapshot", "restore", "clone"} {
		t.Run(kind, func(t *testing.T) {
			r := start(t, pools()["xfs"])
			c := r.copies(t.Context())[kind]
			before := r.begun()
			_, err := c.call()
			wants(t, err, codes.Aborted)
			waitFor(t, func() bool { return r.server.Device.Jobs() == 0 })
			if err := os.Truncate(r.filesOf(c.target, ".img"), 32*mib); err != nil {
				t.Fatal(err)
			}
			if n := r.cost(func() { _, err = c.call() }); n > 3 || driver.Code(err) != codes.Aborted || r.begun() != before+2 {
				t.Errorf("%d commands, %d copies, %v", n, r.begun()-before, err)
			}
			var made string
			waitFor(t, func() bool { made, err = c.call(); return err == nil })
			r.checkCopy(made, c.target)
		})
	}
}
