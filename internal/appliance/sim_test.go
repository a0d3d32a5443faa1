package appliance_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
)

// What nobody knows of the device is a switch, and the contract holds with each of them either way.
func TestRDSKeepsTheContract(t *testing.T) {
	for name, quirks := range map[string]map[string]string{
		"as expected": {},
		"lenient": {
			"slot-over-32": "accept", "duplicate-slot": "accept", "existing-file": "reuse", "missing-directory": "create",
			"remove-used-file": "allow", "error-location": "no", "monitor-policy": "read", "monitor-values": "text",
			"file-copy-existing": "overwrite",
		},
		"strict": {
			"slot-over-32": "error", "duplicate-slot": "error", "missing-directory": "error", // existing-file=error: see TestExistingImagesMustBeOpened
			"subvolume-removal": "dead", "file-copy-size": "at-once",
			"remove-used-file": "refuse", "exit-status": "nonzero", "remove-while-connected": "refuse", "monitor-one": "list",
		},
		"odd": {"slot-over-32": "truncate", "new-file-content": "random", "channel-limit": "2", "channel-over-limit": "wait", "health": "settings", "file-copy-returns": "started"},
	} {
		for _, filesystem := range []string{"btrfs", "xfs"} {
			t.Run(name+", "+filesystem, func(t *testing.T) {
				appliancetest.Contract(t, func(t *testing.T) (appliancetest.RDS, appliancetest.Device) {
					r := startOn(t, filesystem, quirks)
					return r.RDS, r.device
				})
			})
		}
	}
}

