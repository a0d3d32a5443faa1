package console

import (
	"context"
	"errors"
	"time"
)

func runNothing(context.Context, *frame, *command) (Value, error) { return nothing{}, nil }

func runScope(ctx context.Context, f *frame, c *command) (Value, error) {
	return c.args[0].value.eval(ctx, f)
}

func runPut(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.argument(ctx, c, "message")
	if err != nil {
		return nil, err
	}
	line, err := limited(Text(v))
	if err != nil {
		return nil, err
	}
	f.run.out.line(Text(line))
	return v, nil
}

func runLog(ctx context.Context, f *frame, c *command) (Value, error) {
	return f.argument(ctx, c, "message")
}

func runError(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.argument(ctx, c, "message")
	if err != nil {
		return nil, err
	}
	return nil, failf("%s", Text(v))
}

func runLocal(ctx context.Context, f *frame, c *command) (Value, error) {
	name, _ := literalOf(c.arg("name"))
	v, err := f.argument(ctx, c, "value")
	if err != nil {
		return nil, err
	}
	f.declare(Text(name), v)
	return v, nil
}

func runSet(ctx context.Context, f *frame, c *command) (Value, error) {
	name, _ := literalOf(c.arg("name"))
	v, err := f.argument(ctx, c, "value")
	if err != nil {
		return nil, err
	}
	f.assign(Text(name), v)
	return v, nil
}

func runDelay(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.argument(ctx, c, "delay-time")
	if err != nil {
		return nil, err
	}
	d, ok := duration(v)
	if !ok {
		return nil, failf("invalid value for argument delay-time")
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil, nil //nolint:nilnil // a delay has no value
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// duration reads 2 (seconds), 2s, 200ms, 1m30s.
func duration(v Value) (time.Duration, bool) {
	if n, ok := Number(v); ok {
		return time.Duration(n) * time.Second, n >= 0
	}
	d, err := time.ParseDuration(Text(v))
	return d, err == nil && d >= 0
}

func (f *frame) condition(ctx context.Context, c *command, name string) (bool, error) {
	v, err := f.argument(ctx, c, name)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, failf("conditional not boolean")
	}
	return b, nil
}

func runIf(ctx context.Context, f *frame, c *command) (Value, error) {
	yes, err := f.condition(ctx, c, "condition")
	if err != nil {
		return nil, err
	}
	if yes {
		return f.argument(ctx, c, "do")
	}
	return f.argument(ctx, c, "else")
}

// turn runs the block of a loop once, with its counters set. It tells whether the loop is over.
func (f *frame) turn(ctx context.Context, c *command, set func(*frame)) (over bool, err error) {
	if err := f.run.step(ctx); err != nil {
		return true, err
	}
	inner := f.inner()
	set(inner)
	b, ok := c.arg("do").(*block)
	if !ok {
		return true, nil
	}
	_, err = b.in(ctx, inner)
	var j *jump
	if errors.As(err, &j) && j.kind == "continue" {
		return false, nil
	}
	if errors.As(err, &j) && j.kind == "break" {
		return true, nil
	}
	return err != nil, err
}

func (c *command) counters() []string {
	v, _ := literalOf(c.arg("counter"))
	out := make([]string, 0, 2)
	for _, name := range elementsOf(v) {
		out = append(out, Text(name))
	}
	return out
}

func runForeach(ctx context.Context, f *frame, c *command) (Value, error) {
	in, err := f.argument(ctx, c, "in")
	if err != nil {
		return nil, err
	}
	names, keys := c.counters(), keysOf(in)
	for i, v := range elementsOf(in) {
		over, err := f.turn(ctx, c, func(inner *frame) {
			if len(names) > 1 {
				inner.declare(names[0], keys(i))
			}
			inner.declare(names[len(names)-1], v)
		})
		if over {
			return nil, err
		}
	}
	return nil, nil //nolint:nilnil // a loop has no value
}

func keysOf(v Value) func(int) Value {
	if m, ok := v.(*Map); ok {
		return func(i int) Value { return m.keys[i] }
	}
	return func(i int) Value { return int64(i) }
}

func runFor(ctx context.Context, f *frame, c *command) (Value, error) {
	bounds := map[string]int64{"step": 1}
	for _, name := range []string{"from", "to", "step"} {
		v, err := f.argument(ctx, c, name)
		if err != nil {
			return nil, err
		}
		n, ok := Number(v)
		if !ok && c.has(name) {
			return nil, failf("invalid value for argument %s", name)
		}
		if ok {
			bounds[name] = n
		}
	}
	step := bounds["step"]
	if step == 0 {
		return nil, failf("invalid value for argument step")
	}
	if !c.has("step") && bounds["from"] > bounds["to"] {
		step = -1
	}
	for i := bounds["from"]; step > 0 && i <= bounds["to"] || step < 0 && i >= bounds["to"]; i += step {
		over, err := f.turn(ctx, c, func(inner *frame) { inner.declare(c.counters()[0], i) })
		if over {
			return nil, err
		}
	}
	return nil, nil //nolint:nilnil // a loop has no value
}

func runWhile(ctx context.Context, f *frame, c *command) (Value, error) {
	for {
		yes, err := f.condition(ctx, c, "condition")
		if err != nil || !yes {
			return nil, err
		}
		if over, err := f.turn(ctx, c, func(*frame) {}); over {
			return nil, err
		}
	}
}

// runDo runs a block once, again while a condition holds, and its on-error block when it fails.
func runDo(ctx context.Context, f *frame, c *command) (Value, error) {
	for {
		v, err := f.argument(ctx, c, "command")
		if _, ok := caught(err); ok && c.has("on-error") {
			v, err = f.argument(ctx, c, "on-error")
		}
		if err != nil || !c.has("while") {
			return v, err
		}
		if again, err := f.condition(ctx, c, "while"); err != nil || !again {
			return v, err
		}
		if err := f.run.step(ctx); err != nil {
			return nil, err
		}
	}
}

// runOnError yields whether there was an error, unless a block returns something else [V].
func runOnError(ctx context.Context, f *frame, c *command) (Value, error) {
	_, err := f.argument(ctx, c, "in")
	if err == nil {
		return false, nil
	}
	fail, ok := caught(err)
	if !ok {
		return returned(err)
	}
	name, _ := literalOf(c.arg("error"))
	inner := f.inner()
	inner.declare(Text(elementsOf(name)[0]), fail.text)
	b, ok := c.arg("do").(*block)
	if !ok {
		return true, nil
	}
	if _, err := b.in(ctx, inner); err != nil {
		return returned(err)
	}
	return true, nil
}

func returned(err error) (Value, error) {
	var j *jump
	if errors.As(err, &j) && j.kind == "return" {
		return j.value, nil
	}
	return nil, err
}

func runReturn(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.argument(ctx, c, "value")
	if err != nil {
		return nil, err
	}
	return nil, &jump{kind: "return", value: v}
}

func runJump(_ context.Context, _ *frame, c *command) (Value, error) {
	return nil, &jump{kind: c.verb[1:]}
}
