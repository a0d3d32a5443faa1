package appliance

import (
	"strings"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// Whatever names users give, a copy can be begun: the job travels as one quoted value, and there is a limit to these.
func TestCopyScriptsFit(t *testing.T) {
	id := SnapshotIDFor("homelab", "x")
	for _, c := range []struct{ dir, source, name string }{
		{"/storage-pool/k8s", SlotFor("homelab", "x"), "snapshot-2f4a1c8e-7b60-4d5e-9a3b-0c1d2e3f4a5b"},
		{"/storage-pool/metal-csi", adopted, strings.Repeat(`"`, 128)},
		{"/storage-pool/" + strings.Repeat("d", 60), adopted, strings.Repeat("é", 64)},
	} {
		dir := mustPath(t, c.dir)
		from, err := flat(dir, c.source)
		if err != nil {
			t.Fatal(err)
		}
		to, err := dir.Join(id + "." + c.source + ".img")
		if err != nil {
			t.Fatal(err)
		}
		job := copyJob{of: sighting{dir: dir, target: id, source: c.source}, from: from, to: to, volume: c.source, mark: newMark(c.name, 1<<42)}
		b, err := job.script("homelab")
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		s, err := b.Build()
		if err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		t.Logf("%d bytes", len(s.String()))
		if m := parseMark(job.mark.String() + errorKey + "failure: a=b c=d"); m.size != 1<<42 || m.nonce != job.mark.nonce || m.text != "failure: a=b c=d" || !m.created.Equal(job.mark.created) {
			t.Errorf("read back %+v", m)
		}
	}
}

// Which job makes a copy is known by its mark, and without one by the time at which both began: then no second one is begun. What
// cannot be read excludes nothing for a day, and what a mark says of a job that does not run is that it is dead.
func TestTheJobOfACopyWithoutAMark(t *testing.T) {
	const claimed = "2026-11-23 12:00:00"
	for name, c := range map[string]struct {
		jobs, mark, claimed string
		want                phase
		clock               string
	}{
		"its mark":                       {"*5 2026-11-23 12:00:00;", "*5 2026-11-23 12:00:00", claimed, moving, ""},
		"its mark, and it is gone":       {"", "*5 2026-11-23 12:00:00", claimed, lost, ""},
		"its mark, and others run":       {"*6 2026-11-23 12:00:00;", "*5 2026-11-23 12:00:00", claimed, lost, ""},
		"the mark of one that had ended": {"*6 2026-11-23 12:00:00;", "*5 ", claimed, lost, ""},
		"an id, no start":                {"*1 2026-11-20 08:00:00;*5 2026-11-23 12:00:01;", "*5 ", claimed, moving, ""},
		"an id, no start of either":      {"*5 ;", "*5 ", claimed, moving, ""},
		"an id, no start, another boot":  {"*5 2026-11-24 12:00:00;", "*5 ", claimed, lost, ""},
		"an id that begins alike":        {"*55 2026-11-23 12:00:00;", "*5 ", claimed, lost, ""},
		"no mark, no job":                {"", "", claimed, lost, ""},
		"no mark, and it runs":           {"*1 2026-11-20 08:00:00;*5 2026-11-23 12:00:01;", "", claimed, moving, ""},
		"an empty mark, and it runs":     {"*5 2026-11-23 11:59:59;", "\x00\x00", claimed, moving, ""},
		"no mark, an older job":          {"*5 2026-11-23 11:59:57;", "", claimed, lost, ""},
		"no mark, a younger job":         {"*5 2026-11-23 12:00:11;", "", claimed, lost, ""},
		"no mark, no time of the job":    {"*5 nov/23/2026 12:00:00;", "", claimed, moving, ""},
		"no mark, no time of the claim":  {"*5 2026-11-20 08:00:00;", "", "", moving, ""},
		"no time of the job, soon":       {"*5 ;", "", claimed, moving, "+02:00 2026-11-24 11:59:59"},
		"no time of the job, a day":      {"*5 ;", "", claimed, lost, "+02:00 2026-11-24 12:00:00"},
		"an id, no start, a day":         {"*5 ;", "*5 ", claimed, lost, "+02:00 2026-11-24 12:00:00"},
		"its times, after days":          {"*5 2026-11-23 12:00:00;", "", claimed, moving, "+02:00 2026-11-29 12:00:00"},
		"no clock of the rds, a day":     {"*5 ;", "", "old", lost, ""},
		"a clock that was set back":      {"*5 ;", "", claimed, lost, "+02:00 2020-01-01 00:00:00"},
	} {
		begun := newMark("x", 1)
		if c.claimed == "old" {
			begun.created = begun.created.Add(-longest)
		}
		id := SnapshotIDFor("homelab", "x")
		file := `{"name":"p/` + id + `.pvc-1.`
		files := file + `copying","last-modified":"` + c.claimed + `","contents":"` + begun.String() + `"}`
		if c.mark != "" {
			files += "," + file + `job","contents":"` + strings.ReplaceAll(c.mark, "\x00", "\\u0000") + `"}`
		}
		seen, err := sightings(routeros.Reply{Lines: []string{jobsWord + c.jobs, "[" + files + "]", "[]", c.clock}}, 0, ValidSnapshotID)
		if err != nil || len(seen) != 1 || seen[0].phase() != c.want || seen[0].alive != (name == "its mark") {
			t.Errorf("%s: %+v, %v, want phase %d", name, seen, err, c.want)
		}
	}
}

// What a person or a power loss has left in a mark proves nothing.
func TestSpoiltMarksProveNothing(t *testing.T) {
	for _, contents := range []string{"", " ", "rds-csi/1", "size=x", "size=", "size=-1", "error=", "\x00\x00", "size=99999999999999999999"} {
		s := sighting{image: mustPath(t, "/a/b"), size: 1, marks: map[string]mark{done: parseMark(contents)}}
		if s.phase() == proven {
			t.Errorf("%q proves a copy", contents)
		}
	}
}

func TestClockOfTheDevice(t *testing.T) {
	for zone, want := range map[string]time.Duration{
		"+00:00": 0, "+02:00": 2 * time.Hour, "-03:30": -210 * time.Minute, "02:00:00": 2 * time.Hour, "": 0, "UTC": 0, "+99:00": 0, "0": 0,
	} {
		if got := offset(zone); got != want {
			t.Errorf("%q: %s, want %s", zone, got, want)
		}
	}
	if got := deviceTime("2026-11-23 12:00:00", 2*time.Hour); !got.Equal(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("%s", got)
	}
	if got := deviceTime("nov/23/2026", 0); !got.IsZero() {
		t.Errorf("%s", got)
	}
}

func TestSnapshotIDs(t *testing.T) {
	id := SnapshotIDFor("homelab", "snapshot-1")
	if len(id) != 40 || !ValidSlot(id) || !ValidSnapshotID(id) || id == SnapshotIDFor("homelab", "snapshot-2") || id == SnapshotIDFor("other", "snapshot-1") {
		t.Errorf("%s", id)
	}
	if !strings.HasPrefix(id, snapshotsOf("homelab")) || strings.HasPrefix(id, snapshotsOf("other")) {
		t.Errorf("%s does not say whose it is", id)
	}
	for _, s := range []string{"", adopted, SlotFor("homelab", "x"), id + "x", id[:39], strings.ToUpper(id), "snap-" + strings.Repeat("a", 35)} {
		if ValidSnapshotID(s) {
			t.Errorf("%q is taken for a snapshot", s)
		}
	}
}

// A list of files is not of one instant. What is seen of a copy that ends meanwhile, its image or the mark of its job without any
// other one, is looked at again: it is neither begun anew nor absent.
func TestACopyThatEndsWhileItIsListed(t *testing.T) {
	const name = "snapshot-1"
	source, id := SlotFor("homelab", "x"), SnapshotIDFor("homelab", name)
	file := `{"name":"storage-pool/k8s/` + id + "." + source + "."
	job, img := file+`job","contents":"*5 2026-11-23 12:00:00"}`, file+`img","size":1048576}`
	whole := "[" + img + "," + job + "," + file + `done","contents":"` + newMark(name, 1<<20).String() + `"}]`
	for _, torn := range []string{job, img, img + "," + job} {
		look := func(files string) []string { return []string{jobsWord, files, "[]", "+00:00 2026-11-23 12:00:01"} }
		seen, after := look("["+torn+"]"), look(whole)
		item := ours("x", 1<<20)
		r, c := newRDS(t, append([]string{item}, seen...), after)
		if s, err := r.CreateSnapshot(t.Context(), SnapshotRequest{Name: name, Source: source}); err != nil || !s.Ready || len(c.sent) != 2 {
			t.Errorf("%s: %+v, %v, %d commands", torn, s, err, len(c.sent))
		}
		r, c = newRDS(t, seen, append([]string{"[]"}, after...))
		if s, err := r.GetSnapshot(t.Context(), id); err != nil || !s.Ready || len(c.sent) != 2 {
			t.Errorf("%s: %+v, %v, %d commands", torn, s, err, len(c.sent))
		}
	}
}
