package console

import "slices"

// catalogue knows menus and their commands: a device's, or what can be guessed without one.
type catalogue interface {
	// menu tells whether word names a menu below path. rest is what follows it in the script.
	menu(path, word, rest string) bool
	// verb describes a command of a menu.
	verb(path, name string) (verbSpec, bool)
}

// verbSpec is how the arguments of a menu's command are read.
type verbSpec struct {
	menu    Menu
	unnamed []string // what unnamed arguments are for, in order
	named   []string
	flags   []string
	filter  filterKind
	open    bool // nobody knows the arguments: take them as they come
}

type filterKind int

const (
	noFilter    filterKind = iota
	whereFilter            // where ...
	findFilter             // where ..., or property=value without it
)

// printFlags are the console's own flags of print that end by themselves; those that keep printing (follow, interval)
// would hold an exec channel for ever and are left out.
func printFlags() []string {
	return []string{
		"as-value", "brief", "count-only", "detail", "show-ids", "show-sensitive", "terse", "value-list", "without-paging",
	}
}

func printSpec(extra []string) verbSpec {
	return verbSpec{named: []string{"proplist", "file"}, flags: append(printFlags(), extra...), filter: whereFilter}
}

func getSpec(single bool) verbSpec {
	if single {
		return verbSpec{unnamed: []string{"value-name"}, named: []string{"value-name"}}
	}
	return verbSpec{unnamed: []string{"numbers", "value-name"}, named: []string{"numbers", "value-name"}}
}

// onDevice is the catalogue of a device.
type onDevice struct{ device Device }

func (d onDevice) menu(path, word, _ string) bool {
	_, ok := d.device.Menu(path + "/" + word)
	return ok
}

func (d onDevice) verb(path, name string) (verbSpec, bool) {
	menu, ok := d.device.Menu(path)
	if !ok {
		return verbSpec{}, false
	}
	s, ok := specOf(menu, name)
	s.menu = menu
	return s, ok
}

func specOf(menu Menu, name string) (verbSpec, bool) {
	verbs := menu.Verbs()
	extra, printable := verbs["print"]
	switch name {
	case "print":
		return printSpec(extra), printable
	case "get":
		return getSpec(singleton(menu)), printable
	case "find":
		return verbSpec{filter: findFilter}, printable && !singleton(menu)
	}
	args, ok := verbs[name]
	return callSpec(name, args, singleton(menu)), ok
}

func callSpec(name string, args []string, single bool) verbSpec {
	s := verbSpec{named: slices.Clone(args)}
	if (name == "set" || name == "remove") && !single && !slices.Contains(s.named, "numbers") {
		s.named = append(s.named, "numbers")
	}
	if slices.Contains(s.named, "numbers") {
		s.unnamed = []string{"numbers"}
	}
	if name != "add" && name != "set" {
		s.flags = s.named
	}
	return s
}

func singleton(menu Menu) bool {
	s, ok := menu.(Singleton)
	return ok && s.Singleton()
}

func nameProp(menu Menu) string {
	if n, ok := menu.(Named); ok {
		return n.NameProp()
	}
	return "name"
}

// guessing is the catalogue without a device. It takes a word for a command if every menu has that command, or if
// nothing follows that could be part of a path.
type guessing struct{}

func (guessing) menu(_, word, rest string) bool {
	if commonVerb(word) {
		return false
	}
	if rest == "" || rest[0] == '/' {
		return rest != ""
	}
	p := &parser{src: rest}
	p.blanks()
	if p.take(isNameByte) == "" {
		return false
	}
	return p.delimited() || p.peek() == '/'
}

func (guessing) verb(_, name string) (verbSpec, bool) {
	switch name {
	case "print":
		s := printSpec(nil)
		s.open = true
		return s, true
	case "get":
		return getSpec(false), true
	case "find":
		return verbSpec{filter: findFilter}, true
	case "set", "remove":
		return verbSpec{unnamed: []string{"numbers"}, open: true}, true
	}
	return verbSpec{open: true}, true
}

func commonVerb(word string) bool {
	switch word {
	case "add", "set", "remove", "print", "find", "get", "enable", "disable", "reset", "unset", "move", "copy",
		"format", "monitor-traffic", "reboot", "shutdown":
		return true
	}
	return false
}
