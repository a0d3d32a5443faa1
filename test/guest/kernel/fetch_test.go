package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// packageLists has apt-cache know these packages and no others.
func packageLists(t *testing.T, records map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, record := range records {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("#!/bin/sh\nexec cat '%s'/\"$3\"\n", dir) // show --no-all-versions NAME
	if err := os.WriteFile(filepath.Join(dir, "apt-cache"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// offers are the records of a meta package and of its kernel.
func offers(meta, release string) map[string]string {
	image := "linux-image-" + release
	return map[string]string{meta: "Depends: " + image + " (= 1)\n", image: "Version: 1\n"}
}

// The lists of a machine are renewed now and then, and meanwhile they offer less or nothing.
func TestChosenKernelStays(t *testing.T) {
	cache, first, second := t.TempDir(), metaPackages()[0], metaPackages()[1]
	for _, release := range []string{"6.12.1", "6.12.2", "6.1.9"} {
		kernelTree(t, filepath.Join(cache, "linux-image-"+release+"_1"), "lib", release)
	}
	for _, step := range []struct {
		lists        map[string]string
		found, given string
		said         bool
	}{
		{offers(first, "6.12.1"), "6.12.1", "6.12.1", false},
		{offers(second, "6.1.9"), "6.12.1", "6.12.1", true}, // the first is not known just now
		{nil, "6.12.1", "6.12.1", true},
		{offers(first, "6.12.2"), "6.12.2", "6.12.1", false}, // a newer one
		{nil, "6.12.2", "6.12.2", true},
	} {
		packageLists(t, step.lists)
		var log strings.Builder
		if kernel, err := Chosen(t.Context(), cache, &log); err != nil || kernel.Release != step.given || log.Len() > 0 {
			t.Errorf("a run has %+v instead of %s, %v: %s", kernel, step.given, err, log.String())
		}
		if kernel, err := Find(t.Context(), cache, &log); err != nil || kernel.Release != step.found || (log.Len() > 0) != step.said {
			t.Errorf("found %+v instead of %s, %v: %s", kernel, step.found, err, log.String())
		}
	}
	if err := os.RemoveAll(filepath.Join(cache, "linux-image-6.12.2_1")); err != nil {
		t.Fatal(err)
	}
	packageLists(t, offers(second, "6.1.9"))
	if kernel, err := Chosen(t.Context(), cache, &strings.Builder{}); err != nil || kernel.Release != "6.1.9" {
		t.Errorf("after the chosen one went: %+v, %v", kernel, err)
	}
}
