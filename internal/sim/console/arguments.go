package console

import "slices"

// menuCommand parses a path, a command and its arguments.
func (p *parser) menuCommand() (*command, error) {
	c := &command{offset: p.pos}
	spec, err := p.path(c)
	if err != nil {
		return nil, err
	}
	if c.verb == "" { // only a path: the commands that follow start there
		p.base = c.path
		c.run = runNothing
		return c, nil
	}
	c.menu, c.run = spec.menu, runMenuCommand
	base := p.base
	p.base = c.path
	defer func() { p.base = base }()
	return c, p.menuArguments(c, spec)
}

// path reads menus until a command's name, whether slashes or blanks stand between. Abbreviations, which the device
// would take, are refused: what is short today may be ambiguous tomorrow.
func (p *parser) path(c *command) (verbSpec, error) {
	c.path = p.base
	if p.skip('/') {
		c.path = ""
	}
	for {
		start := p.pos
		word := p.take(isNameByte)
		if word == "" {
			return verbSpec{}, p.syntax()
		}
		if !p.menus.menu(c.path, word, p.src[p.pos:]) {
			return p.verb(c, start, word)
		}
		c.path += "/" + word
		if p.skip('/') {
			continue
		}
		if !p.delimited() {
			return verbSpec{}, p.syntax()
		}
		p.blanks()
		if p.commandEnd() {
			return verbSpec{}, nil
		}
	}
}

func (p *parser) verb(c *command, start int, name string) (verbSpec, error) {
	spec, ok := p.menus.verb(c.path, name)
	if !ok {
		return spec, p.fail(start, "bad command name "+name)
	}
	if !p.delimited() {
		return spec, p.syntax()
	}
	c.verb = name
	return spec, nil
}

func (p *parser) menuArguments(c *command, spec verbSpec) error {
	for {
		p.blanks()
		if p.commandEnd() {
			return nil
		}
		var err error
		switch {
		case spec.filter != noFilter && p.keyword("where"):
			c.where, err = p.whereClause()
		case spec.filter == findFilter:
			c.where, err = p.equalities()
		default:
			err = p.menuArgument(c, &spec)
		}
		if err != nil {
			return err
		}
	}
}

func (p *parser) menuArgument(c *command, spec *verbSpec) error {
	a := argument{offset: p.pos}
	var named bool
	var err error
	if a.name, named = p.argName(); !named {
		return p.unnamedArgument(c, spec)
	}
	if c.has(a.name) {
		return p.fail(a.offset, "syntax error")
	}
	if !spec.open && !slices.Contains(spec.named, a.name) {
		if err := p.unknownArgument(c, a.offset, a.name); err != nil {
			return err
		}
	}
	a.value, err = p.value(false)
	c.args = append(c.args, a)
	return err
}

func (p *parser) unnamedArgument(c *command, spec *verbSpec) error {
	a := argument{offset: p.pos}
	flag := p.take(isNameByte)
	if flag != "" && p.delimited() && slices.Contains(spec.flags, flag) {
		a.name, a.flag, a.value = flag, true, &literal{true}
		c.args = append(c.args, a)
		return nil
	}
	p.pos = a.offset
	i := slices.IndexFunc(spec.unnamed, func(name string) bool { return !c.has(name) })
	switch {
	case i >= 0:
		a.name = spec.unnamed[i]
	case spec.open:
	case flag == "":
		return p.fail(a.offset, "expected end of command")
	default:
		if err := p.unknownArgument(c, a.offset, flag); err != nil {
			return err
		}
	}
	var err error
	a.value, err = p.value(false)
	c.args = append(c.args, a)
	return err
}

// unknownArgument refuses an argument that the command does not have: now, or from 7.23 on when the command runs [S].
func (p *parser) unknownArgument(c *command, at int, name string) error {
	if !p.dialect.RuntimeParameterErrors {
		return p.fail(at, "expected end of command")
	}
	if c.bad == nil {
		line, column := place(p.src, at)
		c.bad = &SyntaxError{Text: "bad parameter " + name, Line: line, Column: column}
	}
	return nil
}

// whereClause parses conditions up to the end of the command; side by side they all have to hold.
func (p *parser) whereClause() (node, error) {
	p.inWhere = true
	defer func() { p.inWhere = false }()
	var all node
	for range maxChain {
		p.blanks()
		if p.commandEnd() {
			break
		}
		if all != nil && p.src[p.pos-1] != ' ' && p.src[p.pos-1] != '\t' {
			return nil, p.syntax()
		}
		x, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		all = both(all, x)
	}
	if all == nil || !p.commandEnd() {
		return nil, p.syntax()
	}
	return all, nil
}

// equalities parses `find slot="x"`. Without the word where, nothing but equality is sure to work [V].
func (p *parser) equalities() (node, error) {
	p.inWhere = true
	defer func() { p.inWhere = false }()
	var all node
	for range maxChain {
		p.blanks()
		if p.commandEnd() {
			return all, nil
		}
		name, ok := p.argName()
		if !ok {
			return nil, p.syntax()
		}
		y, err := p.primary()
		if err != nil {
			return nil, err
		}
		if !p.delimited() {
			return nil, p.syntax()
		}
		all = both(all, p.joinOperands("=", &property{name}, y))
	}
	return nil, p.syntax()
}

func both(x, y node) node {
	if x == nil {
		return y
	}
	return &binary{op: "&&", x: x, y: y}
}
