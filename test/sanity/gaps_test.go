package sanity

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What is left out, users can read of.
func TestEachGapIsALineOfTheLimits(t *testing.T) {
	limits, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(limits), "\n")
	seen := map[string]bool{}
	for _, g := range append(Gaps(), ImagesStay()) {
		if len(g.Limit) < len("**x.**") || len(g.Specs) == 0 {
			t.Errorf("%+v says nothing", g)
		}
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, g.Limit) }) {
			t.Errorf("no line of docs/limits.md has %q, and %d specs of csi-sanity do not run for it", g.Limit, len(g.Specs))
		}
		for _, spec := range g.Specs {
			if seen[spec] {
				t.Errorf("twice: %s", spec)
			}
			seen[spec] = true
		}
	}
}

func TestNothingIsLeftOutSilently(t *testing.T) {
	var listed []string
	for _, g := range Gaps() {
		listed = append(listed, g.Specs...)
	}
	rest := specs - len(listed)
	for _, c := range []struct {
		name   string
		passed int
		left   []string
		wrong  string // how the one complaint begins; empty: there is none
	}{
		{"as listed", rest, listed, ""},
		{"one more is skipped", rest - 1, append(slices.Clone(listed), "skipped: x"), "did not run, and should: skipped: x"},
		{"one failed", rest - 1, append(slices.Clone(listed), "failed: x"), "did not run, and should: failed: x"},
		{"one of the list ran", rest + 1, listed[1:], "is in the list of what does not run, and ran, or is no spec: " + listed[0]},
		{"a group has gone", rest - 5, listed, "csi-sanity has 98 specs here"},
	} {
		wrong := differences(c.passed, c.left, Gaps())
		if c.wrong == "" && len(wrong) != 0 || c.wrong != "" && (len(wrong) != 1 || !strings.HasPrefix(wrong[0], c.wrong)) {
			t.Errorf("%s: %q", c.name, wrong)
		}
	}
}
