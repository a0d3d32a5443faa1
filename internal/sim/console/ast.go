package console

import (
	"context"
	"slices"
)

// node is a piece of a parsed script that has a value.
type node interface {
	eval(ctx context.Context, f *frame) (Value, error)
	children() []node
}

// literal is a value as written.
type literal struct{ value Value }

// text is a quoted string with substitutions in it.
type text struct{ parts []node }

// variable is $name.
type variable struct{ name string }

// property is a bare word on the left of a comparison in a where clause, or alone there.
type property struct{ name string }

// word is a bare word on the right of a comparison in a where clause: a property if there is one of that name, else
// what it looks like.
type word struct{ text string }

type unary struct {
	op string
	x  node
}

type binary struct {
	op   string
	x, y node
}

// index is x->key.
type index struct{ x, key node }

// array is {...}; keys are nil where an element has none.
type array struct {
	keys   []*string
	values []node
}

// block is {...} where commands stand.
type block struct{ body []*command }

// command is one command of the language or of a menu. A command inside [...] is its own node.
type command struct {
	offset int
	line   int
	path   string // "/disk"; "" for the language's own
	verb   string // "add"; ":put"; "{"; "" for a mere change of menu
	args   []argument
	where  node
	bad    *SyntaxError // an argument that does not exist, to be reported when the command runs (7.23 on)
	menu   Menu
	run    builtinFunc
}

type argument struct {
	name   string // "" only when parsed without a device, where nobody knows
	offset int
	flag   bool // a bare word that names an argument: `once`
	value  node
}

func (*literal) children() []node  { return nil }
func (n *text) children() []node   { return n.parts }
func (*variable) children() []node { return nil }
func (*property) children() []node { return nil }
func (*word) children() []node     { return nil }
func (n *unary) children() []node  { return []node{n.x} }
func (n *binary) children() []node { return []node{n.x, n.y} }
func (n *index) children() []node  { return []node{n.x, n.key} }
func (n *array) children() []node  { return n.values }

func (n *block) children() []node {
	out := make([]node, 0, len(n.body))
	for _, c := range n.body {
		out = append(out, c)
	}
	return out
}

func (c *command) children() []node {
	out := make([]node, 0, len(c.args)+1)
	for _, a := range c.args {
		out = append(out, a.value)
	}
	if c.where != nil {
		out = append(out, c.where)
	}
	return out
}

func (c *command) arg(name string) node {
	i := slices.IndexFunc(c.args, func(a argument) bool { return a.name == name })
	if i < 0 {
		return nil
	}
	return c.args[i].value
}

func (c *command) has(name string) bool { return c.arg(name) != nil }
