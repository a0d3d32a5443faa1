//go:build linux

// Command init is PID 1 of the test guest: it makes the machine usable, runs one command, reports its exit status
// and hands files back. It links nothing dynamically and calls no other program for its own work.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rds-csi/rds-csi/test/guest/wire"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this is PID 1 of the test guest; run it through: go run ./test/guest run -- COMMAND")
		os.Exit(2)
	}
	if err := live(); err != nil {
		// The kernel log is the last place that is surely read.
		fmt.Fprintln(os.Stderr, "guest init:", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// live is the guest's whole life.
func live() error {
	if err := mountSystem(); err != nil {
		return err
	}
	job, err := readJob()
	if err != nil {
		return err
	}
	ports, err := openPorts()
	if err != nil {
		return err
	}
	tell := func(e wire.Event) error { e.Nonce = job.Nonce; return wire.Send(ports.events, e) }
	if err := prepare(job); err != nil {
		return errors.Join(err, tell(wire.Event{Kind: wire.Fault, Text: err.Error()}))
	}
	if err := tell(wire.Event{Kind: wire.Ready}); err != nil {
		return err
	}
	status, err := run(job, ports.output)
	if err != nil {
		return errors.Join(err, tell(wire.Event{Kind: wire.Fault, Text: err.Error()}))
	}
	if err := tell(wire.Event{Kind: wire.Exit, Status: status}); err != nil {
		return err
	}
	if err := handOver(ports.files); err != nil {
		return errors.Join(err, tell(wire.Event{Kind: wire.Fault, Text: err.Error()}))
	}
	if err := tell(wire.Event{Kind: wire.End}); err != nil {
		return err
	}
	// The host switches the machine off on the end event. A power-off from in here could hang in the shutdown of
	// an NVMe controller whose target is dead, which is a state that tests create on purpose.
	select {}
}

func readJob() (wire.Job, error) {
	var job wire.Job
	text, err := os.ReadFile(wire.JobFile)
	if err != nil {
		return job, fmt.Errorf("no job: %w", err)
	}
	if err := json.Unmarshal(text, &job); err != nil {
		return job, fmt.Errorf("job %s: %w", wire.JobFile, err)
	}
	if len(job.Command) == 0 {
		return job, fmt.Errorf("job %s names no command", wire.JobFile)
	}
	return job, nil
}

// run starts the command and reaps until it has ended. PID 1 inherits every orphan of the guest, so it waits for
// any child; that is why os/exec, which waits for its own, is not used here.
func run(job wire.Job, output *os.File) (int, error) {
	path, err := lookPath(job.Command[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	child, err := os.StartProcess(path, job.Command, &os.ProcAttr{
		Dir:   "/root",
		Env:   environment(job.Env),
		Files: []*os.File{null, output, output},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", path, err)
	}
	return reapUntil(child.Pid)
}

func reapUntil(pid int) (int, error) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case got != pid:
			continue
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
}
