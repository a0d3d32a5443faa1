// Command rds-csi is the CSI driver for MikroTik's ROSE Data Server. It is wiring only: flags, one setup function per
// role, signals.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// version is set by the linker, which can set nothing but a global.
var version = "unknown"

// Exit codes: a wrong command line or configuration is not cured by a restart, the rest may be.
const (
	exitOK    = 0
	exitFault = 1
	exitUsage = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const usage = `usage:
  rds-csi controller --config FILE --endpoint unix:///path.sock   the controller service
  rds-csi node       --config FILE --endpoint unix:///path.sock --node-id NAME   the node service
  rds-csi version
  rds-csi controller -h, rds-csi node -h   the flags of each
`

// run is the process, without its globals.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	var wrong *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		say(stderr, err)
		return exitUsage
	}
	say(stderr, err)
	return exitFault
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	role := ""
	if len(args) > 0 {
		role = args[0]
	}
	switch role {
	case "controller":
		o, err := parseFlags(controllerRole, args[1:], stderr)
		if err != nil || o.helped {
			return err
		}
		return runController(ctx, o)
	case "node":
		o, err := parseFlags(nodeRole, args[1:], stderr)
		if err != nil || o.helped {
			return err
		}
		return runNode(ctx, o)
	case "version", "--version", "-version":
		_, err := fmt.Fprintln(stdout, "rds-csi", version)
		return err
	case "help", "-h", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	}
	_, _ = io.WriteString(stderr, usage) // the error below says it all again if this cannot be written
	return usageErrorf("%q is not a command", role)
}

// usageError is a mistake in what the administrator wrote.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// say writes an error on one line, for those who read only the last line of a log.
func say(w io.Writer, err error) {
	_, _ = fmt.Fprintln(w, "rds-csi:", strings.ReplaceAll(err.Error(), "\n", "; ")) // nobody is left to tell
}
