package console_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

func TestCommands(t *testing.T) {
	const script = `:onerror e in={ :local i [/disk find where slot="a\"b" && type!=file]; ` +
		`:if ([:len $i] = 0) do={ /disk/add type=file slot="a\"b" file-size=1000 comment=("x" . $i) } ` +
		`else={ /disk set $i comment="\$[:error no]" }; :put "ok" } do={ :put ("err " . $e) }`
	s, err := console.Parse(script)
	if err != nil {
		t.Fatal(err)
	}
	arg := func(name string, v console.Value) console.Argument {
		return console.Argument{Name: name, Value: v, Literal: true}
	}
	dynamic := func(name string) console.Argument { return console.Argument{Name: name} }
	want := []console.Command{
		{Verb: ":onerror", Args: []console.Argument{arg("error", []console.Value{"e"}), dynamic("in"), dynamic("do")}},
		{Verb: ":local", Depth: 1, Args: []console.Argument{arg("name", "i"), dynamic("value")}},
		{Path: "/disk", Verb: "find", Depth: 2, Where: []console.Condition{
			{Property: "slot", Op: "=", Value: `a"b`, Literal: true},
			{Property: "type", Op: "!=", Value: "file", Literal: true},
		}},
		{Verb: ":if", Depth: 1, Args: []console.Argument{dynamic("condition"), dynamic("do"), dynamic("else")}},
		{Verb: ":len", Depth: 2, Args: []console.Argument{dynamic("value")}},
		{Path: "/disk", Verb: "add", Depth: 2, Args: []console.Argument{
			arg("type", "file"), arg("slot", `a"b`), arg("file-size", "1000"), dynamic("comment"),
		}},
		{Path: "/disk", Verb: "set", Depth: 2, Args: []console.Argument{dynamic("numbers"), arg("comment", "$[:error no]")}},
		{Verb: ":put", Depth: 1, Args: []console.Argument{arg("message", "ok")}},
		{Verb: ":put", Depth: 1, Args: []console.Argument{dynamic("message")}},
	}
	got := s.Commands()
	for _, c := range got {
		if !strings.HasPrefix(script[c.Column-1:], strings.TrimSuffix(c.Path+"/"+c.Verb, "/"+c.Verb)) {
			t.Errorf("%s %s does not start at column %d", c.Path, c.Verb, c.Column)
		}
	}
	if diff := cmp.Diff(want, plain(got)); diff != "" {
		t.Error(diff)
	}
}

// plain leaves out the columns.
func plain(commands []console.Command) []console.Command {
	for i := range commands {
		commands[i].Column = 0
		for j := range commands[i].Args {
			commands[i].Args[j].Column = 0
		}
	}
	return commands
}

// Without a device, words are menus or commands by what surrounds them.
func TestPathsWithoutDevice(t *testing.T) {
	for script, want := range map[string]string{
		`/disk add slot=x`:                "/disk add",
		`/disk/add slot=x`:                "/disk add",
		`/disk/btrfs/subvolume/add fs=x`:  "/disk/btrfs/subvolume add",
		`/disk btrfs subvolume print`:     "/disk/btrfs/subvolume print",
		`/system resource print`:          "/system/resource print",
		`/system/reboot`:                  "/system reboot",
		`/file add name=x type=directory`: "/file add",
		`/disk monitor-traffic x once`:    "/disk monitor-traffic",
		`/tool fetch url="x"`:             "/tool fetch",
		`/disk print stats`:               "/disk print",
	} {
		s, err := console.Parse(script)
		if err != nil {
			t.Errorf("%s: %v", script, err)
			continue
		}
		c := s.Commands()[0]
		if got := c.Path + " " + c.Verb; got != want || len(s.Commands()) != 1 {
			t.Errorf("%s: got %s, want %s", script, got, want)
		}
	}
}

// quoteByHex is a quoting that cannot go wrong: every byte by its number. The driver's own is judged in its package.
func quoteByHex(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		b.Write([]byte{'\\', digits[c>>4], digits[c&15]})
	}
	b.WriteByte('"')
	return b.String()
}

func FuzzQuotedValueIsReadBack(f *testing.F) {
	for _, s := range []string{"", "x", `"`, `\`, "$x", "$[/disk remove [find]]", "a;b", "}", "\x00\r\n\xff", "ä"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		s, err := console.Parse(`/disk add slot=` + quoteByHex(value) + ` comment=` + quoteByHex(value+"$"))
		if err != nil {
			t.Fatal(err)
		}
		want := []console.Command{{Path: "/disk", Verb: "add", Args: []console.Argument{
			{Name: "slot", Value: value, Literal: true}, {Name: "comment", Value: value + "$", Literal: true},
		}}}
		if diff := cmp.Diff(want, plain(s.Commands())); diff != "" {
			t.Error(diff)
		}
	})
}

func seeds(f *testing.F) {
	f.Helper()
	for _, s := range []string{
		``, `:put`, `:put "a`, `/`, `/disk/`, `/disk print where (`, `{{{{`, `[[[[`, `:put ($a->`, `"\`, `:local x {a=`,
		`:onerror e in={ /disk add slot="x" comment="$[/disk find]"; :put "ok" } do={ :put ("err " . $e) }`,
		`:foreach k,v in={2; "aX"=1} do={:put "$k=$(1+2)"}`,
		`:put [:serialize to=json options=json.no-string-conversion [/disk print detail as-value where slot="x"]]`,
		`:local i [/disk find where slot~"^x" || size>5 !comment]; /disk set $i comment=1,2; /disk get x slot`,
		`:for i from=1 to=3 do={:if ($i = 2) do={:continue} else={:put [:pick "abc" $i]}}`,
		`:do {:error x} on-error={} while=(false)`, `:put {"$[:put {"a"=1}]"=2}`, "# x\n:put 1", `:put (*1F . -5 % 3)`,
		`/disk; set [find slot=x] file-size=1G; print terse`, `:put [:parse ":put 1"]; :delay 1ms; :return {1;2}`,
	} {
		f.Add(s)
	}
}

// Whatever comes in: no panic, no endless work, and an error says where.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, script string) {
		start := time.Now()
		s, err := console.Parse(script)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%d bytes took %v", len(script), took)
		}
		if err == nil {
			for _, c := range s.Commands() {
				if c.Column < 1 || c.Column > len(script) {
					t.Errorf("a command at column %d of %d", c.Column, len(script))
				}
			}
			return
		}
		var syntax *console.SyntaxError
		if !errors.As(err, &syntax) || syntax.Line < 1 || syntax.Column < 1 || syntax.Column > len(script)+1 {
			t.Errorf("%q: %v", script, err)
		}
	})
}

// Running anything ends, without a panic, with what it printed in whole lines.
func FuzzRun(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, script string) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		var out bytes.Buffer
		failed, err := console.Run(ctx, newBox(), "admin", script, &out)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q: %v", script, err)
		}
		if text := out.String(); err == nil && (failed && text == "" || text != "" && !strings.HasSuffix(text, "\r\n")) {
			t.Errorf("%q: failed %v, output %q", script, failed, text)
		}
	})
}
