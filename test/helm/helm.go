// Package helm renders the chart with the real helm, which is built from a module of its own (tools/helm).
package helm

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/rds-csi/rds-csi/test/repo"
)

// Values is the chart's complete set of values for tests, below the chart's folder.
const Values = "ci/test-values.yaml"

// Chart is the folder of the chart.
func Chart() (string, error) {
	root, err := repo.Root()
	return filepath.Join(root, "charts", "rds-csi"), err
}

// Run runs helm in the chart's folder, and builds it first where it is not there or too old. An error holds what helm said.
func Run(ctx context.Context, args ...string) ([]byte, error) {
	root, err := repo.Root()
	if err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "make", "--silent", "--directory", root, "bin/helm").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make bin/helm: %w: %s", err, out)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(root, "bin", "helm"), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Dir = filepath.Join(root, "charts", "rds-csi")
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("helm %q: %w: %s%s", args, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// Template gives the chart's manifests for a release called rds-csi in the namespace rds-csi. Arguments are those of helm template, as --values or --set.
func Template(ctx context.Context, args ...string) ([]byte, error) {
	return Run(ctx, append([]string{"template", "rds-csi", ".", "--namespace", "rds-csi"}, args...)...)
}
