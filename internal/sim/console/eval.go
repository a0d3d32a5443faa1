package console

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

func (n *literal) eval(context.Context, *frame) (Value, error) { return n.value, nil }

func (n *text) eval(ctx context.Context, f *frame) (Value, error) {
	var b strings.Builder
	for _, part := range n.parts {
		v, err := part.eval(ctx, f)
		if err != nil {
			return nil, err
		}
		render(&b, v)
	}
	return limited(b.String())
}

// eval of a variable: in a where clause a property of that name comes first. `:local type "x"; print where name=$type`
// compares two properties [V].
func (n *variable) eval(_ context.Context, f *frame) (Value, error) {
	if f.row != nil && f.row.known()[n.name] {
		return f.property(n.name), nil
	}
	return f.lookup(n.name), nil
}

func (n *property) eval(_ context.Context, f *frame) (Value, error) {
	if f.row == nil {
		return n.name, nil
	}
	return f.property(n.name), nil
}

func (n *word) eval(_ context.Context, f *frame) (Value, error) {
	if f.row != nil && f.row.known()[n.text] {
		return f.property(n.text), nil
	}
	return typed(n.text), nil
}

func (n *unary) eval(ctx context.Context, f *frame) (Value, error) {
	x, err := n.x.eval(ctx, f)
	if err != nil {
		return nil, err
	}
	if n.op == "!" {
		b, err := f.truth(x)
		return !b, err
	}
	i, ok := x.(int64)
	if !ok {
		return nil, mismatchf("cannot negate %s", typeName(x))
	}
	return -i, nil
}

// eval of a binary operator looks at both sides, always: whether a device stops at the first is not known, so that
// nothing here may depend on it [U].
func (n *binary) eval(ctx context.Context, f *frame) (Value, error) {
	x, err := n.side(ctx, f, n.x)
	if err != nil {
		return nil, err
	}
	y, err := n.side(ctx, f, n.y)
	if err != nil {
		return nil, err
	}
	return f.operate(n.op, x, y)
}

// side evaluates an operand. In a where clause operands that do not fit make their own comparison false, no more.
func (n *binary) side(ctx context.Context, f *frame, side node) (Value, error) {
	v, err := side.eval(ctx, f)
	if fail, ok := caught(err); ok && fail.mismatch && f.row != nil {
		return false, nil
	}
	return v, err
}

func (n *index) eval(ctx context.Context, f *frame) (Value, error) {
	x, err := n.x.eval(ctx, f)
	if err != nil {
		return nil, err
	}
	k, err := n.key.eval(ctx, f)
	if err != nil {
		return nil, err
	}
	return element(x, k), nil
}

func element(x, key Value) Value {
	switch x := x.(type) {
	case []Value:
		if i, ok := key.(int64); ok && i >= 0 && i < int64(len(x)) {
			return x[i]
		}
	case *Map:
		if v, ok := x.Get(Text(key)); ok {
			return v
		}
	}
	return nothing{}
}

// eval of an array: with a key anywhere it is an array with keys, in which the others are numbered from 0 [V].
func (n *array) eval(ctx context.Context, f *frame) (Value, error) {
	values := make([]Value, 0, len(n.values))
	for _, e := range n.values {
		v, err := e.eval(ctx, f)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	if !slices.ContainsFunc(n.keys, func(k *string) bool { return k != nil }) {
		return values, nil
	}
	m, next := NewMap(), 0
	for i, k := range n.keys {
		if k == nil {
			m.Set(fmt.Sprint(next), values[i])
			next++
			continue
		}
		m.Set(*k, values[i])
	}
	return m, nil
}

// eval of a block runs it in a scope of its own. It has no value unless something returns one.
func (n *block) eval(ctx context.Context, f *frame) (Value, error) {
	return n.in(ctx, f.inner())
}

func (n *block) in(ctx context.Context, f *frame) (Value, error) {
	for _, c := range n.body {
		if _, err := c.eval(ctx, f); err != nil {
			return nil, err
		}
	}
	return nil, nil //nolint:nilnil // nothing is the value of a block
}

func (c *command) eval(ctx context.Context, f *frame) (Value, error) {
	if err := f.run.step(ctx); err != nil {
		return nil, err
	}
	if c.bad != nil {
		return nil, failf("%s", c.bad.Error())
	}
	return c.run(ctx, f, c)
}

// argument evaluates an argument of the language's own commands; nil if it was not given.
func (f *frame) argument(ctx context.Context, c *command, name string) (Value, error) {
	n := c.arg(name)
	if n == nil {
		return nil, nil //nolint:nilnil // an argument that is not given is nil
	}
	return n.eval(ctx, f)
}

func limited(s string) (Value, error) {
	if len(s) > textLimit {
		return nil, &failure{text: "script error: value too long for the simulator", fatal: true}
	}
	return s, nil
}
