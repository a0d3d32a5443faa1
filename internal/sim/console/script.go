package console

// Script is a parsed script, opened up far enough to assert what a piece of quoting turned into.
type Script struct{ body []*command }

// Command is one command as written, wherever it stands: at the top, in a block, in [...].
type Command struct {
	Path   string // "/disk"; "" for a command of the language
	Verb   string // "add", ":put"
	Column int    // where it starts, from 1
	Depth  int    // 0 at the top, one more inside each command that contains it
	Args   []Argument
	Where  []Condition // the comparisons of its where clause, in order, whatever joins them
}

// Argument is an argument as written.
type Argument struct {
	// Name is empty for an unnamed argument or a flag that only a device could tell from one another.
	Name string
	// Value is what a literal stands for, escapes resolved: always a string for an argument of a menu's command.
	Value   Value
	Literal bool // false for anything that must be evaluated, blocks included
	Column  int
}

// Condition is one comparison of a where clause.
type Condition struct {
	Property string // "" if the left side is no property
	Op       string
	Value    Value
	Literal  bool
}

// Commands lists every command of the script in the order in which they begin.
func (s *Script) Commands() []Command {
	var out []Command
	for _, c := range s.body {
		out = collect(out, c, 0)
	}
	return out
}

func collect(out []Command, n node, depth int) []Command {
	if c, ok := n.(*command); ok {
		out = append(out, c.view(depth))
		depth++
	}
	for _, child := range n.children() {
		out = collect(out, child, depth)
	}
	return out
}

func (c *command) view(depth int) Command {
	v := Command{Path: c.path, Verb: c.verb, Column: c.offset + 1, Depth: depth}
	for _, a := range c.args {
		value, is := literalOf(a.value)
		v.Args = append(v.Args, Argument{Name: a.name, Value: value, Literal: is, Column: a.offset + 1})
	}
	if c.where != nil {
		v.Where = conditions(nil, c.where)
	}
	return v
}

func literalOf(n node) (Value, bool) {
	switch n := n.(type) {
	case *literal:
		return n.value, true
	case *word:
		return typed(n.text), true
	}
	return nil, false
}

func conditions(out []Condition, n node) []Condition {
	switch n := n.(type) {
	case *binary:
		if !comparison(n.op) {
			return conditions(conditions(out, n.x), n.y)
		}
		value, is := literalOf(n.y)
		c := Condition{Op: n.op, Value: value, Literal: is}
		if p, ok := n.x.(*property); ok {
			c.Property = p.name
		}
		return append(out, c)
	case *unary:
		return conditions(out, n.x)
	}
	return out
}
