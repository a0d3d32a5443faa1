//go:build linux

// Command guest runs a command on a real Linux kernel in QEMU, without root and without touching the host:
//
//	go run ./test/guest run [--timeout 10m] [--file host:guest]... [--out DIR] [--second] -- command args
//	go run ./test/guest fetch     # only fetch the kernel, which later runs have
//
// The command sees /bin/sh, the file-system tools of this host, the kernel's NVMe/TCP initiator and target, and the
// files given. Its output appears here as it is printed, its exit status becomes this program's; 125 means that the
// guest itself failed. KVM is used where it works; GUEST_ACCEL=tcg keeps it from being tried.
//
// With --second another machine runs the same command, and $GUEST_PLACE tells the command which of the two it is on. When it
// ends there with 0 the machine is switched off as by its plug, and on again. Any other end of that machine is a failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// exitGuestFailed is the status when there is none of the command's: 125, as docker and env have it.
const exitGuestFailed = 125

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := execute(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	os.Exit(status)
}

// request is the command line.
type request struct {
	command  []string
	files    list
	tools    list
	env      list
	out      string
	timeout  time.Duration
	memoryMB int
	cpus     int
	second   bool
	quiet    bool
}

func execute(ctx context.Context, args []string) (int, error) {
	if len(args) == 1 && args[0] == "fetch" {
		return fetch(ctx)
	}
	if len(args) == 0 || args[0] != "run" {
		return 2, errors.New("usage: guest run [flags] -- command args (guest run --help lists the flags)")
	}
	var r request
	flags := flag.NewFlagSet("guest run", flag.ContinueOnError)
	flags.DurationVar(&r.timeout, "timeout", 10*time.Minute, "deadline of the whole run")
	flags.Var(&r.files, "file", "`host:guest`: a file or folder to have in the guest (repeatable)")
	flags.Var(&r.tools, "tool", "`name`: a program of this host to have in the guest, with its libraries (repeatable)")
	flags.Var(&r.env, "env", "`name=value` for the command (repeatable)")
	flags.StringVar(&r.out, "out", "", "`folder` that gets what the command leaves in /out")
	flags.IntVar(&r.memoryMB, "memory", 3072, "MiB of memory")
	flags.IntVar(&r.cpus, "cpus", 2, "processors")
	flags.BoolVar(&r.second, "second", false, "boot a second machine beside it, on a link of the two, until the command has ended")
	flags.BoolVar(&r.quiet, "quiet", false, "print nothing but the command's output")
	if err := flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0, nil
		}
		return 2, nil // the flag package has said it
	}
	if r.command = flags.Args(); len(r.command) == 0 {
		return 2, errors.New("no command: guest run [flags] -- command args")
	}
	return r.run(ctx)
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}
