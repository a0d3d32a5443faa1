//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/rds-csi/rds-csi/test/cluster/controlplane"
)

// The one control plane of the run, and what the tests see of it.
var (
	plane *controlplane.ControlPlane
	seen  *view
	built string // folder of rds-csi and rds-sim
	root  string // the checkout

	leasesLost atomic.Int32 // by controllers that were started again (replica.again)
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, m)
	stop()
	if err == nil && code == 0 {
		err = goleak.Find(goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1")) // klog's never ends
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	began := time.Now()
	if root, err = moduleRoot(ctx); err != nil {
		return 0, err
	}
	programs, err := findPrograms(ctx, os.Stderr)
	if err != nil {
		return 0, err
	}
	dir, err := workFolder()
	if err != nil {
		return 0, err
	}
	if built, err = buildOurs(ctx, dir); err != nil {
		return 0, err
	}
	if plane, err = controlplane.Start(ctx, programs, dir); err != nil {
		return 0, err
	}
	closed := context.AfterFunc(ctx, plane.Close) // an interrupted run ends its tests by taking Kubernetes from them
	if err := errors.Join(install(ctx), look(ctx)); err != nil {
		plane.Close()
		return 0, err
	}
	fmt.Fprintf(os.Stderr, "cluster: ready after %s, logs in %s\n", time.Since(began).Round(time.Second), plane.Logs())
	code = m.Run()
	err = checkRequests(ctx)
	seen.close()
	if closed() {
		plane.Close()
	}
	if code == 0 && err == nil && leasesLost.Load() == 0 {
		err = os.RemoveAll(dir)
	}
	return code, err
}

// workFolder is in the checkout, where a person looks for logs; it goes when the run was good.
func workFolder() (string, error) {
	parent := filepath.Join(root, ".cache", "cluster")
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return "", err
	}
	return os.MkdirTemp(parent, time.Now().Format("0102-150405-"))
}

// buildOurs builds what is tested from this very tree.
func buildOurs(ctx context.Context, dir string) (string, error) {
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o750); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", bin+"/", "./cmd/rds-csi", "./cmd/rds-sim")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return bin, nil
}

// install brings what an administrator brings beside the chart: the CRDs of snapshots and their controller.
func install(ctx context.Context) error {
	const snapshotter, account = "github.com/kubernetes-csi/external-snapshotter", "snapshot-controller"
	crds, first := plane.Programs.Manifests(ctx, snapshotter+"/client/v8", "config/crd/snapshot.storage.k8s.io_*.yaml")
	roles, second := plane.Programs.Manifests(ctx, snapshotter+"/v8", "deploy/kubernetes/snapshot-controller/rbac-snapshot-controller.yaml")
	if err := errors.Join(first, second, plane.ApplyFiles(ctx, append(crds, roles...)...)); err != nil {
		return err
	}
	file := filepath.Join(plane.Logs(), "..", "kubeconfig", account)
	if err := plane.Kubeconfig(ctx, metav1.NamespaceSystem, account, plane.Front.Address(), file); err != nil {
		return err
	}
	// It ends itself when it finds no CRDs, which the API server serves a moment after they were accepted.
	go supervise(ctx, account, plane.Programs.Path(account), []string{"--kubeconfig=" + file, "--retry-interval-max=5s", "--v=5"})
	return nil
}
