// Package prometheus runs the real Prometheus and its promtool in tests: what they make of our metrics and rules is what users get.
package prometheus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/rds-csi/rds-csi/test/repo"
)

// Program finds prometheus or promtool: where scripts/setup.sh unpacks Debian's package, else, as in the guest, on PATH.
func Program(name string) (string, error) {
	if root, err := repo.Root(); err == nil {
		path := filepath.Join(root, ".cache", "prometheus", "usr", "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: run scripts/setup.sh test, which fetches it", err)
	}
	return path, nil
}

// Promtool runs promtool and gives what it says. An error holds it too.
func Promtool(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	path, err := Program("promtool")
	if err != nil {
		return nil, err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &said, &said
	if err := cmd.Run(); err != nil {
		return said.Bytes(), fmt.Errorf("promtool %q: %w: %s", args, err, said.Bytes())
	}
	return said.Bytes(), nil
}
