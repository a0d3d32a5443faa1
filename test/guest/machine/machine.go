// Package machine runs one guest under QEMU: kernel and initramfs in, the command's output, exit status and files out.
package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/test/guest/wire"
)

// What can be wrong with a guest, as opposed to with the command in it.
var (
	ErrNotBooted = errors.New("the guest did not boot")
	ErrDied      = errors.New("the guest died before its command ended")
	ErrTooLong   = errors.New("the guest ran into its deadline")
	errNoKVM     = errors.New("KVM does not work here")
)

// Config describes one run.
type Config struct {
	Kernel    string // bzImage
	Initramfs string
	Nonce     string
	MemoryMB  int
	CPUs      int
	Timeout   time.Duration // of the whole run
	Logs      string        // folder for the kernel's and QEMU's log
	Out       string        // folder that gets the guest's /out; empty: not wanted
	Output    io.Writer     // what the command prints
	Notes     io.Writer     // one line per thing worth knowing, such as which accelerator is used
	Verdicts  string        // folder where it is remembered that KVM does not work
	Link      *os.File      // datagram socket to another machine; nil: no network
	Place     string        // on the link
}

// Result is how the command ended.
type Result struct {
	Status      int // exit status, 128 plus the signal if it was killed
	Accelerator string
	Boot, Total time.Duration
}

// ConsoleLog is the name of the kernel's log in Config.Logs.
const ConsoleLog = "console.log"

// Run boots the guest and waits for the command's end. A non-zero status of the command is no error.
func Run(ctx context.Context, config Config) (Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, config.Timeout, fmt.Errorf("%w of %s", ErrTooLong, config.Timeout))
	defer cancel()
	result, err := start(ctx, config, kvmLooksUsable(config.Verdicts))
	return result, explain(config, err)
}

// start goes on without KVM when nothing was heard of the guest with it: it may fail in many ways, and software emulation shows
// whose failure it is. A guest that has spoken is not run again: of a command that begins twice the second run could look good.
func start(ctx context.Context, config Config, tryKVM bool) (Result, error) {
	if !tryKVM {
		return newRun(config, tcg).do(ctx)
	}
	with := newRun(config, kvm)
	result, err := with.do(ctx)
	if errors.Is(err, errNoKVM) {
		rememberNoKVM(config.Verdicts)
	}
	if err == nil || with.last.Kind != "" || ctx.Err() != nil {
		return result, err
	}
	_, _ = fmt.Fprintf(config.Notes, "guest: with KVM: %v; going on without it (slower)\n", err)
	result, err = newRun(config, tcg).do(ctx)
	if result.Boot > 0 {
		rememberNoKVM(config.Verdicts)
	}
	return result, err
}

// explain adds what a person needs to find the cause: the end of the kernel's log and where the whole of it is.
func explain(config Config, err error) error {
	if err == nil {
		return nil
	}
	log := filepath.Join(config.Logs, ConsoleLog)
	return fmt.Errorf("%w\nfrom the kernel's log, %s:\n%s", err, log, excerpt(log, 25))
}

// excerpt is the end of a log, preceded by the lines that name a crash: its register dump is longer than any tail.
func excerpt(path string, lines int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), "\r", "")), "\n")
	first := max(0, len(all)-lines)
	var shown []string
	for _, line := range all[:first] {
		if strings.Contains(line, "Kernel panic") || strings.Contains(line, "BUG:") || strings.Contains(line, "RIP: 0010") {
			shown = append(shown, line)
		}
	}
	return "    " + strings.Join(append(shown, all[first:]...), "\n    ")
}

// verdict turns the last event seen, and how the machine ended, into the run's result.
func verdict(last wire.Event, booted bool, cause error) error {
	switch {
	case last.Kind == wire.End:
		return nil
	case last.Kind == wire.Fault && !booted:
		return fmt.Errorf("%w: %s", ErrNotBooted, last.Text)
	case last.Kind == wire.Fault:
		return fmt.Errorf("%w: %s", ErrDied, last.Text)
	case cause != nil:
		return cause
	case !booted:
		return ErrNotBooted
	}
	return ErrDied
}
