package console

import "strings"

// Precedence of binary operators, weakest first. The manual gives no order; this is the usual one, and a careful script
// uses brackets [U].
func precedence(op string) int {
	switch op {
	case "||":
		return 1
	case "&&":
		return 2
	case "=", "!=", "<", ">", "<=", ">=", "~":
		return 3
	case ".", ",":
		return 4
	case "+", "-":
		return 5
	case "*", "/", "%":
		return 6
	}
	return 0
}

func comparison(op string) bool { return precedence(op) == 3 }

// operator reads a binary operator that binds at least as strongly as lowest.
func (p *parser) operator(lowest int) string {
	start := p.pos
	op := p.anyOperator()
	if precedence(op) < lowest {
		p.pos = start
		return ""
	}
	return op
}

func (p *parser) anyOperator() string {
	switch {
	case p.keyword("and"):
		return "&&"
	case p.keyword("or"):
		return "||"
	}
	rest := p.src[p.pos:]
	n := min(2, len(rest))
	if n == 2 && precedence(rest[:2]) > 0 {
		p.pos += 2
		return rest[:2]
	}
	if n > 0 && precedence(rest[:1]) > 0 && !strings.HasPrefix(rest, "->") {
		p.pos++
		return rest[:1]
	}
	return ""
}

func (p *parser) expression(lowest int) (node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	p.blanks()
	x, err := p.operand()
	for range maxChain {
		if err != nil {
			return nil, err
		}
		p.blanks()
		op := p.operator(max(lowest, 1))
		if op == "" {
			return x, nil
		}
		var y node
		y, err = p.expression(precedence(op) + 1)
		x = p.joinOperands(op, x, y)
	}
	return nil, p.syntax()
}

// joinOperands makes the right side of a comparison in a where clause a plain word where it looks like a property.
func (p *parser) joinOperands(op string, x, y node) node {
	if name, ok := y.(*property); ok && comparison(op) {
		y = &word{name.name}
	}
	return &binary{op: op, x: x, y: y}
}

func (p *parser) operand() (node, error) {
	switch c := p.peek(); c {
	case '!', '-':
		return p.prefixed(string(c))
	}
	x, err := p.primary()
	if err != nil {
		return nil, err
	}
	return p.elements(x)
}

func (p *parser) prefixed(op string) (node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	p.pos++
	p.blanks()
	x, err := p.operand()
	return &unary{op: op, x: x}, err
}

// elements reads ->0->"key" behind an operand.
func (p *parser) elements(x node) (node, error) {
	for range maxDepth {
		if !p.ahead("->") {
			return x, nil
		}
		p.pos += 2
		key, err := p.elementKey()
		if err != nil {
			return nil, err
		}
		x = &index{x: x, key: key}
	}
	return nil, p.syntax()
}

func (p *parser) elementKey() (node, error) {
	switch c := p.peek(); {
	case c == '"':
		return p.quoted()
	case c == '$':
		return p.variable()
	case c == '(':
		return p.parenthesis()
	case isDigit(c):
		return p.number()
	}
	return nil, p.syntax()
}

func (p *parser) primary() (node, error) {
	switch c := p.peek(); {
	case c == '"', c == '$', c == '(', c == '[', c == '{':
		return p.bracketed(c)
	case isDigit(c):
		return p.number()
	case c == '*':
		return p.id()
	case p.inWhere && p.ahead(".id"):
		p.pos += len(".id")
		return &property{".id"}, nil
	case isLetter(c):
		return p.bareWord()
	}
	return nil, p.syntax()
}

// bracketed parses what begins with a bracket or a sign of its own, the same everywhere.
func (p *parser) bracketed(c byte) (node, error) {
	switch c {
	case '"':
		return p.quoted()
	case '$':
		return p.variable()
	case '(':
		return p.parenthesis()
	case '[':
		return p.substitution()
	}
	return p.array()
}

func (p *parser) parenthesis() (node, error) {
	p.pos++
	x, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if !p.skip(')') {
		return nil, p.syntax()
	}
	return x, nil
}

// number reads a number. What follows without a space would make it an address or a time: 10/2 is a prefix to the
// device, not a division [V].
func (p *parser) number() (node, error) {
	start := p.pos
	digits := p.take(isAlnum)
	n, ok := parseNumber(digits)
	next := p.src[p.pos:]
	if !ok || strings.HasPrefix(next, "/") || len(next) > 1 && next[0] == '.' && isDigit(next[1]) {
		return nil, p.fail(start, "syntax error")
	}
	return &literal{n}, nil
}

func (p *parser) id() (node, error) {
	start := p.pos
	p.pos++
	p.take(isAlnum)
	id, ok := parseID(p.src[start:p.pos])
	if !ok {
		return nil, p.fail(start, "syntax error")
	}
	return &literal{id}, nil
}

// bareWord reads a word in an expression: a property in a where clause, elsewhere a truth value or a string.
func (p *parser) bareWord() (node, error) {
	start := p.pos
	for !p.end() && isNameByte(p.peek()) && !p.ahead("->") {
		p.pos++
	}
	switch name := p.src[start:p.pos]; name {
	case "and", "or", "in":
		return nil, p.fail(start, "syntax error")
	case "true", "false", "yes", "no":
		return &literal{typed(name)}, nil
	default:
		if p.inWhere {
			return &property{name}, nil
		}
		return &literal{name}, nil
	}
}

// array parses {1;2} and {"a"=1;b=2}. An empty {} is no array [V].
func (p *parser) array() (node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	p.pos++
	p.blanks()
	a := &array{}
	if p.skip('}') {
		return nil, p.syntax()
	}
	for {
		if err := p.element(a); err != nil {
			return nil, err
		}
		p.blanks()
		if p.skip('}') {
			return a, nil
		}
		if !p.skip(';') {
			return nil, p.syntax()
		}
		p.blanks()
	}
}

func (p *parser) element(a *array) error {
	key, v, err := p.keyedElement()
	if err != nil {
		return err
	}
	if v == nil {
		if v, err = p.value(true); err != nil {
			return err
		}
	}
	if !p.delimited() {
		return p.syntax()
	}
	a.keys = append(a.keys, key)
	a.values = append(a.values, v)
	return nil
}

// keyedElement reads `name=` or `"name"=`, or a quoted string that turns out to be the element itself. Only lower-case
// letters go without quotes as a name [V].
func (p *parser) keyedElement() (*string, node, error) {
	if p.peek() == '"' {
		n, err := p.quoted()
		if err != nil || !p.skip('=') {
			return nil, n, err
		}
		l, ok := n.(*literal)
		if !ok {
			return nil, nil, p.syntax()
		}
		name := Text(l.value)
		return &name, nil, nil
	}
	start := p.pos
	name := p.take(func(c byte) bool { return c >= 'a' && c <= 'z' })
	if name != "" && p.skip('=') {
		return &name, nil, nil
	}
	p.pos = start
	return nil, nil, nil
}

// value parses the value of an argument. Operators need brackets around them here. Words get the type they look like in
// commands of the language, and stay as written in those of a menu.
func (p *parser) value(guess bool) (node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	n, err := p.plainValue(guess)
	if err != nil {
		return nil, err
	}
	if !p.delimited() {
		return nil, p.syntax()
	}
	return n, nil
}

func (p *parser) plainValue(guess bool) (node, error) {
	if c := p.peek(); strings.IndexByte(`"$([{`, c) >= 0 && !p.end() {
		return p.bracketed(c)
	}
	w := p.take(isWordByte)
	if w == "" {
		return nil, p.syntax()
	}
	if guess {
		return &literal{typed(w)}, nil
	}
	return &literal{w}, nil
}
