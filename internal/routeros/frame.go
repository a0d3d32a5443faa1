package routeros

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// frame is a script with proof around it. An exec channel of RouterOS exits 0 even when the command failed, and says
// what went wrong on stdout [R]. So the script prints a line of its own when it is done and another one when it failed, each
// with a number that nobody can know beforehand.
type frame struct {
	command  string
	ok, fail string
}

// The markers are concatenated on the RDS, so that a reply that merely repeats the command contains neither.
const (
	okMark   = "rds-csi-ok "
	failMark = "rds-csi-error "
)

// frameOf wraps a script in :onerror, which catches run-time errors [V] (7.13 and newer); the error's text is in $e. A script that RouterOS cannot parse
// does not run at all, :onerror included, and leaves only text [S].
func frameOf(s Script) frame {
	nonce := rand.Text()
	return frame{
		command: `:onerror e in={ ` + s.body + `; :put ("` + okMark + `" . "` + nonce + `") } do={ :put ("` + failMark + `" . "` + nonce + `" . " " . $e) }`,
		ok:      okMark + nonce,
		fail:    failMark + nonce,
	}
}

// plainFrameOf is for asking any RouterOS its version, before :onerror may be used.
func plainFrameOf(s Script) frame {
	nonce := rand.Text()
	return frame{command: s.body + `; :put ("` + okMark + `" . "` + nonce + `")`, ok: okMark + nonce, fail: failMark + nonce}
}

// fits refuses what the RDS may cut. A script cut in the middle is a syntax error at best.
func (f frame) fits(s Script, limit int) error {
	switch {
	case s.body == "":
		return fmt.Errorf("%w: the script is empty", ErrInvalid)
	case len(f.command) > limit:
		return fmt.Errorf("%w: the script is %d bytes long, at most %d are sent", ErrInvalid, len(f.command), limit)
	}
	return nil
}

// read finds out what the answer proves. It returns the lines before the ok marker; or the text of a RouterOS error, with the class
// of it if it has one.
func (f frame) read(a answer) (Reply, string, error) {
	if before, _, ok := bytes.Cut(a.stdout, []byte(f.ok)); ok {
		return Reply{Lines: lines(string(before))}, "", nil
	}
	if _, after, ok := bytes.Cut(a.stdout, []byte(f.fail)); ok {
		text := strings.TrimSpace(string(after))
		if text == "" {
			text = "an error without a text"
		}
		return Reply{}, text, classify(text)
	}
	text := strings.TrimSpace(string(a.stdout) + "\n" + string(a.stderr))
	return Reply{}, text, unmarked(text, a.broken)
}

// unmarked judges an answer without a marker. RouterOS parses the whole script before it runs any of it, so a syntax
// error is proof that nothing ran, and so is a refusal; but only when it is the first thing that was said, and was said to
// its end. Anything else may be the remains of a command that took effect.
func unmarked(text string, broken bool) error {
	first, _, _ := strings.Cut(text, "\n")
	class := classify(first)
	switch {
	case broken:
		return fmt.Errorf("%w: the connection was lost with the command under way", ErrOutcomeUnknown)
	case text == "":
		return fmt.Errorf("%w: the channel was closed without a word", ErrOutcomeUnknown)
	case errors.Is(class, ErrSyntax), errors.Is(class, ErrPermission):
		return class
	default:
		return fmt.Errorf("%w: the answer proves neither success nor failure", ErrOutcomeUnknown)
	}
}

// lines splits what was printed; RouterOS ends its lines with CRLF [R].
func lines(text string) []string {
	var split []string
	for line := range strings.Lines(text) {
		split = append(split, strings.TrimRight(line, "\r\n"))
	}
	return split
}

// classify finds the class of a RouterOS error text, nil if it has none. Texts and their tags are in the table; they are looked
// for anywhere, whatever their case, because menus put different words around them.
func classify(text string) error {
	text = strings.ToLower(text)
	for _, class := range classes() {
		for _, form := range class.forms {
			if strings.Contains(text, form) {
				return class.err
			}
		}
	}
	return nil
}

type class struct {
	err   error
	forms []string
}

// classes is every known text, the more telling classes first.
func classes() []class {
	return []class{
		{ErrPermission, []string{
			"not enough permissions",       // [R]
			"not allowed by device-mode",   // [R]
			"std failure: not allowed (9)", // [R] by REST
		}},
		{ErrNoSpace, []string{
			"no space left",    // [V] fetch; the kernel's own words
			"not enough space", // [I]
			"not enough free",  // [I]
			"disk full",        // [I]
			"disk is full",     // [I]
		}},
		{ErrExists, []string{
			"already have",   // [R] other menus
			"already exist",  // [I]
			"already in use", // [I]
			"file exists",    // [V] in status fields
		}},
		{ErrNotFound, []string{
			"no such item", // [R]
		}},
		{ErrSyntax, []string{
			"syntax error",                      // [R]
			"expected end of command",           // [R]
			"expected closing",                  // [I]
			"bad command",                       // [R] "bad command name"; [S] "bad command parameters" since 7.24
			"bad parameter",                     // [R]
			"unknown parameter",                 // [V]
			"no such command",                   // [V]
			"input does not match any value of", // [R]
			"invalid value for argument",        // [R]
			"invalid value of",                  // [R]
			"ambiguous value",                   // [R]
			"missing value",                     // [I]
			"invalid internal item number",      // [I]
			"unknown variable",                  // [I]
			"missing closing",                   // [I]
			"variable name must contain only",   // [I]
		}},
	}
}

// statusOf is the metric label of an outcome.
func statusOf(err error) string {
	for _, s := range []struct {
		err    error
		status string
	}{
		{ErrUnsupportedVersion, "unreachable"}, {ErrUnreachable, "unreachable"}, {ErrOutcomeUnknown, "unknown"}, {ErrPermission, "permission"},
		{ErrNotFound, "not_found"}, {ErrExists, "exists"}, {ErrNoSpace, "no_space"}, {ErrSyntax, "syntax"},
	} {
		if errors.Is(err, s.err) {
			return s.status
		}
	}
	if err != nil {
		return "error"
	}
	return "ok"
}

// version asks for /system/resource's version. The words of the path are the same in every RouterOS, slashes between them
// are not. Its errors carry none of the sentinels: whoever asked for something else must not take them for his own.
func (c *conn) version(ctx context.Context) (string, error) {
	f := plainFrameOf(Script{name: "version", body: ":put [/system resource get version]"})
	answer, err := c.exec(ctx, f.command)
	if err != nil {
		return "", fmt.Errorf("asking for the RouterOS version: %v", err) //nolint:errorlint // see above
	}
	reply, text, err := f.read(answer)
	if err != nil || len(reply.Lines) == 0 {
		return "", fmt.Errorf("asking for the RouterOS version: %v (RouterOS says %q): the user's group needs the policies ssh, read and write", err, shorten(text)) //nolint:errorlint // see above
	}
	return strings.TrimSpace(reply.Lines[0]), nil
}
