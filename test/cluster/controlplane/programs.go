package controlplane

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

// Programs is a folder with everything that the control plane and the sidecars are.
type Programs struct {
	Dir    string
	module string // the folder of the tools module
}

// Path of a program.
func (p Programs) Path(name string) string { return filepath.Join(p.Dir, name) }

// packages are what is built, by the name of the program.
func packages() map[string]string {
	const csi = "github.com/kubernetes-csi"
	return map[string]string{
		"etcd":                    "go.etcd.io/etcd/server/v3",
		"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
		"kube-controller-manager": "./kube-controller-manager",
		"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
		"csi-attacher":            csi + "/external-attacher/v4/cmd/csi-attacher",
		"csi-provisioner":         csi + "/external-provisioner/v6/cmd/csi-provisioner",
		"csi-resizer":             csi + "/external-resizer/v2/cmd/csi-resizer",
		"csi-snapshotter":         csi + "/external-snapshotter/v8/cmd/csi-snapshotter",
		"snapshot-controller":     csi + "/external-snapshotter/v8/cmd/snapshot-controller",
	}
}

// Build finds the programs of the tools module in the cache, or builds them there: the first time it takes about ten
// minutes on two cores and says so on log all along.
func Build(ctx context.Context, module, cache string, log io.Writer) (Programs, error) {
	key, err := keyOf(module)
	if err != nil {
		return Programs{}, err
	}
	p := Programs{Dir: filepath.Join(cache, "cluster-"+key), module: module}
	if _, err := os.Stat(p.Dir); err == nil {
		return p, nil
	}
	// Built beside and renamed, so that an interrupted or a concurrent build never leaves half of it under the final name.
	if err := os.MkdirAll(cache, 0o750); err != nil {
		return p, err
	}
	work, err := os.MkdirTemp(cache, "cluster-build-*")
	if err != nil {
		return p, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := buildAll(ctx, module, work, log); err != nil {
		return p, err
	}
	if err := os.Rename(work, p.Dir); err != nil && !errors.Is(err, os.ErrExist) {
		return p, err
	}
	return p, nil
}

// Manifests are files of a module that the tools module requires, in the module cache.
func (p Programs) Manifests(ctx context.Context, module, pattern string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = p.module
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("folder of %s: %w", module, err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), pattern))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no %s in %s", pattern, out)
	}
	return files, err
}

// keyOf is the identity of what is built: the versions and our own code beside them. Not the compiler: the tools module's go directive is part of it, and
// a newer compiler at hand makes the same programs, not worth ten minutes of building for everybody.
func keyOf(module string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "tools.go", "kube-controller-manager/main.go"} {
		data, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", fmt.Errorf("the tools module: %w", err)
		}
		sum.Write(fmt.Appendf(nil, "%s %d\n%s", name, len(data), data))
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func buildAll(ctx context.Context, module, dir string, log io.Writer) error {
	flags, err := linkerFlags(module)
	if err != nil {
		return err
	}
	began, count := time.Now(), 0
	for _, name := range []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
		"csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter", "snapshot-controller",
	} {
		count++
		label := fmt.Sprintf("cluster: %d of %d: %s", count, len(packages()), name)
		cmd := exec.CommandContext(ctx, "go", "build", "-v", "-buildvcs=false", "-ldflags", flags, "-o", filepath.Join(dir, name), packages()[name])
		cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
		if err := runShowing(cmd, label, began, log); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
	}
	_, _ = fmt.Fprintf(log, "cluster: built in %s\n", time.Since(began).Round(time.Second))
	return nil
}

// runShowing runs go build -v, which prints one line for each package that it compiles, and says now and then how far
// it is. What else it printed is the error's text.
func runShowing(cmd *exec.Cmd, label string, began time.Time, log io.Writer) error {
	_, _ = fmt.Fprintf(log, "%s (%s so far)\n", label, time.Since(began).Round(time.Second))
	output, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var compiled atomic.Int64
	tail := make(chan string, 1)
	go func() { tail <- readOutput(output, &compiled) }()
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = fmt.Fprintf(log, "%s, %d packages compiled (%s so far)\n", label, compiled.Load(), time.Since(began).Round(time.Second))
		case said := <-tail:
			if err := cmd.Wait(); err != nil {
				return fmt.Errorf("%w: %s", err, said)
			}
			return nil
		}
	}
}

// readOutput counts the packages and keeps the last lines, where the compiler's complaint is.
func readOutput(r io.Reader, compiled *atomic.Int64) string {
	var last []string
	for lines := bufio.NewScanner(r); lines.Scan(); {
		compiled.Add(1)
		last = append(last, lines.Text())
		last = last[max(0, len(last)-20):]
	}
	return strings.Join(last, "\n")
}

// linkerFlags stamp the version: without it Kubernetes takes itself for v0.0.0 and refuses to compare versions.
func linkerFlags(module string) (string, error) {
	data, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`(?m)^\tk8s\.io/kubernetes v(\d+)\.(\d+)\.(\d+)$`).FindSubmatch(data)
	if found == nil {
		return "", errors.New("the tools module requires no k8s.io/kubernetes")
	}
	flags := "-s -w"
	for _, where := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for name, value := range map[string]string{
			"gitVersion": fmt.Sprintf("v%s.%s.%s", found[1], found[2], found[3]), "gitMajor": string(found[1]), "gitMinor": string(found[2]),
			"gitTreeState": "clean", "gitCommit": strings.Repeat("0", 40), "buildDate": "2026-01-01T00:00:00Z",
		} {
			flags += fmt.Sprintf(" -X %s.%s=%s", where, name, value)
		}
	}
	return flags, nil
}
