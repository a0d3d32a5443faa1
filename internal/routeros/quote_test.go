package routeros_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// sendable is the promise of Quote, written down a second time.
func sendable(s string) bool {
	return len(s) <= 2048 && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// hostile is what has broken builders of commands before, or would.
func hostile() []string {
	return []string{
		"", "pvc-0123", `a"b`, `a\`, `\"`, `\\"; /user add name=x; :put "`, "$x", "${x}", "$[/user print]", `\$[/quit]`, "a;b", "a{b}", "[find]",
		"(1+1)", "a b", " ", "'", "`", "#", "?", "a\nb", "a\r", "\x00", "\x7f", "\t", "\u0085", "\u2028", "\u202e", "ä€𝕊", "\xff", "\xc3\x28",
		`\0A`, `\41`, `/storage-pool/k8s; /user add name=evil group=full`, "=", "*1F", "1234", "yes", "true", "&&", "~", "!", "<%%>",
		strings.Repeat("x", 2048), strings.Repeat("x", 2049), strings.Repeat(`"`, 1024), `","x`, "%s", "rds-csi-ok ", "]]}", "->0",
	}
}

// FuzzQuote (B26) has the parser of the simulated console as its judge: whatever goes in is refused, or is read back as one
// argument of one command with exactly that value.
func FuzzQuote(f *testing.F) {
	for _, s := range hostile() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quoted, err := routeros.Quote(s)
		if (err == nil) != sendable(s) || err != nil && !errors.Is(err, routeros.ErrInvalid) {
			t.Fatalf("Quote(%q) = %v", s, err)
		}
		if err != nil {
			return
		}
		command := parsed(t, "/disk add comment="+quoted, 1)[0]
		if command.Path != "/disk" || command.Verb != "add" {
			t.Fatalf("%q became the command %+v", s, command)
		}
		wantArguments(t, command, map[string]string{"comment": s})
	})
}

// FuzzScript (B26) is the same for a whole script, as it goes over the wire.
func FuzzScript(f *testing.F) {
	for i, s := range hostile() {
		f.Add(s, "/pool/x.img", "rds-csi/1", int64(i)<<30, i%2 == 0, "file-path")
		f.Add("pvc-1", s, "", -int64(i), i%2 == 1, "slot")
		f.Add("pvc-1", "/pool/x.img", s, int64(i), false, s)
	}
	f.Fuzz(func(t *testing.T, slot, path, comment string, size int64, export bool, property string) {
		script, err := routeros.NewScript("disk_add").
			Add(`:local d [/disk find where slot=?]`, routeros.Text(slot)).
			Add(`/disk add slot=?
				file-path=? comment=? file-size=? nvme-tcp-export=?`,
				routeros.Text(slot), routeros.Text(path), routeros.Text(comment), routeros.Number(size), routeros.YesNo(export)).
			Add(`:put [/disk get $d ?]`, routeros.Word(property)).
			Build()
		if valid := sendable(slot) && sendable(path) && sendable(comment) && wordLike(property); (err == nil) != valid {
			t.Fatalf("valid=%v, Build says %v", valid, err)
		}
		if err != nil {
			return
		}
		wire, _ := routeros.FrameForTest(script)
		commands := parsed(t, wire, 8) // :onerror with :local, find, add, :put, get and the two :put of the frame
		find, add := commands[2], commands[3]
		if find.Verb != "find" || len(find.Where) != 1 || find.Where[0].Property != "slot" || find.Where[0].Value != slot {
			t.Fatalf("the look-up became %+v", find)
		}
		if add.Path != "/disk" || add.Verb != "add" {
			t.Fatalf("the add became %+v", add)
		}
		yes := map[bool]string{true: "yes", false: "no"}[export]
		wantArguments(t, add, map[string]string{
			"slot": slot, "file-path": path, "comment": comment, "file-size": strconv.FormatInt(size, 10), "nvme-tcp-export": yes,
		})
	})
}

func parsed(t *testing.T, script string, want int) []console.Command {
	t.Helper()
	s, err := console.Parse(script)
	if err != nil {
		t.Fatalf("the console does not understand %q: %v", script, err)
	}
	commands := s.Commands()
	if len(commands) != want {
		t.Fatalf("%q is %d commands, want %d: %+v", script, len(commands), want, commands)
	}
	return commands
}

func wantArguments(t *testing.T, c console.Command, want map[string]string) {
	t.Helper()
	if len(c.Args) != len(want) {
		t.Fatalf("%d arguments, want %d: %+v", len(c.Args), len(want), c.Args)
	}
	for _, a := range c.Args {
		if value, ok := want[a.Name]; !ok || !a.Literal || a.Value != value {
			t.Fatalf("argument %q = %#v, want %#v", a.Name, a.Value, value)
		}
	}
}

func wordLike(s string) bool {
	if s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-/") != "" {
		return false
	}
	return s[0] >= 'a' && s[0] <= 'z' || s[0] == '/'
}
