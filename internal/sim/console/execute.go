package console

import (
	"context"
	"errors"
)

// Executor is a Device that runs scripts in the background.
type Executor interface {
	// Execute begins a script as a job of its own, which outlives the session that asked for it [R], and returns what the
	// console gets of it: the job's id, or its text.
	Execute(user, script string) (Value, error)
}

// runExecute begins a script and goes on at once. Nothing but `read` is needed for it [R]; what the script does needs its
// own policies.
func runExecute(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.argument(ctx, c, "script")
	if err != nil {
		return nil, err
	}
	e, ok := f.run.device.(Executor)
	if !ok {
		return nil, failf("failure: :execute is not part of this device")
	}
	if !f.run.device.Allowed(f.run.user, "read") {
		return nil, f.worded(c, errors.New("not enough permissions (9)"))
	}
	id, err := e.Execute(f.run.user, Text(v))
	if err != nil {
		return nil, f.worded(c, err)
	}
	return id, nil
}
