package console

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
)

var errNoSuchItem = errors.New("no such item")

// runMenuCommand runs a command of a menu and words its failure.
func runMenuCommand(ctx context.Context, f *frame, c *command) (Value, error) {
	v, err := f.menuCommand(ctx, c)
	if err == nil {
		return v, nil
	}
	if fatal := f.run.aborted(ctx); fatal != nil {
		return nil, fatal
	}
	return nil, f.worded(c, err)
}

// worded makes a run-time failure of whatever a menu answered.
func (f *frame) worded(c *command, err error) error {
	var own *failure
	var j *jump
	if errors.As(err, &own) || errors.As(err, &j) {
		return err
	}
	out := &failure{text: err.Error()}
	if f.run.dialect.ErrorLocation {
		out.text += " (" + c.title() + "; line " + Text(int64(c.line)) + ")"
	}
	return out
}

func (f *frame) menuCommand(ctx context.Context, c *command) (Value, error) {
	if !f.run.device.Allowed(f.run.user, policyOf(c.menu, c.verb)) {
		return nil, errors.New("not enough permissions (9)")
	}
	switch c.verb {
	case "print":
		return f.print(ctx, c)
	case "find":
		return f.find(ctx, c)
	case "get":
		return f.get(ctx, c)
	}
	return f.call(ctx, c)
}

func policyOf(menu Menu, verb string) string {
	if g, ok := menu.(Guarded); ok {
		if policy := g.Policy(verb); policy != "" {
			return policy
		}
	}
	switch verb {
	case "print", "find", "get":
		return "read"
	}
	return "write"
}

// selected returns the items that a command's where clause lets through.
func (f *frame) selected(ctx context.Context, c *command) ([]Item, error) {
	items, err := c.menu.Items(ctx)
	if err != nil || c.where == nil {
		return items, err
	}
	known := sync.OnceValue(func() map[string]bool { return knownProps(c.menu, items) })
	var out []Item
	for _, item := range items {
		yes, err := f.matches(ctx, c.where, &row{item: item, known: known})
		if err != nil {
			return nil, err
		}
		if yes {
			out = append(out, item)
		}
	}
	return out, nil
}

// matches asks a where clause about one row. Operands that do not fit together mean no, silently [V].
func (f *frame) matches(ctx context.Context, where node, r *row) (bool, error) {
	at := &frame{run: f.run, vars: f.vars, row: r}
	v, err := where.eval(ctx, at)
	if fail, ok := caught(err); ok && fail.mismatch {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return at.truth(v)
}

// knownProps are the names that a where clause takes for properties, whatever variables there are.
func knownProps(menu Menu, items []Item) map[string]bool {
	known := map[string]bool{".id": true}
	verbs := menu.Verbs()
	for _, name := range slices.Concat(verbs["add"], verbs["set"]) {
		known[name] = true
	}
	for _, item := range items {
		for _, name := range item.Props() {
			known[name] = true
		}
	}
	delete(known, "numbers")
	return known
}

func (f *frame) find(ctx context.Context, c *command) (Value, error) {
	items, err := f.selected(ctx, c)
	if err != nil {
		return nil, err
	}
	ids := make([]Value, 0, len(items))
	for _, item := range items {
		ids = append(ids, item.ID())
	}
	return ids, nil
}

// get yields a property of one item, or all of them.
func (f *frame) get(ctx context.Context, c *command) (Value, error) {
	all, err := c.menu.Items(ctx)
	if err != nil {
		return nil, err
	}
	items := all
	if !singleton(c.menu) {
		if items, err = f.addressed(ctx, c, all); err != nil {
			return nil, err
		}
	}
	switch {
	case len(items) == 0:
		return nil, errNoSuchItem
	case len(items) > 1:
		return nil, errors.New("invalid internal item number") // [I]
	case !c.has("value-name"):
		return asMap(items[0], nil), nil
	}
	return f.getValue(ctx, c, items[0], all)
}

func (f *frame) getValue(ctx context.Context, c *command, item Item, all []Item) (Value, error) {
	v, err := f.argument(ctx, c, "value-name")
	if err != nil {
		return nil, err
	}
	name := Text(v)
	at := &frame{run: f.run, row: &row{item: item}}
	v = at.property(name)
	if v == (nothing{}) && !knownProps(c.menu, all)[name] {
		return nil, errors.New("input does not match any value of value-name")
	}
	return v, nil
}

// addressed finds the items that a command's numbers name. A list may be empty; a name or id must exist.
func (f *frame) addressed(ctx context.Context, c *command, all []Item) ([]Item, error) {
	v, err := f.argument(ctx, c, "numbers")
	if err != nil {
		return nil, err
	}
	if !c.has("numbers") {
		return nil, failf("numbers: ") // the console asks, and nobody answers [R]
	}
	var out []Item
	for _, address := range addresses(v) {
		i := slices.IndexFunc(all, func(item Item) bool { return named(c.menu, item, address) })
		if i < 0 {
			return nil, errNoSuchItem
		}
		if !slices.ContainsFunc(out, func(item Item) bool { return item.ID() == all[i].ID() }) {
			out = append(out, all[i])
		}
	}
	return out, nil
}

// addresses splits what numbers holds: an array, or text with commas.
func addresses(v Value) []Value {
	switch v := v.(type) {
	case []Value:
		out := make([]Value, 0, len(v))
		for _, e := range v {
			out = append(out, addresses(e)...)
		}
		return out
	case string:
		var out []Value
		for part := range strings.SplitSeq(v, ",") {
			out = append(out, part)
		}
		return out
	}
	return []Value{v}
}

// named tells whether an address means this item: its id or its name. A plain number means a row of the last print of
// an interactive session, so that here it means nothing [V], even where some item is called that.
func named(menu Menu, item Item, address Value) bool {
	text := Text(address)
	if _, isNumber := parseNumber(text); isNumber || empty(address) || text == "" {
		return false
	}
	if id, ok := parseID(text); ok {
		return item.ID() == id
	}
	name, ok := item.Get(nameProp(menu))
	return ok && name == text
}

// call runs a command of the menu's own.
func (f *frame) call(ctx context.Context, c *command) (Value, error) {
	args, err := f.callArgs(ctx, c)
	if err != nil {
		return nil, err
	}
	items, err := f.callItems(ctx, c)
	if err != nil {
		return nil, err
	}
	if items != nil && len(items) == 0 {
		return nil, nil //nolint:nilnil // nothing to do, nothing to say
	}
	v, err := c.menu.Call(ctx, c.verb, items, args, f.run.out)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// callItems returns the items that a command is for: nil if it is for none, empty if for those of an empty list.
func (f *frame) callItems(ctx context.Context, c *command) ([]Item, error) {
	edits := c.verb == "set" || c.verb == "remove"
	if !c.has("numbers") && !edits {
		return nil, nil
	}
	all, err := c.menu.Items(ctx)
	if err != nil || singleton(c.menu) {
		return all, err
	}
	items, err := f.addressed(ctx, c, all)
	if items == nil && err == nil {
		items = []Item{}
	}
	return items, err
}

func (f *frame) callArgs(ctx context.Context, c *command) ([]Arg, error) {
	var args []Arg
	for _, a := range c.args {
		if a.name == "numbers" {
			continue
		}
		v, err := a.value.eval(ctx, f)
		if err != nil {
			return nil, err
		}
		args = append(args, Arg{Name: a.name, Value: outward(v)})
	}
	return args, nil
}
