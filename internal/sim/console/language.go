package console

import (
	"context"
	"slices"
)

type builtinFunc func(ctx context.Context, f *frame, c *command) (Value, error)

// builtin is a command of the language.
type builtin struct {
	run    builtinFunc
	params []param
}

type param struct {
	name     string
	kind     paramKind
	unnamed  bool // may be given by place alone
	optional bool
}

type paramKind int

const (
	valueParam    paramKind = iota
	blockParam              // {...}
	declaredParam           // a variable that exists from here on, in this block
	assignedParam           // a variable that must have been declared
	boundParam              // variables that exist in the blocks of this command
)

func opt(p param) param      { p.optional = true; return p }
func arg(name string) param  { return param{name: name, unnamed: true} }
func key(name string) param  { return param{name: name} }
func body(name string) param { return param{name: name, kind: blockParam} }

func variableParam(name string, kind paramKind) param {
	return param{name: name, kind: kind, unnamed: true}
}

// builtins are the commands of the language. Global variables are left out on purpose: on a device they outlive the
// connection, so that a script which needs one leaves rubbish behind.
func builtins() map[string]builtin {
	one := func(run builtinFunc) builtin { return builtin{run, []param{arg("value")}} }
	onlyName := func(kind paramKind) param { return variableParam("name", kind) }
	inBlock := param{name: "in", kind: blockParam, unnamed: true}
	return map[string]builtin{
		"put":   {runPut, []param{arg("message")}},
		"local": {runLocal, []param{onlyName(declaredParam), opt(arg("value"))}},
		"set":   {runSet, []param{onlyName(assignedParam), opt(arg("value"))}},
		"error": {runError, []param{arg("message")}},
		"log":   {runLog, []param{arg("topics"), arg("message")}},
		"delay": {runDelay, []param{arg("delay-time")}},

		"execute": {runExecute, []param{arg("script")}},

		"if": {runIf, []param{arg("condition"), body("do"), opt(body("else"))}},
		"foreach": {runForeach, []param{
			variableParam("counter", boundParam), key("in"), body("do"),
		}},
		"for": {runFor, []param{
			variableParam("counter", boundParam), key("from"), key("to"), opt(key("step")), body("do"),
		}},
		"while": {runWhile, []param{arg("condition"), body("do")}},
		"do": {runDo, []param{
			{name: "command", kind: blockParam, unnamed: true}, opt(body("on-error")), opt(key("while")),
		}},
		"onerror":  {runOnError, []param{variableParam("error", boundParam), inBlock, body("do")}},
		"return":   {runReturn, []param{opt(arg("value"))}},
		"exit":     {runJump, nil},
		"break":    {runJump, nil},
		"continue": {runJump, nil},

		"len": one(runLen), "tostr": one(runToStr), "tonum": one(runToNum), "tobool": one(runToBool),
		"toid": one(runToID), "toarray": one(runToArray), "typeof": one(runTypeOf), "parse": one(runParse),
		"nothing":   {runNothing, nil},
		"pick":      {runPick, []param{arg("value"), arg("begin"), opt(arg("end"))}},
		"find":      {runFind, []param{arg("in"), arg("value"), opt(arg("from"))}},
		"serialize": {runSerialize, []param{arg("value"), key("to"), opt(key("options"))}},
	}
}

// languageCommand parses a command that begins with a colon. Without the colon it would be taken for something else [V].
func (p *parser) languageCommand() (*command, error) {
	c := &command{offset: p.pos}
	p.pos++
	at := p.pos
	name := p.take(isLetter)
	if name == "" {
		return nil, p.syntax()
	}
	b, ok := p.lang[name]
	if !ok {
		return nil, p.fail(at, "bad command name "+name)
	}
	if !p.delimited() && p.peek() != '{' && p.peek() != '(' && p.peek() != '[' && p.peek() != '"' {
		return nil, p.syntax()
	}
	c.verb, c.run = ":"+name, b.run
	if err := p.languageArguments(c, b); err != nil {
		return nil, err
	}
	p.declare(c, b)
	return c, nil
}

func (p *parser) languageArguments(c *command, b builtin) error {
	var bound []string
	for {
		p.blanks()
		if p.commandEnd() {
			break
		}
		a := argument{offset: p.pos}
		prm, err := p.nextParam(c, b)
		if err != nil {
			return err
		}
		a.name = prm.name
		if a.value, err = p.argumentOf(prm, &bound); err != nil {
			return err
		}
		c.args = append(c.args, a)
	}
	for _, prm := range b.params {
		if !prm.optional && !c.has(prm.name) {
			return p.syntax()
		}
	}
	return nil
}

// nextParam finds out which parameter stands here. Blanks may follow its equals sign, but not precede it [V].
func (p *parser) nextParam(c *command, b builtin) (param, error) {
	at := p.pos
	name, named := p.argName()
	i := slices.IndexFunc(b.params, func(prm param) bool {
		if named {
			return prm.name == name
		}
		return prm.unnamed && !c.has(prm.name)
	})
	if i < 0 || c.has(b.params[i].name) {
		return param{}, p.fail(at, "expected end of command")
	}
	if named {
		p.blanks()
	}
	return b.params[i], nil
}

func (p *parser) argumentOf(prm param, bound *[]string) (node, error) {
	switch prm.kind {
	case valueParam:
		return p.value(true)
	case blockParam:
		return p.block(*bound)
	case boundParam:
		return p.boundNames(bound)
	default: // declaredParam, assignedParam
		n, err := p.variableName(prm.kind)
		if err == nil && !p.delimited() {
			err = p.syntax()
		}
		return n, err
	}
}

func (p *parser) boundNames(bound *[]string) (node, error) {
	for {
		n, err := p.variableName(boundParam)
		if err != nil {
			return nil, err
		}
		*bound = append(*bound, Text(n.value))
		if !p.skip(',') {
			break
		}
	}
	if !p.delimited() {
		return nil, p.syntax()
	}
	return &literal{namesOf(*bound)}, nil
}

func namesOf(list []string) Value {
	out := make([]Value, 0, len(list))
	for _, s := range list {
		out = append(out, s)
	}
	return out
}

// variableName reads the name of a variable; other characters than letters and digits need quotes [V].
func (p *parser) variableName(kind paramKind) (*literal, error) {
	at := p.pos
	var name string
	if p.peek() == '"' {
		n, err := p.quoted()
		if err != nil {
			return nil, err
		}
		v, _ := literalOf(n)
		name = Text(v)
	} else {
		name = p.take(isAlnum)
	}
	reserved := name == "" || name == "and" || name == "or" || name == "in"
	if reserved || kind == assignedParam && !p.names.has(name) {
		return nil, p.fail(at, "syntax error")
	}
	return &literal{name}, nil
}

// declare makes a local variable known to what follows, not to its own value.
func (p *parser) declare(c *command, b builtin) {
	if len(b.params) == 0 || b.params[0].kind != declaredParam {
		return
	}
	name, _ := literalOf(c.arg("name"))
	p.names.set[Text(name)] = true
}
