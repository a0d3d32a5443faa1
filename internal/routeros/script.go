package routeros

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// code is script text that a programmer wrote. The type is not exported, so outside of this package only an untyped
// string constant can become one: a value that arrived from a user cannot, whatever the compiler is told.
type code string

// maxText bounds one quoted value. The longest that the driver sends is the comment of a disk item.
const maxText = 2048

// Script is one command for the RDS: a name, which metrics carry, and one line of RouterOS script.
type Script struct {
	name, body string
}

// Name is the label of the command in metrics and errors, such as "disk_add".
func (s Script) Name() string { return s.name }

// String is the script as it was built, before it is wrapped for the wire.
func (s Script) String() string { return s.body }

// Value is something that a placeholder in a template stands for.
type Value interface {
	appendTo(script []byte) ([]byte, error)
}

// Builder makes a Script, statement by statement. It is the only place where a script comes together, as B26 (a
// parameter of a StorageClass reached the console as commands) shows to be needed.
type Builder struct {
	name       code
	statements []byte
	errs       []error
}

// NewScript begins a script.
func NewScript(name code) *Builder { return &Builder{name: name} }

// Add appends one statement, or several that belong together. Each ? in the template that stands outside of a quoted
// string is replaced by the next value; line breaks and indentation become one space, since RouterOS takes only
// one line over an exec channel [V].
//
//	NewScript("disk_get").Add(`:put [/disk get [find slot=?] size]`, Text(slot))
func (b *Builder) Add(template code, values ...Value) *Builder {
	if len(b.statements) > 0 {
		b.statements = append(b.statements, "; "...)
	}
	statements, err := expand(b.statements, template, values)
	if err != nil {
		b.errs = append(b.errs, err)
		return b
	}
	b.statements = statements
	return b
}

// Build returns the script, or everything that was wrong with it.
func (b *Builder) Build() (Script, error) {
	if err := errors.Join(b.errs...); err != nil {
		return Script{}, fmt.Errorf("script %s: %w", b.name, err)
	}
	if len(b.statements) == 0 {
		return Script{}, fmt.Errorf("%w: script %s is empty", ErrInvalid, b.name)
	}
	return Script{name: string(b.name), body: string(b.statements)}, nil
}

// expand appends template to script with its placeholders replaced.
func expand(script []byte, template code, values []Value) ([]byte, error) {
	quoted, next := false, 0
	for i := 0; i < len(template); i++ {
		switch c := template[i]; {
		case quoted && c == '\\' && i+1 < len(template):
			script = append(script, c, template[i+1])
			i++
		case c == '"':
			quoted = !quoted
			script = append(script, c)
		case !quoted && c == '?':
			if next == len(values) {
				return nil, fmt.Errorf("%w: template %q has more placeholders than values", ErrInvalid, template)
			}
			var err error
			if script, err = values[next].appendTo(script); err != nil {
				return nil, err
			}
			next++
		case !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			script = appendSpace(script)
		case c < ' ':
			return nil, fmt.Errorf("%w: template %q has a line break inside a string", ErrInvalid, template)
		default:
			script = append(script, c)
		}
	}
	if quoted || next != len(values) {
		return nil, fmt.Errorf("%w: template %q has an open string or fewer placeholders than values", ErrInvalid, template)
	}
	return script, nil
}

// appendSpace separates words without ever doubling a space or beginning a script with one.
func appendSpace(script []byte) []byte {
	if len(script) == 0 || script[len(script)-1] == ' ' {
		return script
	}
	return append(script, ' ')
}

// Text is a string, quoted.
func Text(s string) Value { return text(s) }

type text string

func (t text) appendTo(script []byte) ([]byte, error) {
	quoted, err := Quote(string(t))
	return append(script, quoted...), err
}

// Number is a whole number. Sizes go out as bytes, never with a suffix: RouterOS reads suffixes as binary here and as
// decimal there.
func Number(n int64) Value { return number(n) }

type number int64

func (n number) appendTo(script []byte) ([]byte, error) {
	return strconv.AppendInt(script, int64(n), 10), nil
}

// YesNo is a boolean as RouterOS writes it.
func YesNo(b bool) Value { return yesNo(b) }

type yesNo bool

func (b yesNo) appendTo(script []byte) ([]byte, error) {
	if b {
		return append(script, "yes"...), nil
	}
	return append(script, "no"...), nil
}

// Word is a menu path or the name of a property: lower-case letters, digits, hyphens and slashes, beginning with a
// letter or a slash.
func Word(s string) Value { return word(s) }

type word string

func (w word) appendTo(script []byte) ([]byte, error) {
	for i := range len(w) {
		c := w[i]
		letter := c >= 'a' && c <= 'z' || c == '/'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return nil, fmt.Errorf("%w: %q is no menu path or property name", ErrInvalid, string(w))
		}
	}
	if w == "" {
		return nil, fmt.Errorf("%w: an empty menu path or property name", ErrInvalid)
	}
	return append(script, w...), nil
}

// Part is a piece of script of its own, for what is there only sometimes. An empty template is nothing at all.
func Part(template code, values ...Value) Value { return part{template, values} }

type part struct {
	template code
	values   []Value
}

func (p part) appendTo(script []byte) ([]byte, error) { return expand(script, p.template, p.values) }

// Quote makes s a string literal of the RouterOS language. What it cannot carry safely it refuses: control characters
// (a line break ends the command), invalid UTF-8, and anything over-long. Inside a literal only `"`, `\` and `$` have a
// meaning [V]; `?` lost its own with 7.1. Bytes above ASCII go out as hexadecimal escapes [V], because nobody has shown
// what an exec channel does to them [U].
func Quote(s string) (string, error) {
	if len(s) > maxText {
		return "", fmt.Errorf("%w: a value of %d bytes, at most %d are possible", ErrInvalid, len(s), maxText)
	}
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%w: %q is not valid UTF-8", ErrInvalid, s)
	}
	quoted := make([]byte, 0, len(s)+2)
	quoted = append(quoted, '"')
	for _, r := range s {
		switch {
		case unicode.IsControl(r):
			return "", fmt.Errorf("%w: %q contains a control character", ErrInvalid, s)
		case strings.ContainsRune(`"\$`, r):
			quoted = append(quoted, '\\', byte(r))
		case r < utf8.RuneSelf:
			quoted = append(quoted, byte(r))
		default:
			for _, b := range []byte(string(r)) {
				quoted = fmt.Appendf(quoted, `\%02X`, b)
			}
		}
	}
	return string(append(quoted, '"')), nil
}
