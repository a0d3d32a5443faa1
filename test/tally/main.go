// Command tally runs the tests of tiers 1 to 4 (docs/architecture.md, "How it is proved") and counts them.
//
//	go run ./test/tally [--tier 1,2,3,4] [--run REGEXP]
//
// Tiers 1 and 2 are go test -race ./... on this host; tier 3 runs in the QEMU guest of test/guest, without the race
// detector, which would make an emulated machine too slow; tier 4 runs against a Kubernetes control plane on this host
// (test/cluster), and only when asked for. A skipped test, a tier without a test, a guest that did not boot and a
// control plane that did not start fail the run. What passes is one line per package; what fails is shown in full.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	good, err := execute(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

// options is the command line.
type options struct {
	tiers   string
	run     string
	timeout time.Duration
}

func (o options) wants(tier string) bool { return strings.Contains(o.tiers, tier) }

func execute(ctx context.Context, args []string) (good bool, err error) {
	var o options
	flags := flag.NewFlagSet("tally", flag.ContinueOnError)
	flags.StringVar(&o.tiers, "tier", "1,2,3", "which tiers, of 1 to 4; 1 and 2 always run together")
	flags.StringVar(&o.run, "run", "", "only tests that match, as go test has it")
	flags.DurationVar(&o.timeout, "timeout", 40*time.Minute, "of each package on the host, and of each guest; tier 4 has twice that")
	if err := flags.Parse(args); err != nil {
		return errors.Is(err, flag.ErrHelp), nil
	}
	plain, err := list(ctx, "./...")
	if err != nil {
		return false, err
	}
	var tiers []*tier
	if o.wants("1") || o.wants("2") {
		unit := &tier{number: 1, name: "unit and model, race detector"}
		simulated := &tier{number: 2, name: "against the simulator over SSH, race detector"}
		tiers = append(tiers, unit, simulated)
		if err := o.host(ctx, plain, unit, simulated); err != nil {
			return false, err
		}
	}
	if o.wants("3") {
		tagged, err := list(ctx, "-tags", "kernel", "./...")
		if err != nil {
			return false, err
		}
		kernel := &tier{number: 3, name: "on a real Linux kernel in QEMU"}
		tiers = append(tiers, kernel)
		if err := o.guest(ctx, taggedPackages(plain, tagged), kernel); err != nil {
			return false, err
		}
	}
	if o.wants("4") {
		tagged, err := list(ctx, "-tags", "cluster", "./...")
		if err != nil {
			return false, err
		}
		cluster := &tier{number: 4, name: "on a real Kubernetes control plane"}
		tiers = append(tiers, cluster)
		if err := o.cluster(ctx, taggedPackages(plain, tagged), cluster); err != nil {
			return false, err
		}
	}
	for _, t := range tiers {
		t.close()
	}
	return table(os.Stdout, tiers)
}

// host runs tiers 1 and 2 in one go test, so that packages build and run side by side.
func (o options) host(ctx context.Context, packages []goPackage, unit, simulated *tier) error {
	second := map[string]bool{}
	for _, p := range packages {
		second[p.ImportPath] = p.againstSimulator()
	}
	cmd := command(ctx, "go", "test", "-race", "-json", "-timeout", o.timeout.String(), "-run", o.run, "./...")
	err := watch(cmd, cmd, nil, func(s *suite) *tier {
		if second[s.name] {
			return simulated
		}
		return unit
	})
	if err == nil && cmd.ProcessState.ExitCode() != 0 && unit.counts.failed+simulated.counts.failed == 0 {
		unit.fault("go test ended with status %d, see above", cmd.ProcessState.ExitCode())
	}
	return err
}

// guest runs each package with kernel tests in a machine of its own.
func (o options) guest(ctx context.Context, packages []goPackage, kernel *tier) error {
	dir, err := os.MkdirTemp("", "tally-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	harness := filepath.Join(dir, "guest")
	// Built, not go run: that would answer every exit status with 1.
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", harness, "./test/guest").CombinedOutput(); err != nil {
		return fmt.Errorf("build test/guest: %w: %s", err, out)
	}
	for _, p := range packages {
		if err := o.guestPackage(ctx, p, harness, filepath.Join(dir, filepath.Base(p.ImportPath)+".test"), kernel); err != nil {
			return err
		}
	}
	return nil
}

// twoHosts is the package whose tests want a second machine: volumes go from one to the other.
const twoHosts = modulePath + "/test/kernel"

