package console

import (
	"context"
	"errors"
	"io"
)

// maxSteps bounds the commands and turns of loops of one script; a device would go on for ever, a test must not.
const maxSteps = 1 << 18

// Run parses and runs a script for a user.
//
// The whole script is parsed first: when that fails, nothing runs. It stops at the first statement that fails.
// Everything the script prints, the text of its error included, goes to out as it is produced, with CRLF line ends.
// failed tells whether there was such an error (the device exits 0 all the same [R]); err is not nil only when ctx
// ended or out could not be written.
func Run(ctx context.Context, d Device, user, script string, out io.Writer) (failed bool, err error) {
	w := &output{out: out}
	dialect := d.Dialect()
	body, err := parse(script, onDevice{d}, dialect)
	if err != nil {
		w.line(err.Error())
		return true, w.err
	}
	r := &runner{device: d, dialect: dialect, user: user, out: w}
	_, err = (&block{body: body}).eval(ctx, &frame{run: r})
	if fatal := r.aborted(ctx); fatal != nil {
		return err != nil, fatal
	}
	return r.finish(err)
}

// Parse parses a script without a device, for tests that judge what somebody else's quoting made of a value. Menus and
// commands are not checked, and a script on several lines is refused as on an exec channel.
func Parse(script string) (*Script, error) {
	body, err := parse(script, guessing{}, Dialect{})
	if err != nil {
		return nil, err
	}
	return &Script{body: body}, nil
}

// runner is one run of a script.
type runner struct {
	device  Device
	dialect Dialect
	user    string
	out     *output
	steps   int
}

// aborted is why a run cannot go on whatever the script says.
func (r *runner) aborted(ctx context.Context) error {
	if r.out.err != nil {
		return r.out.err
	}
	return ctx.Err()
}

// finish tells the user how the script ended. Leaving it early is no failure.
func (r *runner) finish(err error) (bool, error) {
	var j *jump
	if err == nil || errors.As(err, &j) {
		return false, nil
	}
	r.out.line(err.Error())
	return true, r.out.err
}

func (r *runner) step(ctx context.Context) error {
	if err := r.aborted(ctx); err != nil {
		return err
	}
	if r.steps++; r.steps > maxSteps {
		return &failure{text: "script error: too many steps for the simulator", fatal: true}
	}
	return nil
}

// output remembers that the reader has gone.
type output struct {
	out io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.out.Write(p)
	o.err = err
	return n, err
}

func (o *output) line(s string) {
	_, _ = io.WriteString(o, s+"\r\n") // the error is kept
}

// frame is where a piece of script runs: its variables, and the row in front of a where clause.
type frame struct {
	run  *runner
	vars *scope
	row  *row
}

type scope struct {
	outer  *scope
	values map[string]Value
}

// row is an item under a where clause, with the names that mean properties there. They are collected from all items,
// so only when somebody asks.
type row struct {
	item  Item
	known func() map[string]bool
}

func (f *frame) inner() *frame {
	return &frame{run: f.run, vars: &scope{outer: f.vars, values: map[string]Value{}}, row: f.row}
}

func (f *frame) declare(name string, v Value) { f.vars.values[name] = v }

func (f *frame) assign(name string, v Value) {
	for s := f.vars; s != nil; s = s.outer {
		if _, ok := s.values[name]; ok {
			s.values[name] = v
			return
		}
	}
}

func (f *frame) lookup(name string) Value {
	for s := f.vars; s != nil; s = s.outer {
		if v, ok := s.values[name]; ok {
			return v
		}
	}
	return nil
}

// property is the property of the row in front of a where clause.
func (f *frame) property(name string) Value {
	if name == ".id" {
		return f.row.item.ID()
	}
	if v, ok := f.row.item.Get(name); ok {
		return v
	}
	return nothing{}
}
