package console

import "strings"

// quoted parses "..." with its escapes and substitutions.
func (p *parser) quoted() (node, error) {
	p.pos++
	var parts []node
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			parts = append(parts, &literal{b.String()})
			b.Reset()
		}
	}
	for {
		switch c := p.peek(); {
		case p.end():
			return nil, p.syntax()
		case c == '"':
			p.pos++
			flush()
			return joined(parts), nil
		case c == '\\':
			if err := p.escape(&b); err != nil {
				return nil, err
			}
		case c == '$':
			flush()
			n, err := p.interpolation()
			if err != nil {
				return nil, err
			}
			parts = append(parts, n)
		case c < ' ' || c == 0x7f:
			if !p.dialect.MultiLine || c == 0 {
				return nil, p.syntax()
			}
			b.WriteByte(c)
			p.pos++
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
}

func joined(parts []node) node {
	if len(parts) == 0 {
		return &literal{""}
	}
	if l, ok := parts[0].(*literal); ok && len(parts) == 1 {
		return l
	}
	return &text{parts}
}

// escape reads one escape sequence. \? went away with 7.1 [V] and is refused, like everything the manual does not list;
// hex digits are upper case [V].
func (p *parser) escape(b *strings.Builder) error {
	rest := p.src[p.pos+1:]
	if rest == "" {
		return p.syntax()
	}
	if hi, ok := hexDigit(rest[0]); ok && len(rest) > 1 {
		if lo, ok := hexDigit(rest[1]); ok {
			b.WriteByte(hi<<4 | lo)
			p.pos += 3
			return nil
		}
	}
	at := strings.IndexByte(`"\$nrt_abfv`, rest[0])
	if at < 0 {
		return p.syntax()
	}
	b.WriteByte("\"\\$\n\r\t \a\b\f\v"[at])
	p.pos += 2
	return nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case isDigit(c):
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// interpolation reads what a dollar stands for inside quotes: $name, $(expression), $[command]. A dollar that begins
// none of these is refused [U].
func (p *parser) interpolation() (node, error) {
	p.pos++
	switch p.peek() {
	case '(':
		return p.parenthesis()
	case '[':
		return p.substitution()
	}
	start := p.pos
	return p.variableNamed(start, p.take(isAlnum))
}

// variable reads $name or $"any name".
func (p *parser) variable() (node, error) {
	p.pos++
	start := p.pos
	if p.peek() != '"' {
		return p.variableNamed(start, p.take(isAlnum))
	}
	n, err := p.quoted()
	if err != nil {
		return nil, err
	}
	name, _ := literalOf(n)
	s, _ := name.(string)
	return p.variableNamed(start, s)
}

func (p *parser) variableNamed(at int, name string) (node, error) {
	if name == "" || !p.names.has(name) {
		return nil, p.fail(at, "syntax error")
	}
	return &variable{name}, nil
}
