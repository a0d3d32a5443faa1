package routeros

import (
	"errors"
	"slices"
	"testing"
)

func TestDialectOf(t *testing.T) {
	tests := map[string]Dialect{
		"7.21": Dialect721, "7.21.5 (stable)": Dialect721, "7.22.1": Dialect721, "7.21beta2 (development)": Dialect721,
		"7.23": Dialect723, "7.23.8 (long-term)": Dialect723,
		"7.24.4 (stable)": Dialect724, "7.24rc1 (testing)": Dialect724, "7.25.1 (stable)": Dialect724, "7.26beta4 (development)": Dialect724, "8.0": Dialect724, "7.100": Dialect724,
	}
	for version, want := range tests {
		if got, err := dialectOf(version); got != want || err != nil {
			t.Errorf("dialectOf(%q) = %v, %v", version, got, err)
		}
	}
	for _, version := range []string{"7.20.8 (long-term)", "7.2", "7.13.5", "6.49.18 (long-term)"} {
		if _, err := dialectOf(version); !errors.Is(err, ErrUnsupportedVersion) {
			t.Errorf("dialectOf(%q): %v", version, err)
		}
	}
	for _, version := range []string{"", "7", "7.x", "seven.21", "(stable)", "-.-"} {
		if d, err := dialectOf(version); err == nil || errors.Is(err, ErrUnsupportedVersion) || d != DialectUnknown {
			t.Errorf("dialectOf(%q) = %v, %v", version, d, err)
		}
	}
}

func TestDialectsAreOrderedAndNamed(t *testing.T) {
	if !slices.IsSorted([]Dialect{DialectUnknown, Dialect721, Dialect723, Dialect724}) {
		t.Error("a dialect cannot be compared with another one")
	}
	for d, want := range map[Dialect]string{DialectUnknown: "unknown", Dialect721: "7.21", Dialect723: "7.23", Dialect724: "7.24"} {
		if d.String() != want {
			t.Errorf("%d is called %s", int(d), d)
		}
	}
}
