// Command cluster builds the programs of the cluster tests, which takes some ten minutes the first time, and says how
// far it is:
//
//	go run ./test/cluster && go test -tags cluster ./test/cluster
//
// The tests run the driver's controller and the CSI sidecars against a real Kubernetes control plane (package
// controlplane) and a simulated RDS. There is no kubelet: nodes are Node and CSINode objects, and what a kubelet would
// write into them the tests write.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rds-csi/rds-csi/test/cluster/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	programs, err := findPrograms(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	fmt.Println("cluster: the control plane and the sidecars are in", programs.Dir)
}

// findPrograms builds what the cache lacks.
func findPrograms(ctx context.Context, log io.Writer) (controlplane.Programs, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return controlplane.Programs{}, err
	}
	return controlplane.Build(ctx, filepath.Join(root, "test", "cluster", "tools"), cacheFolder(root), log)
}

// moduleRoot is the checkout.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// cacheFolder outlives checkouts where the user has a cache folder: the programs are 0.7 GB.
func cacheFolder(root string) string {
	if user, err := os.UserCacheDir(); err == nil {
		return filepath.Join(user, "rds-csi")
	}
	return filepath.Join(root, ".cache")
}
