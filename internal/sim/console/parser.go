package console

import (
	"slices"
	"strings"
)

// Limits of the parser. A device has some too; nobody published them. What a user writes stays far below.
const (
	maxDepth = 64   // brackets and operators within one another
	maxChain = 1024 // operators side by side
)

// parser reads a script byte by byte, because what a byte means depends on where it stands: a dot joins strings in an
// expression and is a letter in an argument.
type parser struct {
	src     string
	pos     int
	depth   int
	inWhere bool
	base    string // menu at which relative commands start
	names   *names
	lang    map[string]builtin
	menus   catalogue
	dialect Dialect
}

// names are the variables declared where the parser stands. RouterOS takes a variable that was not declared for a
// compilation error [V]; some versions only read it as nothing [U]. Here it is the error.
type names struct {
	outer *names
	set   map[string]bool
}

func (n *names) has(name string) bool {
	for ; n != nil; n = n.outer {
		if n.set[name] {
			return true
		}
	}
	return false
}

func parse(src string, menus catalogue, dialect Dialect) ([]*command, error) {
	p := &parser{src: src, menus: menus, dialect: dialect, lang: builtins()}
	p.names = &names{set: map[string]bool{}}
	return p.body(0)
}

func (p *parser) fail(offset int, what string) error {
	line, column := place(p.src, offset)
	return &SyntaxError{Text: what, Line: line, Column: column}
}

func (p *parser) syntax() error { return p.fail(p.pos, "syntax error") }

func (p *parser) end() bool { return p.pos >= len(p.src) }

// peek is the next byte, or 0 at the end; a NUL in the script is no valid beginning of anything either.
func (p *parser) peek() byte {
	if p.end() {
		return 0
	}
	return p.src[p.pos]
}

func (p *parser) ahead(s string) bool { return strings.HasPrefix(p.src[p.pos:], s) }

func (p *parser) skip(c byte) bool {
	if p.peek() != c || p.end() {
		return false
	}
	p.pos++
	return true
}

func (p *parser) take(in func(byte) bool) string {
	start := p.pos
	for !p.end() && in(p.src[p.pos]) {
		p.pos++
	}
	return p.src[start:p.pos]
}

func (p *parser) blanks() { p.take(func(c byte) bool { return c == ' ' || c == '\t' }) }

func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return p.syntax()
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// delimited tells whether a word or value ends here.
func (p *parser) delimited() bool {
	return p.end() || strings.IndexByte(" \t;])}\r\n", p.peek()) >= 0
}

// commandEnd tells whether the arguments of a command end here.
func (p *parser) commandEnd() bool {
	return p.end() || strings.IndexByte(";])}\r\n", p.peek()) >= 0
}

// body parses commands up to a closing bracket, or to the end of the script if that is 0. The closing bracket is left.
func (p *parser) body(closing byte) ([]*command, error) {
	base := p.base
	defer func() { p.base = base }()
	var out []*command
	for {
		p.separators()
		if p.closed(closing) {
			return out, nil
		}
		c, err := p.statement()
		if err != nil {
			return nil, err
		}
		out = append(out, c)
		p.blanks()
		if err := p.terminated(closing); err != nil {
			return nil, err
		}
	}
}

func (p *parser) closed(closing byte) bool {
	if closing == 0 {
		return p.end()
	}
	return p.peek() == closing
}

func (p *parser) terminated(closing byte) error {
	switch {
	case p.closed(closing), p.peek() == ';', p.dialect.MultiLine && p.newline():
		return nil
	case p.commandEnd():
		return p.syntax()
	}
	return p.fail(p.pos, "expected end of command")
}

func (p *parser) newline() bool { return p.peek() == '\n' || p.peek() == '\r' }

// separators skips what may stand between commands. A comment is one only at the start of a line.
func (p *parser) separators() {
	for {
		p.blanks()
		switch {
		case p.peek() == ';', p.dialect.MultiLine && p.newline():
			p.pos++
		case p.peek() == '#' && p.lineStart():
			p.take(func(c byte) bool { return c != '\n' })
		default:
			return
		}
	}
}

func (p *parser) lineStart() bool {
	before := strings.TrimRight(p.src[:p.pos], " \t")
	return before == "" || strings.HasSuffix(before, "\n")
}

func (p *parser) statement() (*command, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	where := p.inWhere
	p.inWhere = false
	defer func() { p.inWhere = where }()
	line := p.line()
	c, err := p.command()
	if err != nil {
		return nil, err
	}
	c.line = line
	return c, nil
}

func (p *parser) line() int {
	if !p.dialect.MultiLine {
		return 1
	}
	line, _ := place(p.src, p.pos)
	return line
}

func (p *parser) command() (*command, error) {
	switch c := p.peek(); {
	case c == ':':
		return p.languageCommand()
	case c == '{':
		offset := p.pos
		b, err := p.block(nil)
		return &command{offset: offset, verb: "{", run: runScope, args: []argument{{offset: offset, value: b}}}, err
	case c == '/' || isNameByte(c):
		return p.menuCommand()
	}
	return nil, p.syntax()
}

// block parses {...}; bound are variables that its owner gives it, like the counter of a loop.
func (p *parser) block(bound []string) (node, error) {
	if !p.skip('{') {
		return nil, p.syntax()
	}
	inner := &names{outer: p.names, set: map[string]bool{}}
	for _, name := range bound {
		inner.set[name] = true
	}
	p.names = inner
	defer func() { p.names = inner.outer }()
	body, err := p.body('}')
	if err != nil {
		return nil, err
	}
	p.pos++
	return &block{body: body}, nil
}

// substitution parses [...]: a single command, which may end in a semicolon [V].
func (p *parser) substitution() (node, error) {
	p.pos++
	p.blanks()
	c, err := p.statement()
	if err != nil {
		return nil, err
	}
	p.blanks()
	if p.skip(';') {
		p.blanks()
	}
	if !p.skip(']') {
		return nil, p.syntax()
	}
	return c, nil
}

// argName reads `name=` if that is what stands here.
func (p *parser) argName() (string, bool) {
	start := p.pos
	name := p.take(isArgByte)
	if name == "" || !p.skip('=') {
		p.pos = start
		return "", false
	}
	return name, true
}

func (p *parser) keyword(s string) bool {
	if !p.ahead(s) {
		return false
	}
	rest := p.src[p.pos+len(s):]
	if rest != "" && isNameByte(rest[0]) {
		return false
	}
	p.pos += len(s)
	return true
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isAlnum(c byte) bool  { return isLetter(c) || isDigit(c) }

// isNameByte is for names of menus, commands and properties.
func isNameByte(c byte) bool { return isAlnum(c) || c == '-' || c == '_' }

func isArgByte(c byte) bool { return isNameByte(c) || c == '.' }

// isWordByte is what a value may consist of without quotes. The device takes a little more; what is not sure to pass
// is refused here.
func isWordByte(c byte) bool { return isAlnum(c) || slices.Contains([]byte("-_./:*,@+%"), c) }
