package routeros

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestReadAnswer(t *testing.T) {
	f := frameOf(Script{name: "x", body: ":put 1"})
	const own = "the volume belongs to another cluster"
	tests := map[string]struct {
		stdout, stderr string
		broken         bool
		lines          []string
		text           string
		class          error
	}{
		"done":                           {stdout: f.ok + "\r\n"},
		"done, with lines":               {stdout: "a\r\n\r\n b \r\n" + f.ok + "\r\n", lines: []string{"a", "", " b "}},
		"done, bare line feeds":          {stdout: "a\n" + f.ok, lines: []string{"a"}},
		"done, then lost":                {stdout: f.ok, broken: true},
		"done, after an unfinished line": {stdout: "a" + f.ok, lines: []string{"a"}},
		"an error text in the lines":     {stdout: "failure: x\r\n" + f.ok + "\r\n", lines: []string{"failure: x"}},
		"no such item":                   {stdout: f.fail + " no such item (4) (/disk/set; line 1)\r\n", text: "no such item (4) (/disk/set; line 1)", class: ErrNotFound},
		"duplicate":                      {stdout: f.fail + " failure: already have such slot\r\n", text: "failure: already have such slot", class: ErrExists},
		"full":                           {stdout: f.fail + " failure: No Space Left on device\r\n", text: "failure: No Space Left on device", class: ErrNoSpace},
		"permission":                     {stdout: f.fail + " not enough permissions (9) (/disk/add; line 1)\r\n", text: "not enough permissions (9) (/disk/add; line 1)", class: ErrPermission},
		"device-mode":                    {stdout: f.fail + " failure: not allowed by device-mode (/disk/add; line 1)\r\n", text: "failure: not allowed by device-mode (/disk/add; line 1)", class: ErrPermission},
		"a value refused at run time":    {stdout: f.fail + " invalid value for argument file-size\r\n", text: "invalid value for argument file-size", class: ErrSyntax},
		"the script's own error":         {stdout: f.fail + " " + own + "\r\n", text: own},
		"an error on several lines":      {stdout: "a\r\n" + f.fail + " one\r\ntwo\r\n", text: "one\r\ntwo"},
		"an error without a text":        {stdout: f.fail + " \r\n", text: "an error without a text"},
		"parse error":                    {stdout: "syntax error (line 1 column 2)\r\n", text: "syntax error (line 1 column 2)", class: ErrSyntax},
		"parse error, bad command":       {stdout: "bad command name btrfs (line 1 column 7)\r\n", text: "bad command name btrfs (line 1 column 7)", class: ErrSyntax},
		"parse error, end of command":    {stdout: "expected end of command (line 1 column 29)", text: "expected end of command (line 1 column 29)", class: ErrSyntax},
		"parse error on stderr":          {stderr: "syntax error (line 1 column 2)", text: "syntax error (line 1 column 2)", class: ErrSyntax},
		"refused without a marker":       {stdout: "not enough permissions (9)\r\n", text: "not enough permissions (9)", class: ErrPermission},
		"parse error, cut":               {stdout: "syntax error (line 1 column 2)\r\n", broken: true, text: "syntax error (line 1 column 2)", class: ErrOutcomeUnknown},
		"parse error after other output": {stdout: "*2B\r\nsyntax error\r\n", text: "*2B\r\nsyntax error", class: ErrOutcomeUnknown},
		"silence":                        {class: ErrOutcomeUnknown},
		"lost":                           {broken: true, class: ErrOutcomeUnknown},
		"garbage":                        {stdout: "\x00\xff!", text: "\x00\xff!", class: ErrOutcomeUnknown},
		"a failure without its marker":   {stdout: "failure: x\r\n", text: "failure: x", class: ErrOutcomeUnknown},
		"the command repeated, no more":  {stdout: f.command, text: f.command, class: ErrOutcomeUnknown},
		"somebody else's marker":         {stdout: okMark + "OTHER\r\n", text: okMark + "OTHER", class: ErrOutcomeUnknown},
		"half a marker":                  {stdout: f.ok[:len(f.ok)-1], text: f.ok[:len(f.ok)-1], class: ErrOutcomeUnknown},
		"a prompt":                       {stdout: "Remove? [y/N]: ", text: "Remove? [y/N]:", class: ErrOutcomeUnknown},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			reply, text, err := f.read(answer{stdout: []byte(tt.stdout), stderr: []byte(tt.stderr), broken: tt.broken})
			if !slices.Equal(reply.Lines, tt.lines) || text != tt.text || !errors.Is(err, tt.class) {
				t.Errorf("read = %q, %q, %v", reply.Lines, text, err)
			}
		})
	}
}

func TestFramesDiffer(t *testing.T) {
	s := Script{name: "x", body: ":put 1"}
	a, b := frameOf(s), frameOf(s)
	if a.ok == b.ok || strings.Contains(a.command, a.ok) || strings.Contains(a.command, a.fail) || strings.ContainsAny(a.command, "\r\n") {
		t.Errorf("frames %q and %q", a, b)
	}
}

func TestCommandError(t *testing.T) {
	tests := map[string]struct {
		err  *CommandError
		want string
	}{
		"class and text": {&CommandError{"rds1", "disk_add", "failure: x", ErrExists}, `rds rds1: command disk_add: already exists: RouterOS says "failure: x"`},
		"text only":      {&CommandError{"rds1", "disk_add", "x", nil}, `rds rds1: command disk_add: RouterOS says "x"`},
		"class only":     {&CommandError{"rds1", "disk_add", "", ErrUnreachable}, `rds rds1: command disk_add: unreachable`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.err.Error() != tt.want || !errors.Is(tt.err, tt.err.Err) && tt.err.Err != nil {
				t.Errorf("%v, want %s", tt.err, tt.want)
			}
		})
	}
}

func TestStatusOf(t *testing.T) {
	tests := map[string]error{
		"ok": nil, "not_found": ErrNotFound, "exists": ErrExists, "no_space": ErrNoSpace, "permission": ErrPermission, "syntax": ErrSyntax,
		"unknown": ErrOutcomeUnknown, "unreachable": ErrUnreachable, "error": ErrInvalid,
	}
	for want, err := range tests {
		if err != nil {
			err = &CommandError{Err: err}
		}
		if got := statusOf(err); got != want {
			t.Errorf("statusOf(%v) = %s, want %s", err, got, want)
		}
	}
	if got := statusOf(&CommandError{Text: "x"}); got != "error" {
		t.Errorf("an error without a class is %s", got)
	}
}
