package appliance

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const adopted = "pvc-2f4a1c8e-7b60-4d5e-9a3b-0c1d2e3f4a5b"

func TestParseID(t *testing.T) {
	for _, c := range []struct {
		handle     string
		rds, slot  string // rds empty: refused
		printed    string
		key        string
		defaultRDS string
	}{
		{handle: "rds1/pvc-abc", defaultRDS: "rds1", rds: "rds1", slot: "pvc-abc", printed: "rds1/pvc-abc", key: "rds1/pvc-abc"},
		{handle: adopted, defaultRDS: "rds1", rds: "rds1", slot: adopted, printed: adopted, key: "rds1/" + adopted},
		{handle: "Rack-2.left/x", defaultRDS: "rds1", rds: "Rack-2.left", slot: "x", printed: "Rack-2.left/x", key: "Rack-2.left/x"},
		{handle: "", defaultRDS: "rds1"},
		{handle: "/x", defaultRDS: "rds1"},
		{handle: "rds1/", defaultRDS: "rds1"},
		{handle: "rds1/a/b", defaultRDS: "rds1"},
		{handle: "rds1/-a", defaultRDS: "rds1"},
		{handle: "rds1/UPPER", defaultRDS: "rds1"},
		{handle: "rds1/a_b", defaultRDS: "rds1"},
		{handle: "../x", defaultRDS: "rds1"},
		{handle: "rds1/a\"; /user add", defaultRDS: "rds1"},
		{handle: "rds1/a\n", defaultRDS: "rds1"},
		{handle: "rds1/" + strings.Repeat("a", 64), defaultRDS: "rds1"},
		{handle: strings.Repeat("r", 64) + "/a", defaultRDS: "rds1"},
		{handle: "bare", defaultRDS: ""},
	} {
		id, err := ParseID(c.handle, c.defaultRDS)
		if c.rds == "" {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("ParseID(%q) = %v, %v, want ErrInvalid", c.handle, id, err)
			}
			continue
		}
		if err != nil || id.RDS != c.rds || id.Slot != c.slot || id.String() != c.printed || id.Key() != c.key {
			t.Errorf("ParseID(%q) = %+v (%s), %v", c.handle, id, id, err)
		}
	}
}

// FuzzParseID: whatever is accepted prints as it came, and holds nothing that a console could take for more than a name.
func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"rds1/pvc-abc", adopted, "a", "/", "a/b/c", "rds1/$x", "rds1/\x00", "é/a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, handle string) {
		id, err := ParseID(handle, "rds1")
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%q: %v is not ErrInvalid", handle, err)
			}
			return
		}
		if id.String() != handle {
			t.Fatalf("%q prints as %q", handle, id)
		}
		if len(handle) > 128 || strings.ContainsAny(handle, "\"\\$?{}[];= \t\r\n") {
			t.Fatalf("%q was accepted", handle)
		}
	})
}

func TestSlotFor(t *testing.T) {
	// The value is fixed for all time: volumes are found by it.
	if got, want := SlotFor("homelab", "pvc-0001"), "pvc-rlx6zzjnusvzrstsc4kowkyt7k"; got != want {
		t.Errorf("SlotFor = %q, want %q", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		cluster, name := rapid.String().Draw(t, "cluster"), rapid.String().Draw(t, "name")
		slot := SlotFor(cluster, name)
		switch {
		case slot != SlotFor(cluster, name):
			t.Fatal("not deterministic")
		case !ValidSlot(slot) || len(slot) > 32 || !derivedSlot(slot) || adoptableSlot(slot):
			t.Fatalf("slot %q is outside the grammar", slot)
		case slot == SlotFor(cluster+"x", name) || slot == SlotFor(cluster, name+"x"):
			t.Fatalf("slot %q says nothing about cluster or name", slot)
		}
	})
}

func TestSlotForms(t *testing.T) {
	for slot, want := range map[string][2]bool{ // derived, adoptable
		SlotFor("c", "n"):                  {true, false},
		adopted:                            {false, true},
		strings.ToUpper(adopted):           {false, false},
		adopted + "-1":                     {false, false},
		"pvc-2f4a1c8e7b604d5e9a3b0c1d2e3f": {false, false},
		"pvc-":                             {false, false},
		"swapfile":                         {false, false},
		"pvc-aaaaaaaaaaaaaaaaaaaaaaaaa1":   {false, false},
	} {
		if got := [2]bool{derivedSlot(slot), adoptableSlot(slot)}; got != want {
			t.Errorf("%s: derived, adoptable = %v, want %v", slot, got, want)
		}
	}
}

func TestNQNFor(t *testing.T) {
	if got := NQNFor(adopted); got != "nqn.2000-02.com.mikrotik:"+adopted {
		t.Errorf("NQNFor = %q: volumes of the existing driver would not be found", got)
	}
}
