package console

import (
	"context"
	"io"
)

// Value is what a console expression evaluates to. The dynamic types are exactly:
//
//	nil      nothing
//	bool     true, false (also written yes, no)
//	int64    a number
//	string   text
//	ID       the internal id of an item, "*1F"
//	[]Value  an array
//	*Map     an array with keys
//
// Nothing else may come out of an Item or a Menu.
type Value any

// ID is the internal number of an item as the console shows it: a star and upper-case hex digits.
type ID string

// Arg is one argument of a command.
//
// A word written in the command arrives as the string that was written, quoted or not: "1G", "yes", "4420"; whether
// it fits is the menu's business, as it is the property's business on the device. A computed value ($x, (1+2), [...])
// arrives with its type. Text, Number and Bool read both forms. A flag (`once`) arrives as true.
type Arg struct {
	Name  string
	Value Value
}

// Item is one row of a menu.
type Item interface {
	// ID is the internal number; "" for the only item of a Singleton.
	ID() ID
	// Get returns the typed value of a property, as `get`, `where` and `as-value` see it: sizes are int64, flags
	// are bool. A property that is not set is absent, not "".
	Get(prop string) (Value, bool)
	// Props lists the properties that are set, in any order, without ".id".
	Props() []string
}

// Menu is a directory of the console, like /disk.
//
// The console itself does print, find and get, on every menu whose Verbs has an entry "print"; add, set, remove and
// everything else exist when Verbs says so, and go to Call.
type Menu interface {
	// Items returns all rows, in the order in which print shows them.
	Items(ctx context.Context) ([]Item, error)
	// Call runs a verb. For a verb whose argument list has "numbers" (set and remove always have), items are the
	// rows addressed; the console has resolved them and answered "no such item" itself. Call is not made when the
	// list of items was given and is empty (`set [find slot="absent"] ...` does nothing and says nothing); it is made
	// with nil items when a verb other than set and remove was given none. "numbers" is not among args.
	// An error's text is what the user reads ("failure: ..."). The value is what `[...]` yields: the ID for add.
	Call(ctx context.Context, verb string, items []Item, args []Arg, out io.Writer) (Value, error)
	// Print writes the human form of these items, a selection of Items in the same order.
	Print(ctx context.Context, w io.Writer, items []Item, style PrintStyle) error
	// Verbs maps each verb to the names of its arguments. The entry "print" is there when the menu has something to
	// show; what it lists is added to the console's own flags of print.
	Verbs() map[string][]string
}

// Named is a Menu whose items can be addressed by a property other than "name", like the slot of a disk.
type Named interface {
	NameProp() string
}

// Singleton is a Menu with exactly one item and no ids, like /system/resource: `get` takes only the property, and
// as-value yields one map instead of a list of maps.
type Singleton interface {
	Singleton() bool
}

// Tabular is a Menu whose table shows fewer columns than an item has properties: `print as-value` without `detail`
// yields only these [S], which is why scripts ask for `print detail as-value`.
type Tabular interface {
	Columns() []string
}

// Guarded is a Menu whose verbs need other policies than the usual ones (read for print, find and get, write for
// all else). An empty answer means the usual one.
type Guarded interface {
	Policy(verb string) string
}

// Storer is a Device that can keep the output of `print file=name`.
type Storer interface {
	Store(ctx context.Context, name string, text []byte) error
}

// Device is what a script runs on.
type Device interface {
	// Menu finds a menu by its canonical path, "/disk" or "/system/resource". A path that only leads to others
	// ("/system") is a menu too, if only one without verbs.
	Menu(path string) (Menu, bool)
	// Allowed tells whether the user has the policy ("read", "write", "reboot", ...).
	Allowed(user, policy string) bool
	// Dialect tells which RouterOS this is. It must not change while a script runs.
	Dialect() Dialect
}

// Dialect is what differs between RouterOS versions, or may differ. The zero value is 7.21 and 7.22.
type Dialect struct {
	// RuntimeParameterErrors: an unknown argument is found when the command runs ("bad parameter x", from 7.23 on
	// [S]) and not when the script is parsed ("expected end of command").
	RuntimeParameterErrors bool
	// ErrorLocation appends " (/disk/add; line 1)" to the text of run-time errors of commands. Both forms have
	// been seen [R]; what decides between them is not known.
	ErrorLocation bool
	// MultiLine accepts line ends between statements, as a stored script does. An exec channel does not: there
	// multi-line commands fail [V], so that here a raw line end outside quotes is a syntax error.
	MultiLine bool
}

// Form is a human form of print.
type Form int

// The forms of print; the default is a table.
const (
	Plain Form = iota
	Detail
	Terse
)

// PrintStyle is what print was asked to show.
type PrintStyle struct {
	Form     Form
	Proplist []string // nil: all
	Flags    []string // other flags given, of the console or of Verbs()["print"], e.g. "stats", "without-paging"
}