// Commands per operation on a warm connection. A command is one exec with one script.
func TestCommandsPerOperation(t *testing.T) {
	r := start(t, map[string]string{"exports-after-reboot": "lost"})
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := r.List(ctx); err != nil { // warms up
		t.Fatal(err)
	}
	slot, shot := appliance.SlotFor("homelab", "pvc-1"), appliance.SnapshotIDFor("homelab", "snapshot-1")
	create := func() {
		_, err := r.Create(ctx, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		must(err)
	}
	export := func() {
		v, err := r.Export(ctx, slot)
		must(err)
		if !v.Exported {
			t.Errorf("not exported: %+v", v)
		}
	}
	for _, c := range []struct {
		name string
		want int
		do   func()
	}{
		{"capacity", 1, func() { _, err := r.Capacity(ctx, appliance.Path{}); must(err) }},
		{"health", 1, func() { _, err := r.Health(ctx); must(err) }},
		{"traffic", 1, func() { _, err := r.Traffic(ctx, "storage-pool", "raid10", "nvme1", "no-such-slot"); must(err) }},
		{"traffic of nothing", 0, func() { _, err := r.Traffic(ctx); must(err) }},
		{"create", 1, create},
		{"create again", 1, create},
		{"get", 1, func() { _, err := r.Get(ctx, slot); must(err) }},
		{"list", 1, func() { _, err := r.List(ctx); must(err) }},
		{"expand", 1, func() { _, err := r.Expand(ctx, slot, 2*gib, 0); must(err) }},
		{"snapshot", 1, func() { r.snapshot(t, "snapshot-1", slot) }},
		{"snapshot again", 1, func() { r.snapshot(t, "snapshot-1", slot) }},
		{"get snapshot", 1, func() { _, err := r.GetSnapshot(ctx, shot); must(err) }},
		{"list snapshots", 1, func() { _, err := r.ListSnapshots(ctx); must(err) }},
		{"restore", 1, func() { r.create(t, appliance.CreateRequest{Name: "pvc-2", Source: appliance.Source{Snapshot: shot}}) }},
		{"clone", 1, func() { r.create(t, appliance.CreateRequest{Name: "pvc-3", Source: appliance.Source{Volume: slot}}) }},
		{"delete snapshot", 2, func() { must(r.DeleteSnapshot(ctx, shot)) }},
		{"delete snapshot again", 2, func() { must(r.DeleteSnapshot(ctx, shot)) }},
		{"export", 1, export},
		{"export lost", 2, func() {
			r.device.console(t, `/disk set [find slot="`+slot+`"] nvme-tcp-export=no`)
			export()
		}},
		{"delete", 1, func() { must(r.Delete(ctx, slot)) }},
		{"delete again", 2, func() { must(r.Delete(ctx, slot)) }},
	} {
		want := c.want
		if c.name == "export lost" {
			want++ // the administrator's own
		}
		if got := r.commands(c.do); got != want {
			t.Errorf("%s: %d commands, want %d", c.name, got, want)
		}
	}
}

// An RDS that comes back without its exports: the next attach puts them right (democratic-csi#496).
func TestExportsLostAtReboot(t *testing.T) {
	for _, after := range []string{"kept", "lost"} {
		r := start(t, map[string]string{"exports-after-reboot": after})
		v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.server.Device.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if on, _ := r.server.Device.Disk(v.ID.Slot); on.Export != (after == "kept") {
			t.Fatalf("%s: %+v", after, on)
		}
		again, err := r.eventually(t, func() (appliance.Volume, error) { return r.Export(t.Context(), v.ID.Slot) })
		if told := again.Repaired != ""; told != (after == "lost") {
			t.Errorf("%s: says that it repaired %q", after, again.Repaired)
		}
		if again.Repaired = ""; err != nil || again != v {
			t.Errorf("%s: %+v, %v", after, again, err)
		}
		if on, _ := r.server.Device.Disk(v.ID.Slot); !on.Up || on.MountFilesystem {
			t.Errorf("%s: %+v", after, on)
		}
	}
}

// The default of RouterOS is to mount whatever it recognises: a volume says no from its first moment, and one that somebody
// has set to yes is put right before it is handed out.
func TestRDSKeepsItsHandsOff_B6(t *testing.T) {
	r := start(t, nil)
	v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	if err != nil {
		t.Fatal(err)
	}
	if on, _ := r.server.Device.Disk(v.ID.Slot); on.MountFilesystem {
		t.Error("a new volume may be mounted by the RDS")
	}
	r.device.console(t, fmt.Sprintf(`/disk set [find slot=%q] mount-filesystem=yes`, v.ID.Slot))
	if on, _ := r.server.Device.Disk(v.ID.Slot); !on.MountFilesystem {
		t.Fatal("the console did not take the change")
	}
	if now, err := r.Export(t.Context(), v.ID.Slot); err != nil || now.MountFilesystem {
		t.Errorf("%+v, %v", now, err)
	}
	if on, _ := r.server.Device.Disk(v.ID.Slot); on.MountFilesystem {
		t.Error("it was handed out although the RDS may mount it")
	}
}

// eventually repeats what failed because the RDS could not be asked, as the CO does.
func (r rig) eventually(t *testing.T, do func() (appliance.Volume, error)) (v appliance.Volume, err error) {
	t.Helper()
	for range 5 {
		v, err = do()
		if !errors.Is(err, appliance.ErrUnavailable) && !errors.Is(err, appliance.ErrOutcomeUnknown) && !errors.Is(err, appliance.ErrAnswer) {
			return v, err
		}
	}
	return v, err
}

// Whatever dies, and whenever: after the repetition there is one volume, never two, and no file is lost.
func TestFaultsAtEveryMutation(t *testing.T) {
	faults := []string{"drop-before", "drop-after", "garbage", "garbage=cut", "reboot", "delay=20ms"}
	slot := appliance.SlotFor("homelab", "pvc-1")
	file := "/storage-pool/k8s/" + slot + "/volume.img"
	for _, fault := range faults {
		t.Run(fault, func(t *testing.T) {
			r := start(t, nil)
			ctx := t.Context()
			check := func(what string, wantDisks int) {
				t.Helper()
				if disks, files := r.server.Device.Disks(), r.device.Files(t); len(disks) != wantDisks || len(files) != wantDisks {
					t.Fatalf("%s: %+v %v, want %d", what, disks, files, wantDisks)
				}
			}
			create := func() (appliance.Volume, error) {
				return r.Create(ctx, appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
			}
			r.inject(t, fault+"@/disk/add:1")
			v, err := r.eventually(t, create)
			if err != nil || v.SizeBytes != gib {
				t.Fatalf("create: %+v, %v", v, err)
			}
			check("created", 1)
			if again, err := create(); err != nil || again != v {
				t.Errorf("create again: %+v, %v", again, err)
			}

			r.device.scribble(t, file, "the user's data")
			r.device.console(t, `/disk set [find slot="`+slot+`"] nvme-tcp-export=no`)
			r.inject(t, fault+"@/disk/set:1")
			if v, err := r.eventually(t, func() (appliance.Volume, error) { return r.Export(ctx, slot) }); err != nil || !v.Exported {
				t.Fatalf("export: %+v, %v", v, err)
			}
			check("exported", 1)
			if !r.device.holds(file, "the user's data") {
				t.Error("the data is gone")
			}

			r.inject(t, fault+"@/disk/remove:1")
			if _, err := r.eventually(t, func() (appliance.Volume, error) { return appliance.Volume{}, r.Delete(ctx, slot) }); err != nil {
				t.Fatalf("delete: %v", err)
			}
			check("deleted", 0)
		})
	}
}

// A create of which nothing is known to have happened is not called a success, and not called absent (B15).
func TestCreateThatNeverArrivedIsUnknown_B15(t *testing.T) {
	r := start(t, nil)
	r.inject(t, "drop-before@/disk/add:1")
	_, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	if !errors.Is(err, appliance.ErrOutcomeUnknown) || errors.Is(err, appliance.ErrNotFound) || len(r.server.Device.Disks()) != 0 {
		t.Errorf("nothing done: %v, %+v", err, r.server.Device.Disks())
	}
}

func TestPoolFullByFault(t *testing.T) {
	r := start(t, nil)
	r.inject(t, "full@/disk/add:1")
	if _, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib}); !errors.Is(err, appliance.ErrNoSpace) {
		t.Errorf("full: %v", err)
	}
	if _, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib}); err != nil {
		t.Errorf("space again: %v", err)
	}
}