func (o options) guestPackage(ctx context.Context, p goPackage, harness, binary string, kernel *tier) error {
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "kernel", "-o", binary, p.ImportPath)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // no libraries needed in the guest
	if out, err := build.CombinedOutput(); err != nil {
		kernel.fault("%s does not build: %v\n%s", short(p.ImportPath), err, out)
		return nil // the other packages are still worth running
	}
	inGuest := "/usr/bin/" + filepath.Base(binary)
	args := []string{"run", "--timeout", o.timeout.String(), "--file", binary + ":" + inGuest}
	if p.ImportPath == twoHosts {
		args = append(args, "--second")
	}
	if testdata := filepath.Join(p.Dir, "testdata"); exists(testdata) {
		args = append(args, "--file", testdata+":/root/testdata") // where the command starts
	}
	for _, program := range []string{"rds-csi", "rds-sim"} {
		if built := filepath.Join("bin", program); exists(built) {
			args = append(args, "--file", built+":/usr/bin/"+program)
		}
	}
	args = append(args, "--", inGuest, "-test.v=test2json", "-test.run", o.run, "-test.timeout", (o.timeout - time.Minute).String())
	machine := command(ctx, harness, args...)
	machine.Stderr = os.Stderr
	events := exec.CommandContext(ctx, "go", "tool", "test2json", "-t", "-p", p.ImportPath)
	pipe, err := machine.StdoutPipe()
	if err != nil {
		return err
	}
	events.Stdin = pipe
	if err := machine.Start(); err != nil {
		return err
	}
	if err := watch(events, machine, sayTest, func(*suite) *tier { return kernel }); err != nil {
		return err
	}
	// 1 is a test's failure and counted as such; anything else is the machine's or a crash.
	if status := machine.ProcessState.ExitCode(); status > 1 {
		kernel.fault("%s: the guest ended with status %d, see above", short(p.ImportPath), status)
	}
	return nil
}

// cluster runs the packages with cluster tests one after the other: each starts a control plane of its own.
func (o options) cluster(ctx context.Context, packages []goPackage, cluster *tier) error {
	if len(packages) == 0 {
		return nil // an empty tier fails the run
	}
	args := []string{"test", "-tags", "cluster", "-count", "1", "-p", "1", "-json", "-timeout", (2 * o.timeout).String(), "-run", o.run}
	for _, p := range packages {
		args = append(args, p.ImportPath)
	}
	cmd := command(ctx, "go", args...)
	err := watch(cmd, cmd, sayTest, func(*suite) *tier { return cluster })
	if err == nil && cmd.ProcessState.ExitCode() != 0 && cluster.counts.failed == 0 {
		cluster.fault("go test ended with status %d, see above", cmd.ProcessState.ExitCode())
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// command is ended by an interrupt, which go test and the guest pass on to what they started; a kill would orphan it.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// sayTest shows that something goes on in a guest or a cluster, where one package takes minutes, and what the cluster has to
// say of a run that passes: that a controller was started again, for one.
func sayTest(e event) {
	if e.Action == "output" && strings.HasPrefix(e.Output, "cluster: ") {
		fmt.Print("      ", e.Output)
	}
	if e.Test == "" || strings.Contains(e.Test, "/") {
		return
	}
	switch e.Action {
	case "pass", "fail", "skip":
		fmt.Printf("      %-4s  %-50s %6.1fs\n", e.Action, e.Test, e.Elapsed)
	}
}

// watch counts the events that source prints, and waits for the process that runs the tests (the same, or the one
// whose output source translates). Each event is given to say, if there is one.
func watch(source, runner *exec.Cmd, say func(event), tierOf func(*suite) *tier) error {
	if source.Stderr == nil {
		source.Stderr = os.Stderr
	}
	out, err := source.StdoutPipe()
	if err != nil {
		return err
	}
	if err := source.Start(); err != nil {
		return err
	}
	var reportErr error
	stray, err := collect(out, say, func(s *suite) {
		tierOf(s).take(s)
		reportErr = errors.Join(reportErr, s.report(os.Stdout))
	})
	sourceErr := source.Wait()
	if runner != source {
		_ = runner.Wait() // its status is read by the caller
	}
	if len(stray) > 0 {
		fmt.Println(strings.Join(stray, "\n"))
	}
	var exit *exec.ExitError
	if errors.As(sourceErr, &exit) && exit.ExitCode() == 1 {
		sourceErr = nil // a failed test, counted already
	}
	return errors.Join(err, reportErr, sourceErr)
}
