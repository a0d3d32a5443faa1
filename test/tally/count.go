package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64
	ImportPath  string // of build-output and build-fail, which name no package
	FailedBuild string // of a package's fail: whose build broke it
}

// outcome is how a test or a package ended; pending is one that never told.
type outcome string

const (
	pending outcome = ""
	passed  outcome = "pass"
	failed  outcome = "fail"
	skipped outcome = "skip"
)

// suite is what one package's tests did.
type suite struct {
	name    string
	outcome outcome
	elapsed time.Duration
	tests   map[string]outcome
	output  map[string][]string // by test; "" is the package's own
	build   []string            // what the compiler said
}

// counts are numbers of tests. A test with subtests is not counted beside them, unless it failed on its own account.
type counts struct {
	passed, failed, skipped int
}

func (c *counts) add(other counts) {
	c.passed += other.passed
	c.failed += other.failed
	c.skipped += other.skipped
}

// collect reads events to the end of the stream and calls done for each package as it ends, and say, if not nil, for
// each event. A line that is no event (the go command complains in plain text at times) is given to the caller.
func collect(r io.Reader, say func(event), done func(*suite)) (stray []string, err error) {
	suites := map[string]*suite{}
	builds := map[string][]string{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20) // a test may print a very long line
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			stray = append(stray, lines.Text())
			continue
		}
		if say != nil {
			say(e)
		}
		switch {
		case e.Action == "build-output":
			builds[e.ImportPath] = append(builds[e.ImportPath], e.Output)
		case e.Package != "":
			s := suites[e.Package]
			if s == nil {
				s = newSuite(e.Package)
				suites[e.Package] = s
			}
			if s.take(e) {
				s.build = builds[e.FailedBuild]
				done(s)
				delete(suites, e.Package)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(suites)) { // the stream ended under them
		done(suites[name])
	}
	return stray, lines.Err()
}

func newSuite(name string) *suite {
	return &suite{name: name, tests: map[string]outcome{}, output: map[string][]string{}}
}

// take notes one event and says whether the package has ended with it.
func (s *suite) take(e event) (ended bool) {
	switch e.Action {
	case "output":
		s.output[e.Test] = append(s.output[e.Test], e.Output)
	case "run":
		s.tests[e.Test] = pending
	case "pass", "fail", "skip":
		if e.Test != "" {
			s.tests[e.Test] = outcome(e.Action)
			return false
		}
		s.outcome = outcome(e.Action)
		s.elapsed = time.Duration(e.Elapsed * float64(time.Second))
		return true
	}
	return false
}

// count sums up. What never ended has failed; so has a package that failed without any of its tests failing: it did
// not build, panicked, leaked goroutines or ran into its deadline.
func (s *suite) count() counts {
	var c counts
	for name := range s.tests {
		switch s.verdict(name) {
		case passed:
			c.passed++
		case failed:
			c.failed++
		case skipped:
			c.skipped++
		case pending: // its subtests are counted
		}
	}
	if s.outcome != passed && s.outcome != skipped && c.failed == 0 {
		c.failed++
	}
	return c
}

// verdict is the outcome with which a test is counted; pending means that it is not, because its subtests are.
func (s *suite) verdict(name string) outcome {
	own := s.tests[name]
	if own == pending {
		own = failed
	}
	parent, subFailed := false, false
	for sub, result := range s.tests {
		if strings.HasPrefix(sub, name+"/") {
			parent = true
			subFailed = subFailed || result == failed || result == pending
		}
	}
	switch {
	case !parent:
		return own
	case own == failed && !subFailed:
		return failed
	}
	return pending
}

// report writes what a person needs of a package: one line when all is well, else everything that failed or was
// skipped with its whole output.
func (s *suite) report(w io.Writer) error {
	c := s.count()
	if c.failed == 0 && c.skipped == 0 {
		if len(s.tests) == 0 {
			return nil // no test files: nothing to say
		}
		_, err := fmt.Fprintf(w, "ok    %-52s %4d passed  %6.1fs\n", short(s.name), c.passed, s.elapsed.Seconds())
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "FAIL  %-52s %4d passed, %d failed, %d skipped  %.1fs\n", short(s.name), c.passed, c.failed, c.skipped, s.elapsed.Seconds())
	for _, line := range s.build {
		text.WriteString("      " + line)
	}
	for _, name := range slices.Sorted(maps.Keys(s.output)) {
		if s.concerns(name) {
			text.WriteString("      " + strings.Join(s.output[name], "      "))
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// concerns says whether a test's output belongs into the report: it did not pass, or it is the package's own.
func (s *suite) concerns(name string) bool {
	return name == "" || s.tests[name] != passed
}

func short(name string) string { return strings.TrimPrefix(name, modulePath+"/") }
