package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

const modulePath = "github.com/rds-csi/rds-csi"

// tier is a line of the table; the numbers are those of docs/architecture.md, "How it is proved".
type tier struct {
	number   int
	name     string
	packages int
	counts   counts
	faults   []string // what keeps the tier from being believed although no test failed
}

// fault is a reason to fail the run that is not a test's.
func (t *tier) fault(format string, args ...any) {
	t.faults = append(t.faults, fmt.Sprintf(format, args...))
}

func (t *tier) take(s *suite) {
	c := s.count()
	if c != (counts{}) {
		t.packages++
	}
	t.counts.add(c)
}

// close adds the fault that a tier cannot see while it runs.
func (t *tier) close() {
	if t.counts.passed+t.counts.failed+t.counts.skipped == 0 && len(t.faults) == 0 {
		t.fault("no test ran in tier %d", t.number)
	}
}

// goPackage is what go list tells of a package's tests.
type goPackage struct {
	ImportPath                string
	Dir                       string
	TestImports, XTestImports []string
	TestGoFiles, XTestGoFiles []string
}

func (p goPackage) testFiles() int { return len(p.TestGoFiles) + len(p.XTestGoFiles) }

// againstSimulator is the rule that tells tier 2 from tier 1, by package: its tests import the simulator (a real SSH
// server) or csi-sanity. The simulator's own tests are tier 1: there it is what is tested, not what is tested against.
func (p goPackage) againstSimulator() bool {
	const simulator = modulePath + "/internal/sim"
	if below(p.ImportPath, simulator) {
		return false
	}
	return slices.ContainsFunc(slices.Concat(p.TestImports, p.XTestImports), func(imported string) bool {
		return below(imported, simulator) || below(imported, "github.com/kubernetes-csi/csi-test/v5")
	})
}

func below(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// list asks the go command for all packages below the patterns.
func list(ctx context.Context, args ...string) ([]goPackage, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-json=ImportPath,Dir,TestImports,XTestImports,TestGoFiles,XTestGoFiles"}, args...)...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, complaint.Bytes())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		packages = append(packages, p)
	}
}

// taggedPackages are those with test files that only the build tag brings in.
func taggedPackages(plain, tagged []goPackage) []goPackage {
	files := map[string]int{}
	for _, p := range plain {
		files[p.ImportPath] = p.testFiles()
	}
	return slices.DeleteFunc(slices.Clone(tagged), func(p goPackage) bool { return p.testFiles() <= files[p.ImportPath] })
}

// table is the end of the run. It says whether the run is good: every test passed, none was skipped, no tier is empty.
func table(w io.Writer, tiers []*tier) (good bool, err error) {
	var text strings.Builder
	fmt.Fprintf(&text, "\n%-48s %9s %7s %7s %8s\n", "tier", "packages", "passed", "failed", "skipped")
	var all counts
	faults := 0
	for _, t := range tiers {
		fmt.Fprintf(&text, "%d  %-45s %9d %7d %7d %8d\n", t.number, t.name, t.packages, t.counts.passed, t.counts.failed, t.counts.skipped)
		all.add(t.counts)
		if t.counts.failed == 0 { // else it is the same failure, counted already
			faults += len(t.faults)
		}
	}
	for _, t := range tiers {
		for _, fault := range t.faults {
			fmt.Fprintf(&text, "tier %d: %s\n", t.number, fault)
		}
	}
	if all.skipped > 0 {
		text.WriteString("a skipped test proves nothing and counts as failed\n")
	}
	bad := all.failed + all.skipped + faults
	fmt.Fprintf(&text, "%d passed, %d failed\n", all.passed, bad)
	_, err = io.WriteString(w, text.String())
	return bad == 0, err
}
