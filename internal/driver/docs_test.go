package driver_test

import (
	"os"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// The page on StorageClasses has a row for each parameter that there is, and none for another one.
func TestParametersAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/storageclass.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| key | default | meaning |")
	table, _, _ = strings.Cut(table, "\n\n")
	documented := map[string]bool{}
	for row := range strings.Lines(table) {
		keys, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for i, part := range strings.Split(keys, "`") {
			if i%2 == 1 {
				documented[part] = true
			}
		}
	}
	req := createRequest("x", gib)
	req.Parameters = map[string]string{"?": "x"}
	_, err = newScene(t, attach.Standalone()).CreateVolume(t.Context(), req)
	_, known, found := strings.Cut(err.Error(), "known are ")
	if !found {
		t.Fatal(err)
	}
	for key := range strings.SplitSeq(known, ", ") {
		if strings.HasPrefix(key, "csi.storage.k8s.io/p") { // what external-provisioner tells
			continue
		}
		if !documented[key] {
			t.Errorf("%s is not in docs/storageclass.md", key)
		}
		delete(documented, key)
	}
	if len(documented) > 0 {
		t.Errorf("docs/storageclass.md tells of parameters that do not exist: %v", documented)
	}
}
