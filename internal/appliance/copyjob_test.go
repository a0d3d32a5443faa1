package appliance

import (
	"strings"
	"testing"
	"time"
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