// B15, B13: an RDS that is silent says nothing about what is there, and does not hold anybody for longer than he waits.
func TestSilenceIsNotAbsence_B13_B15(t *testing.T) {
	r := start(t, nil)
	v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	if err != nil {
		t.Fatal(err)
	}
	r.inject(t, "silence@/disk/print:1")
	ctx, cancel := context.WithTimeout(t.Context(), 200e6)
	defer cancel()
	if _, err := r.Get(ctx, v.ID.Slot); err == nil || errors.Is(err, appliance.ErrNotFound) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	r.server.Device.ClearFaults()
	if got, err := r.Get(t.Context(), v.ID.Slot); err != nil || got != v {
		t.Errorf("after: %+v, %v", got, err)
	}
}

// B10: a refused removal leaves the file where it is.
func TestRefusedRemovalKeepsTheFile_B10(t *testing.T) {
	r := start(t, map[string]string{"remove-while-connected": "refuse"})
	v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	if err != nil {
		t.Fatal(err)
	}
	r.server.Device.PretendHosts(v.ID.Slot, 1)
	if err := r.Delete(t.Context(), v.ID.Slot); !errors.Is(err, appliance.ErrInUse) {
		t.Errorf("delete: %v", err)
	}
	if disks, files := r.server.Device.Disks(), r.device.Files(t); len(disks) != 1 || len(files) != 1 {
		t.Errorf("left: %+v %v", disks, files)
	}
	r.server.Device.PretendHosts(v.ID.Slot, 0)
	if err := r.Delete(t.Context(), v.ID.Slot); err != nil {
		t.Error(err)
	}
}

// B16, with what two creates of one slot do on the device either way, and more callers than channels.
func TestCreatesAtOnceOfManyNames_B16(t *testing.T) {
	for _, duplicate := range []string{"error", "accept"} {
		r := start(t, map[string]string{"duplicate-slot": duplicate})
		var wg sync.WaitGroup
		errs := make([]error, 32)
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = r.Create(t.Context(), appliance.CreateRequest{Name: fmt.Sprintf("pvc-%d", i%4), RequiredBytes: gib})
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Errorf("%s: %v", duplicate, err)
		}
		if disks, files := r.server.Device.Disks(), r.device.Files(t); len(disks) != 4 || len(files) != 4 {
			t.Errorf("%s: %d disks, files %v", duplicate, len(disks), files)
		}
	}
}

