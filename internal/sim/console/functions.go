package console

import (
	"context"
	"strings"
)

func runLen(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.argument(ctx, c, "value")
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case []Value:
		return int64(len(v)), nil
	case *Map:
		return int64(v.Len()), nil
	}
	return int64(len(Text(v))), nil
}

// convert evaluates the value of a conversion. What cannot be converted becomes nil, and no error [V].
func convert(ctx context.Context, f *frame, c *command, to func(Value) (Value, bool)) (Value, error) {
	v, err := f.argument(ctx, c, "value")
	if err != nil {
		return nil, err
	}
	if out, ok := to(v); ok {
		return out, nil
	}
	return nil, nil //nolint:nilnil // nil is the language's own answer
}

func runToStr(ctx context.Context, f *frame, c *command) (Value, error) {
	return convert(ctx, f, c, func(v Value) (Value, bool) { return Text(v), true })
}

func runToNum(ctx context.Context, f *frame, c *command) (Value, error) {
	return convert(ctx, f, c, func(v Value) (Value, bool) { n, ok := Number(v); return n, ok })
}

func runToBool(ctx context.Context, f *frame, c *command) (Value, error) {
	return convert(ctx, f, c, func(v Value) (Value, bool) { b, ok := Bool(v); return b, ok })
}

func runToID(ctx context.Context, f *frame, c *command) (Value, error) {
	return convert(ctx, f, c, func(v Value) (Value, bool) { id, ok := parseID(Text(v)); return id, ok })
}

// runToArray splits text at commas; "" is how an empty array is made [V].
func runToArray(ctx context.Context, f *frame, c *command) (Value, error) {
	return convert(ctx, f, c, func(v Value) (Value, bool) {
		switch v := v.(type) {
		case []Value, *Map:
			return v, true
		case string:
			list := []Value{}
			if v == "" {
				return list, true
			}
			for part := range strings.SplitSeq(v, ",") {
				list = append(list, part)
			}
			return list, true
		}
		return append([]Value{}, elementsOf(v)...), true
	})
}

func runTypeOf(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.argument(ctx, c, "value")
	return typeName(v), err
}

// runParse checks a script without running it [R]. Unknown arguments are found here in every version.
func runParse(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.argument(ctx, c, "value")
	if err != nil {
		return nil, err
	}
	body, err := parse(Text(v), onDevice{f.run.device}, f.run.dialect)
	if err != nil {
		return nil, failf("%s", err.Error())
	}
	names := make([]string, 0, len(body))
	for _, cmd := range body {
		if bad := firstBad(cmd); bad != nil {
			return nil, failf("%s", bad.Error())
		}
		names = append(names, "(evl "+cmd.title()+")")
	}
	return code{strings.Join(names, ";")}, nil
}

func firstBad(n node) *SyntaxError {
	if c, ok := n.(*command); ok && c.bad != nil {
		return c.bad
	}
	for _, child := range n.children() {
		if bad := firstBad(child); bad != nil {
			return bad
		}
	}
	return nil
}

func (c *command) title() string {
	if c.path == "" {
		return c.verb
	}
	return c.path + "/" + c.verb
}

// runPick takes a part of a string or an array. Without an end it is one character or one element [V].
func runPick(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.argument(ctx, c, "value")
	if err != nil {
		return nil, err
	}
	begin, err := f.position(ctx, c, "begin", 0)
	if err != nil {
		return nil, err
	}
	end, err := f.position(ctx, c, "end", begin+1)
	if err != nil {
		return nil, err
	}
	if list, ok := v.([]Value); ok {
		if !c.has("end") {
			return element(list, begin), nil
		}
		lo, hi := clamp(begin, end, len(list))
		return append([]Value{}, list[lo:hi]...), nil
	}
	s := Text(v)
	lo, hi := clamp(begin, end, len(s))
	return s[lo:hi], nil
}

func clamp(begin, end int64, length int) (lo, hi int) {
	n := int64(length)
	lo64 := min(max(begin, 0), n)
	return int(lo64), int(max(lo64, min(end, n)))
}

func (f *frame) position(ctx context.Context, c *command, name string, otherwise int64) (int64, error) {
	if !c.has(name) {
		return otherwise, nil
	}
	v, err := f.argument(ctx, c, name)
	if err != nil {
		return 0, err
	}
	n, ok := Number(v)
	if !ok {
		return 0, failf("invalid value for argument %s", name)
	}
	return n, nil
}

// runFind looks for a substring or an element. The position to start from is itself left out, so that -1 means the
// beginning [V: the manual's example]; no find is nil.
func runFind(ctx context.Context, f *frame, c *command) (Value, error) {
	in, err := f.argument(ctx, c, "in")
	if err != nil {
		return nil, err
	}
	what, err := f.argument(ctx, c, "value")
	if err != nil {
		return nil, err
	}
	from, err := f.position(ctx, c, "from", -1)
	if err != nil {
		return nil, err
	}
	if list, ok := in.([]Value); ok {
		return findElement(list, what, from), nil
	}
	s := Text(in)
	lo, _ := clamp(from+1, 0, len(s))
	i := strings.Index(s[lo:], Text(what))
	if i < 0 {
		return nil, nil //nolint:nilnil // nil is the language's own answer
	}
	return int64(lo + i), nil
}

func findElement(list []Value, what Value, from int64) Value {
	for i, v := range list {
		if int64(i) > from && typeName(v) == typeName(what) && Text(v) == Text(what) {
			return int64(i)
		}
	}
	return nil
}
