// Package repo finds this repository from within one of its tests.
package repo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Root is the folder of the driver's go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		text, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module github.com/rds-csi/rds-csi\n") { // and not a nested module's
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not in the repository of rds-csi", dir)
		}
	}
}
