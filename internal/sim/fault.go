package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The kinds of faults.
const (
	dropBefore = "drop-before"
	dropAfter  = "drop-after"
	delay      = "delay"
	silence    = "silence"
	rebooting  = "reboot"
	garbage    = "garbage"
	full       = "full"
)

// FaultKinds describes the kinds of faults, for --help.
func FaultKinds() [][2]string {
	return [][2]string{
		{dropBefore, "the connection dies before the command has an effect"},
		{dropAfter, "the command takes effect, then the connection dies without a reply"},
		{delay + "=2s", "the command waits before it takes effect; it does so even if the client gave up"},
		{silence, "accepts and answers nothing; for the connection as a whole when no command is named"},
		{rebooting, "the device reboots when the command arrives, before it has an effect"},
		{garbage + "[=noise|cut]", "the command takes effect, its reply is unreadable or ends half-way"},
		{full, "no pool has any space left"},
	}
}

// fault is one thing that goes wrong.
type fault struct {
	kind  string
	value string
	match string // of a command, as canonical makes it; "" is any
	left  int    // how often still; negative is always
}

// parseFault reads kind[=value][@command-substring][:count]. The count is what follows the last colon, if that is a
// number: a substring may have colons itself, as ":put" does.
func parseFault(spec string) (fault, error) {
	f := fault{left: -1}
	rest := spec
	if head, tail, ok := cutLast(rest, ":"); ok {
		if n, err := strconv.Atoi(tail); err == nil {
			if n < 1 {
				return fault{}, fmt.Errorf("fault %q: the count must be at least 1", spec)
			}
			f.left, rest = n, head
		}
	}
	rest, f.match, _ = strings.Cut(rest, "@")
	f.match = canonical(f.match)
	f.kind, f.value, _ = strings.Cut(rest, "=")
	if err := f.check(); err != nil {
		return fault{}, fmt.Errorf("fault %q: %w", spec, err)
	}
	return f, nil
}

func (f fault) check() error {
	switch f.kind {
	case delay:
		if t, err := time.ParseDuration(f.value); err != nil || t <= 0 {
			return fmt.Errorf("a delay needs a duration, as in delay=500ms")
		}
		return nil
	case garbage:
		if !slices.Contains([]string{"", "noise", "cut"}, f.value) {
			return fmt.Errorf("garbage is noise or cut")
		}
		return nil
	case dropBefore, dropAfter, silence, rebooting, full:
		if f.value != "" {
			return fmt.Errorf("%s takes no value", f.kind)
		}
		return nil
	}
	var kinds []string
	for _, k := range FaultKinds() {
		kinds = append(kinds, k[0])
	}
	return fmt.Errorf("unknown kind: there are %s", strings.Join(kinds, ", "))
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// canonical writes a command so that "/disk add" and "/disk/add" are the same.
func canonical(command string) string {
	return strings.Join(strings.FieldsFunc(command, func(r rune) bool { return r == ' ' || r == '/' }), " ")
}

// faults are those still to come.
type faults struct {
	mu   sync.Mutex
	list []fault
}

func newFaults(specs []string) (*faults, error) {
	f := &faults{}
	for _, spec := range specs {
		if err := f.inject(spec); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *faults) inject(spec string) error {
	parsed, err := parseFault(spec)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, parsed)
	return nil
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
}

// plan is what goes wrong with one command.
type plan struct {
	silent                         bool
	delay                          time.Duration
	before, after, reboot, nospace bool
	garbage                        string
}

// command takes the faults that concern a script, each kind at most once.
func (f *faults) command(script string) plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	text, p, seen := canonical(script), plan{}, map[string]bool{}
	for i := range f.list {
		one := &f.list[i]
		if one.deaf() || seen[one.kind] || !strings.Contains(text, one.match) {
			continue
		}
		seen[one.kind] = true
		one.left--
		p.add(*one)
	}
	f.forget()
	return p
}

func (p *plan) add(f fault) {
	switch f.kind {
	case silence:
		p.silent = true
	case delay:
		p.delay, _ = time.ParseDuration(f.value) // checked when it was injected
	case dropBefore:
		p.before = true
	case dropAfter:
		p.after = true
	case rebooting:
		p.reboot = true
	case full:
		p.nospace = true
	case garbage:
		p.garbage = "noise"
		if f.value != "" {
			p.garbage = f.value
		}
	}
}

// connection takes a silence that names no command, when something arrives on a connection that still answers.
func (f *faults) connection() (silent bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.IndexFunc(f.list, fault.deaf); i >= 0 {
		f.list[i].left--
		silent = true
	}
	f.forget()
	return silent
}

func (f fault) deaf() bool { return f.kind == silence && f.match == "" }

func (f *faults) forget() {
	f.list = slices.DeleteFunc(f.list, func(one fault) bool { return one.left == 0 })
}
