package console

import (
	"errors"
	"fmt"
	"strings"
)

// SyntaxError is why a script cannot be parsed. Nothing of such a script runs, and no on-error catches it.
type SyntaxError struct {
	Text         string // without the place: "syntax error", "bad command name ttt"
	Line, Column int    // from 1; the column counts bytes [R]
}

// Error is the line that the device prints.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s (line %d column %d)", e.Text, e.Line, e.Column)
}

// place turns an offset into a line and a column.
func place(src string, offset int) (line, column int) {
	before := src[:min(offset, len(src))]
	return 1 + strings.Count(before, "\n"), offset - strings.LastIndexByte(before, '\n')
}

// failure is a run-time error: it ends the script unless something catches it.
type failure struct {
	text     string
	mismatch bool // operands do not fit together: a where clause takes this for "no" and says nothing [V]
	fatal    bool // the simulator's own limits: nothing catches these
}

func (f *failure) Error() string { return f.text }

func failf(format string, args ...any) error { return &failure{text: fmt.Sprintf(format, args...)} }

func mismatchf(format string, args ...any) error {
	return &failure{text: fmt.Sprintf(format, args...), mismatch: true}
}

// caught returns the failure that a handler may see, if it is one.
func caught(err error) (*failure, bool) {
	var f *failure
	if errors.As(err, &f) && !f.fatal {
		return f, true
	}
	return nil, false
}

// jump leaves blocks: return, exit, break, continue.
type jump struct {
	kind  string
	value Value
}

func (j *jump) Error() string { return j.kind + " outside of its block" }