// The first volumes of a pool come at once: each finds the shared directory missing, one makes it, and it is there for all.
func TestFirstCreatesAtOnceShareTheDirectory(t *testing.T) {
	for _, filesystem := range []string{"btrfs", "xfs"} {
		for range 10 {
			r := startOn(t, filesystem, nil)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					if _, err := r.Create(t.Context(), appliance.CreateRequest{Name: fmt.Sprintf("pvc-%d", i), RequiredBytes: gib}); err != nil {
						t.Errorf("%s: %v", filesystem, err)
					}
				})
			}
			wg.Wait()
		}
	}
}

// Deleting and creating at once, the worst of neighbours: no volume ends up without its file, no file without its volume.
func TestCreateAndDeleteAtOnce(t *testing.T) {
	r := start(t, nil)
	slot := appliance.SlotFor("homelab", "pvc-1")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { _, _ = r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib}) })
		wg.Go(func() { _ = r.Delete(t.Context(), slot) })
	}
	wg.Wait()
	disks, files := r.server.Device.Disks(), r.device.Files(t)
	if len(disks) != len(files) || len(disks) > 1 {
		t.Errorf("left: %+v %v", disks, files)
	}
	if err := r.Delete(t.Context(), slot); err != nil || len(r.device.Files(t)) != 0 {
		t.Errorf("%v, %v", err, r.device.Files(t))
	}
}

// The hardware is in the same menu. Nothing there is ours, whatever a handle says.
func TestHardwareIsNeverTouched(t *testing.T) {
	r := start(t, nil)
	for _, slot := range []string{"nvme1", "storage-pool"} {
		if err := r.Delete(t.Context(), slot); !errors.Is(err, appliance.ErrForeign) {
			t.Errorf("delete %s: %v", slot, err)
		}
		if _, err := r.Export(t.Context(), slot); !errors.Is(err, appliance.ErrForeign) {
			t.Errorf("export %s: %v", slot, err)
		}
	}
	for _, command := range r.server.Device.Commands() {
		if strings.Contains(command, "/disk set") {
			t.Errorf("sent %s", command)
		}
	}
	if list, err := r.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// Every supported dialect takes the scripts, and an older RouterOS is refused in so many words.
func TestVersions(t *testing.T) {
	for version, want := range map[string]error{
		"7.20.8": appliance.ErrUnsupported, "7.21": nil, "7.22.1": nil, "7.23.8": nil, "7.24.5": nil, "7.25.1": nil,
	} {
		t.Run(version, func(t *testing.T) {
			r := startVersion(t, version, nil)
			_, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
			if !errors.Is(err, want) {
				t.Fatalf("create: %v, want %v", err, want)
			}
			if want != nil {
				return
			}
			slot := appliance.SlotFor("homelab", "pvc-1")
			_, get := r.Get(t.Context(), slot)
			_, export := r.Export(t.Context(), slot)
			_, list := r.List(t.Context())
			_, capacity := r.Capacity(t.Context(), appliance.Path{})
			if err := errors.Join(get, export, list, capacity, r.Delete(t.Context(), slot)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A user without the policy "write" is told so, and finds out nothing else.
func TestPermission(t *testing.T) {
	r := start(t, nil)
	v, err := r.Create(t.Context(), appliance.CreateRequest{Name: "pvc-1", RequiredBytes: gib})
	if err != nil {
		t.Fatal(err)
	}
	reader := r.as(t, "reader")
	if got, err := reader.Get(t.Context(), v.ID.Slot); err != nil || got != v {
		t.Errorf("get: %+v, %v", got, err)
	}
	_, create := reader.Create(t.Context(), appliance.CreateRequest{Name: "pvc-2", RequiredBytes: gib})
	for what, err := range map[string]error{"create": create, "delete": reader.Delete(t.Context(), v.ID.Slot)} {
		if !errors.Is(err, appliance.ErrPermission) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if disks, files := r.server.Device.Disks(), r.device.Files(t); len(disks) != 1 || len(files) != 1 {
		t.Errorf("left: %+v %v", disks, files)
	}
}
