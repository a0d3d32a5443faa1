package routeros

import (
	"errors"
	"fmt"
	"strings"
)

// What a command can come to. Every error of Client.Run is a *CommandError that wraps one of these, or none when the
// RDS gave a reason that has no class here (its text is kept either way).
var (
	// ErrNotFound: the RDS says that an item named in the command does not exist.
	ErrNotFound = errors.New("no such item")
	// ErrExists: something of that name is already there.
	ErrExists = errors.New("already exists")
	// ErrNoSpace: the pool cannot hold what was asked for.
	ErrNoSpace = errors.New("no space left")
	// ErrPermission: the user's group lacks a policy, or device-mode forbids the command.
	ErrPermission = errors.New("not permitted")
	// ErrSyntax: the RDS did not understand the script. Without a marker in the reply nothing of it ran.
	ErrSyntax = errors.New("not understood")
	// ErrOutcomeUnknown: the command was sent and no proof came back of what became of it. Re-read the state, then decide.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrUnreachable: the command was not sent. Nothing changed on the RDS.
	ErrUnreachable = errors.New("unreachable")
	// ErrUnsupportedVersion: RouterOS is older than this driver can use. It implies that nothing was sent.
	ErrUnsupportedVersion = errors.New("unsupported RouterOS version")
	// ErrInvalid: a value, or the script as a whole, cannot be sent safely. It is the caller's mistake, not the RDS's.
	ErrInvalid = errors.New("cannot be sent to RouterOS")
)

// CommandError says which command failed on which RDS, and keeps what RouterOS said.
type CommandError struct {
	RDS     string // Config.Name
	Command string // Script.Name
	Text    string // what RouterOS said, shortened; empty when it said nothing
	Err     error  // wraps one of the sentinels; nil when the text has no class
}

func (e *CommandError) Error() string {
	parts := []string{fmt.Sprintf("rds %s: command %s", e.RDS, e.Command)}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	if e.Text != "" {
		parts = append(parts, fmt.Sprintf("RouterOS says %q", e.Text))
	}
	return strings.Join(parts, ": ")
}

func (e *CommandError) Unwrap() error { return e.Err }
