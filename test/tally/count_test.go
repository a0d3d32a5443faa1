package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// read counts one fixture of testdata: what go test -json printed for a package made to end that way, times and
// addresses taken out.
func read(t *testing.T, fixture string) (*suite, string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", fixture+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var suites []*suite
	stray, err := collect(bytes.NewReader(data), nil, func(s *suite) { suites = append(suites, s) })
	if err != nil || len(suites) != 1 || len(stray) != 0 {
		t.Fatalf("%d packages, stray %q, error %v", len(suites), stray, err)
	}
	var report bytes.Buffer
	if err := suites[0].report(&report); err != nil {
		t.Fatal(err)
	}
	return suites[0], report.String()
}

func TestCounts(t *testing.T) {
	for _, c := range []struct {
		fixture string
		want    counts
		shown   []string // in the report
		silent  []string // not in the report
	}{
		{"good", counts{passed: 5}, []string{"ok ", "5 passed"}, []string{"quiet", "FAIL"}},
		{"bad", counts{passed: 3, failed: 2}, []string{"FAIL", "size 1 instead of 2", "clean-up failed"}, []string{"never shown"}},
		{"skip", counts{passed: 1, skipped: 1}, []string{"1 skipped", "no device here"}, nil},
		{"panics", counts{passed: 1, failed: 1}, []string{"nil map", "goroutine"}, nil},
		{"exits", counts{passed: 1, failed: 1}, []string{"goleak"}, nil},
		{"slow", counts{failed: 1}, []string{"test timed out"}, nil},
		{"nobuild", counts{failed: 1}, []string{"undefined: undefined"}, nil},
		{"cut", counts{passed: 2, failed: 1}, []string{"FAIL"}, nil}, // a guest that died under TestTable/two
		{"empty", counts{}, nil, []string{"empty"}},
		{"notests", counts{}, nil, []string{"notests"}},
	} {
		t.Run(c.fixture, func(t *testing.T) {
			s, report := read(t, c.fixture)
			if diff := cmp.Diff(c.want, s.count(), cmp.AllowUnexported(counts{})); diff != "" {
				t.Error(diff)
			}
			for _, text := range c.shown {
				if !strings.Contains(report, text) {
					t.Errorf("%q is not in the report:\n%s", text, report)
				}
			}
			for _, text := range c.silent {
				if strings.Contains(report, text) {
					t.Errorf("%q is in the report:\n%s", text, report)
				}
			}
		})
	}
}

func TestPlainTextAmongEventsIsKept(t *testing.T) {
	stray, err := collect(strings.NewReader("go: updates to go.mod needed\n"), nil, func(*suite) { t.Error("a package out of nothing") })
	if err != nil || len(stray) != 1 {
		t.Errorf("stray %q, error %v", stray, err)
	}
}

func TestTable(t *testing.T) {
	for _, c := range []struct {
		name string
		tier tier
		good bool
		last string
		said string
	}{
		{"all is well", tier{counts: counts{passed: 7}}, true, "7 passed, 0 failed", ""},
		{"a failure", tier{counts: counts{passed: 7, failed: 1}}, false, "7 passed, 1 failed", ""},
		{"a skip fails the run", tier{counts: counts{passed: 7, skipped: 2}}, false, "7 passed, 2 failed", "skipped test"},
		{"an empty tier fails the run", tier{number: 3}, false, "0 passed, 1 failed", "no test ran in tier 3"},
		{"a fault beside a failure counts once", tier{counts: counts{failed: 1}, faults: []string{"status 125"}}, false, "0 passed, 1 failed", "status 125"},
		{"a guest that died", tier{counts: counts{passed: 7}, faults: []string{"status 125"}}, false, "7 passed, 1 failed", "status 125"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.tier.close()
			var out bytes.Buffer
			good, err := table(&out, []*tier{&c.tier})
			if err != nil || good != c.good {
				t.Errorf("good %v, error %v", good, err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := lines[len(lines)-1]; got != c.last {
				t.Errorf("last line %q", got)
			}
			if !strings.Contains(out.String(), c.said) {
				t.Errorf("%q is not in\n%s", c.said, out.String())
			}
		})
	}
}

func TestTierCountsOnlyPackagesWithTests(t *testing.T) {
	var unit tier
	for _, fixture := range []string{"good", "empty", "bad"} {
		s, _ := read(t, fixture)
		unit.take(s)
	}
	if diff := cmp.Diff(counts{passed: 8, failed: 2}, unit.counts, cmp.AllowUnexported(counts{})); diff != "" || unit.packages != 2 {
		t.Errorf("%d packages, %s", unit.packages, diff)
	}
}

func TestSecondTierIsWhatTestsAgainstTheSimulator(t *testing.T) {
	for _, c := range []struct {
		path    string
		imports []string
		want    bool
	}{
		{"/internal/attach", []string{"pgregory.net/rapid"}, false},
		{"/internal/appliance", []string{modulePath + "/internal/sim/simtest"}, true},
		{"/internal/appliance", []string{modulePath + "/internal/sim/console"}, true},
		{"/test/sanity", []string{"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"}, true},
		{"/internal/sim", []string{modulePath + "/internal/sim/simtest"}, false},
		{"/internal/driver", []string{modulePath + "/internal/simple"}, false},
	} {
		p := goPackage{ImportPath: modulePath + c.path, XTestImports: c.imports}
		if got := p.againstSimulator(); got != c.want {
			t.Errorf("%s with %v: %v", c.path, c.imports, got)
		}
	}
}

func TestTaggedPackagesAreThoseThatTheTagBrings(t *testing.T) {
	plain := []goPackage{{ImportPath: "kernel"}, {ImportPath: "sanity", XTestGoFiles: []string{"host_test.go"}}, {ImportPath: "unit", TestGoFiles: []string{"a_test.go"}}}
	tagged := []goPackage{
		{ImportPath: "kernel", TestGoFiles: []string{"nvme_test.go"}},
		{ImportPath: "sanity", XTestGoFiles: []string{"guest_test.go", "host_test.go"}},
		{ImportPath: "unit", TestGoFiles: []string{"a_test.go"}},
	}
	got := taggedPackages(plain, tagged)
	want := []goPackage{tagged[0], tagged[1]}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}
