package manifests

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/test/catalogue"
)

// What the documentation tells users to look at is there.
func TestDocumentationNamesRealMetrics(t *testing.T) {
	all, err := catalogue.Read("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	check := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\brds_[a-z_]*[a-z]\b`).FindAllString(strings.ReplaceAll(string(text), "rds_disk_*", ""), -1) {
			if strings.HasPrefix(name, "rds_csi_") || strings.HasPrefix(name, "rds_hardware_") || strings.HasPrefix(name, "rds_disk_") {
				found++
				if _, err := catalogue.Check(all, name); err != nil && !isHistogram(all, name) {
					t.Errorf("%s: %v", path, err)
				}
			}
		}
	}
	err = filepath.WalkDir("../../docs", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			check(path)
		}
		return err
	})
	check("../../README.md")
	if err != nil || found < 50 {
		t.Errorf("%d names: %v", found, err)
	}
}

func isHistogram(all []catalogue.Metric, name string) bool {
	for _, m := range all {
		if m.Name == name && m.Type == "histogram" {
			return true
		}
	}
	return false
}
