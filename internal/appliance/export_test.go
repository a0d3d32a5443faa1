package appliance_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/sim"
)

// item is what the device has of a volume, and seen how large it is to whoever connects now.
func (r rig) item(t *testing.T, slot string) (on sim.Disk, seen int64) {
	t.Helper()
	on, found := r.server.Device.Disk(slot)
	info, err := os.Stat(on.HostFile)
	if !found || err != nil {
		t.Fatalf("%s: %+v, %v", slot, on, err)
	}
	return on, info.Size()
}

// grown is an exported volume of 1 GiB that was made 2 GiB large.
func (r rig) grown(t *testing.T) appliance.Volume {
	t.Helper()
	v := r.create(t, appliance.CreateRequest{Name: "pvc-1", Claim: "web/data", RequiredBytes: gib})
	v, err := r.Expand(t.Context(), v.ID.Slot, 2*gib, 0)
	if err != nil || v.GrownTo != 2*gib {
		t.Fatalf("%+v, %v", v, err)
	}
	return v
}

// Whatever the target makes of growth, once nobody has the volume it is exported anew, once, and shows its new size; and whoever
// has it is not cut off before. The identifiers tell whether an export is the one it was: with this switch each has its own.
func TestGrowthIsExportedAnewOnce(t *testing.T) {
	for _, quirks := range []map[string]string{
		{"growth-visible": "notify"}, {"growth-visible": "rescan"}, {"growth-visible": "reconnect"}, {"growth-visible": "reexport"},
		{"growth-visible": "reexport", "exports-after-reboot": "lost"}, {"growth-visible": "reexport", "error-location": "no", "exit-status": "nonzero"},
		{"resize-bounces-export": "yes"}, {"shrink": "accept"},
	} {
		quirks["identifiers-on-reexport"] = "change"
		r := start(t, quirks)
		v := r.grown(t)
		before, seen := r.item(t, v.ID.Slot)
		if quirks["growth-visible"] == "reexport" && seen != gib {
			t.Errorf("%v: the switch does nothing", quirks)
		}
		export := func(what string, do func() (appliance.Volume, error), commands int, repaired string) {
			t.Helper()
			n := r.commands(func() {
				got, err := do()
				if err != nil || got.Repaired != repaired || !got.Presentable() || got.SizeBytes != 2*gib || got.Claim != "web/data" {
					t.Errorf("%v, %s: %+v, %v", quirks, what, got, err)
				}
			})
			if n != commands {
				t.Errorf("%v, %s: %d commands, want %d", quirks, what, n, commands)
			}
		}
		inUse := func() (appliance.Volume, error) { return r.Export(t.Context(), v.ID.Slot) }
		unused := func() (appliance.Volume, error) { return r.ExportUnused(t.Context(), v.ID.Slot) }
		export("in use", inUse, 1, "")
		if now, sees := r.item(t, v.ID.Slot); now != before || sees != seen {
			t.Errorf("%v: in use, and exported anew: %+v, %+v", quirks, before, now)
		}
		export("unused", unused, 2, "it is exported anew, so that its new size is seen")
		anew, seen := r.item(t, v.ID.Slot)
		if anew.UUID == before.UUID || !anew.Up || seen != 2*gib || anew.Comment != "rds-csi/1 cluster=homelab name=pvc-1 claim=web/data" {
			t.Errorf("%v: unused, and shows %d bytes: %+v, %+v", quirks, seen, before, anew)
		}
		export("unused again", unused, 1, "")
		export("in use again", inUse, 1, "")
		if now, _ := r.item(t, v.ID.Slot); now != anew {
			t.Errorf("%v: exported anew twice: %+v, %+v", quirks, anew, now)
		}
	}
}

