// Package wire is what the host and the guest's PID 1 say to each other.
//
// The job goes in as a file of the initramfs. Events come out as JSON lines on a virtio-serial port of their own,
// so that nothing a command prints can look like its exit status. Every event repeats the job's nonce: a line
// without it is not from this run.
package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// JobFile is where the guest finds its job.
const JobFile = "/etc/guest-job.json"

// OutDir is the guest's folder that is handed back to the host after the command has ended.
const OutDir = "/out"

// Names of the virtio-serial ports.
const (
	PortOutput = "guest.output" // what the command prints, both streams, as it prints it
	PortEvents = "guest.events" // JSON lines of Event; the host answers nothing
	PortFiles  = "guest.files"  // one tar of OutDir
)

// Two machines of one run have a link of their own. A machine knows its place on it by this variable, which the kernel
// hands from its command line to PID 1, and PID 1 to the command; one that is alone has none.
const (
	PlaceVariable = "GUEST_PLACE"
	First         = "1"
	Second        = "2"
)

// Where the machines are on the link: in a network that is set aside for examples (RFC 5737).
const (
	FirstAddress  = "192.0.2." + First
	SecondAddress = "192.0.2." + Second
)

// Job is what the guest is to do.
type Job struct {
	Nonce    string   `json:"nonce"`
	Hostname string   `json:"hostname"`
	Modules  []Module `json:"modules"` // in loading order
	Command  []string `json:"command"`
	Env      []string `json:"env"`
}

// Module is one kernel module of the initramfs.
type Module struct {
	Path       string `json:"path"`
	Parameters string `json:"parameters,omitempty"`
}

// Kind says what happened.
type Kind string

// The life of a guest in order; a fault may come at any point and is the last event.
const (
	Ready Kind = "ready" // set up, the command is about to start
	Exit  Kind = "exit"  // the command ended
	End   Kind = "end"   // files are handed over; the machine may be switched off
	Fault Kind = "fault" // PID 1 could not do its work
)

// Event is one line on PortEvents.
type Event struct {
	Nonce  string `json:"nonce"`
	Kind   Kind   `json:"kind"`
	Status int    `json:"status,omitempty"` // of Exit: the exit status; 128 plus the signal's number when killed
	Text   string `json:"text,omitempty"`   // of Fault: what went wrong
}

// ErrNotOurs is an event that does not carry the nonce of this run.
var ErrNotOurs = errors.New("event without this run's nonce")

// Send writes one event.
func Send(w io.Writer, e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("event %s: %w", e.Kind, err)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// Receive calls each for every event until the stream ends or each says stop.
func Receive(r io.Reader, nonce string, each func(Event) (more bool)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("unreadable event %q: %w", lines.Text(), err)
		}
		if e.Nonce != nonce {
			return fmt.Errorf("%w: %q", ErrNotOurs, strings.TrimSpace(lines.Text()))
		}
		if !each(e) {
			return nil
		}
	}
	return lines.Err()
}
