package machine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/test/guest/wire"
)

// What the process that plays QEMU reads from its environment: the events that its guest sends with KVM and without.
const (
	withVariable    = "MACHINE_TEST_WITH_KVM"
	withoutVariable = "MACHINE_TEST_WITHOUT_KVM"
)

func TestMain(m *testing.M) {
	if with, ok := os.LookupEnv(withVariable); ok {
		arguments, kinds := strings.Join(os.Args, " "), os.Getenv(withoutVariable)
		if strings.Contains(arguments, "-accel kvm") {
			kinds = with
		}
		if err := playQEMU(arguments, strings.Fields(kinds)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// playQEMU is a guest that says a few things and is switched off.
func playQEMU(arguments string, kinds []string) error {
	if len(kinds) == 0 {
		return nil
	}
	port := regexp.MustCompile(`path=(\S*` + wire.PortEvents + `)`).FindStringSubmatch(arguments)
	if port == nil {
		return errors.New("no port for events")
	}
	events, err := net.Dial("unix", port[1])
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		if err := wire.Send(events, wire.Event{Nonce: "n", Kind: wire.Kind(kind)}); err != nil {
			return err
		}
	}
	return events.Close()
}

// KVM may be there and not work, and then anything can happen before the guest has spoken.
func TestWithoutKVMWhereNothingWasHeardOfTheGuest(t *testing.T) {
	whole := fmt.Sprint(wire.Ready, " ", wire.Exit, " ", wire.End)
	for _, c := range []struct {
		name, with, without string
		want                error
		by                  string
		remembered          bool
	}{
		{"KVM works", whole, "", nil, "kvm", false},
		{"KVM does not boot", "", whole, nil, "tcg", true},
		{"KVM does not boot, and then the guest dies", "", string(wire.Ready), ErrDied, "tcg", true},
		{"nothing boots", "", "", ErrNotBooted, "tcg", false},
		{"set-up failed", string(wire.Fault), whole, ErrNotBooted, "kvm", false},
		{"the guest died", string(wire.Ready), whole, ErrDied, "kvm", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			program, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(program, filepath.Join(dir, "qemu-system-x86_64")); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			t.Setenv(withVariable, c.with)
			t.Setenv(withoutVariable, c.without)
			config := testConfig(t)
			var notes strings.Builder
			config.Notes, config.Verdicts = &notes, t.TempDir()
			result, err := start(t.Context(), config, true)
			if !errors.Is(err, c.want) || c.want == nil && err != nil || result.Accelerator != c.by {
				t.Errorf("%v by %s instead of %v by %s", err, result.Accelerator, c.want, c.by)
			}
			if remembersNoKVM(config.Verdicts) != c.remembered || strings.Contains(notes.String(), "without it") != (c.by == "tcg") {
				t.Errorf("remembered: %v; said: %s", remembersNoKVM(config.Verdicts), notes.String())
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	other := errors.New("QEMU: exit status 1")
	for _, c := range []struct {
		name   string
		last   wire.Kind
		booted bool
		cause  error
		want   error
	}{
		{"the whole way", wire.End, true, nil, nil},
		{"the whole way, then killed", wire.End, true, other, nil},
		{"nothing ever came", "", false, nil, ErrNotBooted},
		{"QEMU failed", "", false, other, other},
		{"set-up failed", wire.Fault, false, nil, ErrNotBooted},
		{"panic under the command", wire.Ready, true, nil, ErrDied},
		{"exit told, files never came", wire.Exit, true, nil, ErrDied},
		{"hand-over failed", wire.Fault, true, nil, ErrDied},
		{"deadline", wire.Ready, true, ErrTooLong, ErrTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := verdict(wire.Event{Kind: c.last}, c.booted, c.cause); !errors.Is(got, c.want) || c.want == nil && got != nil {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// fakeQEMU stands in for the machine: a program that speaks on the sockets as the guest would.
func fakeQEMU(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("GUEST_ACCEL", "tcg")
}

func testConfig(t *testing.T) Config {
	t.Helper()
	return Config{Nonce: "n", MemoryMB: 64, CPUs: 1, Timeout: 20 * time.Second, Logs: t.TempDir(), Output: io.Discard, Notes: io.Discard}
}

func TestQEMUThatFailsAtOnceIsAnErrorWithItsWords(t *testing.T) {
	fakeQEMU(t, "echo 'qemu: no such machine' >&2; exit 1\n")
	_, err := Run(t.Context(), testConfig(t))
	if err == nil || !strings.Contains(err.Error(), "no such machine") {
		t.Errorf("error %v", err)
	}
}

func TestMachineThatSwitchesOffSilentlyDidNotBoot(t *testing.T) {
	fakeQEMU(t, "exit 0\n")
	if _, err := Run(t.Context(), testConfig(t)); !errors.Is(err, ErrNotBooted) {
		t.Errorf("error %v", err)
	}
}

func TestDeadlineEndsAHangingMachine(t *testing.T) {
	fakeQEMU(t, "exec sleep 600\n")
	config := testConfig(t)
	config.Timeout = 200 * time.Millisecond
	if _, err := Run(t.Context(), config); !errors.Is(err, ErrTooLong) {
		t.Errorf("error %v", err)
	}
}

func TestFailureShowsTheEndOfTheKernelLog(t *testing.T) {
	fakeQEMU(t, "exit 0\n")
	config := testConfig(t)
	log := filepath.Join(config.Logs, ConsoleLog)
	if err := os.WriteFile(log, []byte("early\r\nKernel panic - not syncing: no init\r\n"+strings.Repeat("registers\r\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Run(t.Context(), config)
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") || !strings.Contains(err.Error(), log) || strings.Contains(err.Error(), "early") {
		t.Errorf("error %v", err)
	}
}

// feed gives a reader of a port what the guest would have written.
func feed(t *testing.T, read func(net.Conn) error, content []byte) error {
	t.Helper()
	host, guest := net.Pipe()
	go func() {
		_, _ = guest.Write(content)
		_ = guest.Close()
	}()
	defer func() { _ = host.Close() }()
	return read(host)
}

func TestEventsSetTheResult(t *testing.T) {
	r := newRun(testConfig(t), tcg)
	var done error
	r.cancel = func(cause error) { done = cause }
	r.started = time.Now()
	events := fmt.Appendf(nil, "%s\n%s\n%s\n", `{"nonce":"n","kind":"ready"}`, `{"nonce":"n","kind":"exit","status":3}`, `{"nonce":"n","kind":"end"}`)
	if err := feed(t, r.readEvents, events); err != nil {
		t.Fatal(err)
	}
	if r.status != 3 || r.booted == 0 || r.last.Kind != wire.End || !errors.Is(done, errDone) {
		t.Errorf("got %+v, cause %v", r, done)
	}
}

func TestFilesAreUnpackedInsideTheFolderOnly(t *testing.T) {
	parent := t.TempDir()
	config := testConfig(t)
	config.Out = filepath.Join(parent, "out")
	if err := os.Mkdir(config.Out, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := feed(t, newRun(config, tcg).readFiles, tarOf(t, "logs/node.log", "hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(config.Out, "logs", "node.log")); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := feed(t, newRun(config, tcg).readFiles, tarOf(t, "../escaped", "x")); err == nil {
		t.Error("a name with .. was taken")
	}
	if _, err := os.Stat(filepath.Join(parent, "escaped")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("escaped: %v", err)
	}
}

func tarOf(t *testing.T, name, content string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(content)), Mode: 0o600}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestNoKVMIsRememberedUntilTheNextBoot(t *testing.T) {
	dir := t.TempDir()
	if remembersNoKVM(dir) {
		t.Error("remembered before it happened")
	}
	rememberNoKVM(dir)
	if !remembersNoKVM(dir) {
		t.Error("forgotten at once")
	}
	if kvmLooksUsable(dir) {
		t.Error("still tried")
	}
}

func TestSlowBootIsAFailureAndUnderKVMAReasonToGoWithout(t *testing.T) {
	for name, want := range map[string]error{"tcg": ErrNotBooted, "kvm": errNoKVM} {
		r := newRun(testConfig(t), accelerator{name: name, bootTimeout: time.Millisecond})
		ctx, cancel := context.WithCancelCause(t.Context())
		r.cancel = cancel
		r.bootTooSlow()
		if !errors.Is(context.Cause(ctx), want) {
			t.Errorf("%s: %v", name, context.Cause(ctx))
		}
	}
}