// What exports a volume anyhow shows its new size too, whoever asks; and what is exported since a reboot costs one export more.
func TestGrowthOfALostExport(t *testing.T) {
	for after, repaired := range map[string]string{"kept": "it is exported anew, so that its new size is seen", "lost": "it is exported again"} {
		for _, unused := range []bool{true, false} {
			r := start(t, map[string]string{"growth-visible": "reexport", "exports-after-reboot": after})
			v := r.grown(t)
			if err := r.server.Device.Reboot(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := repaired
			export := r.ExportUnused
			if !unused {
				export = r.Export
				if after == "kept" {
					want = ""
				}
			}
			got, err := r.eventually(t, func() (appliance.Volume, error) { return export(t.Context(), v.ID.Slot) })
			if on, seen := r.item(t, v.ID.Slot); err != nil || got.Repaired != want || !on.Up || seen != 2*gib || got.GrownTo > 0 != (want == "") {
				t.Errorf("%s, unused %t: shows %d bytes, %+v, %+v, %v", after, unused, seen, got, on, err)
			}
		}
	}
}

// Wherever it is cut off, the next one completes it, and no reply is believed that was not read.
func TestGrowthCutOff(t *testing.T) {
	for _, fault := range []string{"drop-before@/disk/set:1", "drop-after@/disk/set:1", "garbage@/disk/set:1", "garbage=cut@/disk/set:1", "reboot@/disk/set:1", "full@/disk/set:1"} {
		for _, exports := range []string{"kept", "lost"} {
			t.Run(fault+", "+exports, func(t *testing.T) {
				r := start(t, map[string]string{"growth-visible": "reexport", "exports-after-reboot": exports})
				v := r.grown(t)
				r.inject(t, fault)
				export := func() (appliance.Volume, error) { return r.ExportUnused(t.Context(), v.ID.Slot) }
				if got, err := export(); err == nil && (got.GrownTo > 0 || !got.Presentable()) {
					t.Errorf("%+v", got)
				}
				got, err := r.eventually(t, export)
				if on, seen := r.item(t, v.ID.Slot); err != nil || got.GrownTo > 0 || !on.Up || seen != 2*gib {
					t.Errorf("again: shows %d bytes: %+v, %+v, %v", seen, got, on, err)
				}
			})
		}
	}
}

// A volume whose item somebody took the export from in the middle: taking it away succeeded, making it again did not.
func TestGrowthBetweenTheTwoCommands(t *testing.T) {
	for _, unused := range []bool{true, false} {
		r := start(t, map[string]string{"growth-visible": "reexport"})
		v := r.grown(t)
		r.device.console(t, `/disk set `+v.ID.Slot+` nvme-tcp-export=no`)
		export := r.Export
		if unused {
			export = r.ExportUnused
		}
		got, err := export(t.Context(), v.ID.Slot)
		if on, seen := r.item(t, v.ID.Slot); err != nil || got.GrownTo > 0 || !on.Up || seen != 2*gib || strings.Contains(on.Comment, "grown") {
			t.Errorf("unused %t: shows %d bytes: %+v, %+v, %v", unused, seen, got, on, err)
		}
	}
}

// The comment is the user's too: what he has added stays, and words that only resemble the mark are none.
func TestGrowthKeepsTheComment(t *testing.T) {
	const ours = "rds-csi/1 cluster=homelab name=pvc-1 claim=web/data"
	for _, c := range []struct{ found, grown, after string }{
		{ours, ours + " grown=%d", ours},
		{ours + " note: \"old\" $x \\", ours + " note: \"old\" $x \\ grown=%d", ours + " note: \"old\" $x \\"},
		{ours + " grown=1073741825 note", ours + " grown=%d note", ours + " note"},
		{ours + " grown=5", ours + " grown=%d", ours},
		{ours + " outgrown=5", ours + " outgrown=5 grown=%d", ours + " outgrown=5"},
		{ours + " unfinished=yes", ours + " unfinished=yes", ""}, // the create that finishes it sees it by that
		{ours + " later=word", ours + " later=word grown=%d", ours + " later=word"},
	} {
		r := start(t, nil)
		v := r.create(t, appliance.CreateRequest{Name: "pvc-1", Claim: "web/data", RequiredBytes: gib})
		r.device.console(t, `/disk set `+v.ID.Slot+` comment="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(c.found)+`"`)
		for _, size := range []int64{2 * gib, 3 * gib} {
			if _, err := r.Expand(t.Context(), v.ID.Slot, size, 0); err != nil {
				t.Fatal(err)
			}
			if on, _ := r.item(t, v.ID.Slot); on.Comment != strings.ReplaceAll(c.grown, "%d", strconv.FormatInt(size, 10)) {
				t.Errorf("%q: grown: %q", c.found, on.Comment)
			}
		}
		if c.after == "" {
			continue
		}
		got, err := r.ExportUnused(t.Context(), v.ID.Slot)
		if on, _ := r.item(t, v.ID.Slot); err != nil || got.GrownTo > 0 || got.Owner != appliance.OwnerOurs || on.Comment != c.after {
			t.Errorf("%q: exported: %q, %+v, %v", c.found, on.Comment, got, err)
		}
	}
}

// A script that was thought lost runs when a node has the volume already, by the script that repeated it: it takes nothing away, also
// when the volume has grown under the node since.
func TestGrowthByAScriptThatRunsLate(t *testing.T) {
	r := start(t, map[string]string{"growth-visible": "reexport", "identifiers-on-reexport": "change"})
	v := r.grown(t)
	if _, err := r.ExportUnused(t.Context(), v.ID.Slot); err != nil {
		t.Fatal(err)
	}
	sent := r.server.Device.Commands()
	late := sent[len(sent)-1]
	if !strings.Contains(late, "nvme-tcp-export=no") {
		t.Fatalf("the last script was %s", late)
	}
	for _, size := range []int64{2 * gib, 3 * gib} {
		if _, err := r.Expand(t.Context(), v.ID.Slot, size, 0); err != nil {
			t.Fatal(err)
		}
		before, _ := r.item(t, v.ID.Slot)
		r.device.ask(t, late)
		if now, _ := r.item(t, v.ID.Slot); now != before {
			t.Errorf("%+v became %+v", before, now)
		}
	}
}

// Another cluster's volume is not exported anew, whatever its comment says.
func TestGrowthOfAForeignVolume(t *testing.T) {
	r := start(t, map[string]string{"identifiers-on-reexport": "change"})
	v := r.grown(t)
	r.device.console(t, `/disk set `+v.ID.Slot+` comment="rds-csi/1 cluster=other name=pvc-1 grown=2147483648"`)
	before, _ := r.item(t, v.ID.Slot)
	if _, err := r.ExportUnused(t.Context(), v.ID.Slot); !errors.Is(err, appliance.ErrForeign) {
		t.Error(err)
	}
	if now, _ := r.item(t, v.ID.Slot); now != before {
		t.Errorf("%+v became %+v", before, now)
	}
}
