package sanity

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"
)

// variable tells a process what to run the suite against.
const variable = "RDS_CSI_SANITY"

// Each calls against for every name, in a process of its own: Ginkgo has one suite per process. prepare may make the tests
// parallel, where they have no kernel in common.
func Each(t *testing.T, names []string, prepare func(*testing.T), against func(t *testing.T, name string)) {
	t.Helper()
	if name, ok := os.LookupEnv(variable); ok {
		if !slices.Contains(names, name) {
			t.Fatalf("%s=%s: there are %q", variable, name, names)
		}
		against(t, name)
		return
	}
	test := t.Name()
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			prepare(t)
			inProcess(t, test, name)
		})
	}
}

// inProcess runs a test once more. That it passed is not enough: it must say that it has run the suite.
func inProcess(t *testing.T, test, name string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	process := exec.CommandContext(t.Context(), self, "-test.run=^"+test+"$", "-test.timeout=5m", "-test.v")
	process.Env = append(os.Environ(), variable+"="+name)
	out, err := process.CombinedOutput()
	said := regexp.MustCompile(summary + ".*").Find(out)
	if err != nil || said == nil {
		t.Errorf("%v\n%s", err, out)
		return
	}
	t.Logf("%s", said)
}

// summary is what Run begins its last line with.
const summary = "csi-sanity: "
