package console_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

func checkAs(t *testing.T, b *box, script, want string) {
	t.Helper()
	var buf bytes.Buffer
	failed, err := console.Run(t.Context(), b, "csi", script, &buf)
	got := strings.ReplaceAll(buf.String(), "\r\n", "\n")
	if err != nil || got != want || failed != strings.Contains(want, "not enough") {
		t.Errorf("%s: got %q, %v, %v; want %q", script, got, failed, err, want)
	}
}

func TestPolicies(t *testing.T) {
	b := newBox()
	const refused = "not enough permissions (9)\n"
	checkAs(t, b, `:put language; /disk print`, "language\n"+refused)
	b.policies = []string{"read"}
	checkAs(t, b, `:put [/disk get x slot]; :put [/disk find slot=x]; /disk print count-only`, "x\n*1E\n2\n")
	checkAs(t, b, `/disk add slot=new; :put no`, refused)
	checkAs(t, b, `/disk set x comment=a`, refused)
	checkAs(t, b, `/disk remove x`, refused)
	checkAs(t, b, `/disk monitor-traffic x once`, refused)
	checkAs(t, b, `/system reboot`, refused)
	b.policies = []string{"read", "write", "test"}
	checkAs(t, b, `/disk set x comment=a; /disk monitor-traffic x once`, "slot: x\n")
	checkAs(t, b, `/system reboot`, refused)
	b.policies = []string{"reboot"}
	checkAs(t, b, `/system reboot`, "")
	if n := len(b.menus["/disk"].items); n != 2 {
		t.Errorf("%d disks after refusals, want 2", n)
	}
	b.policies = nil
	var buf bytes.Buffer
	failed, err := console.Run(t.Context(), b, "csi", `:onerror e in={/disk print} do={:put "caught $e"}`, &buf)
	if buf.String() != "caught not enough permissions (9)\r\n" || failed || err != nil {
		t.Errorf("a refusal must be catchable: %q %v %v", buf.String(), failed, err)
	}
}

// The wrapper that drivers are advised to use, in its three outcomes.
func TestMarkers(t *testing.T) {
	wrap := func(body string) string {
		return `:onerror e in={ ` + body + `; :put "OK-1" } do={ :put ("ERR-1 " . $e) }`
	}
	for body, want := range map[string]string{
		`/disk add slot=new`:         "OK-1\n",
		`:put a`:                     "a\nOK-1\n",
		`/disk add slot=x`:           "ERR-1 failure: already have such slot\n",
		`:put a; /disk set no slot=`: "syntax error (line 1 column 43)\n",
		`/disk remove nosuch`:        "ERR-1 no such item\n",
		`/ttt`:                       "bad command name ttt (line 1 column 18)\n",
	} {
		if got, _ := run(t, newBox(), wrap(body)); got != want {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
}

func TestMultiLineDialect(t *testing.T) {
	b := newBox()
	b.dialect.MultiLine = true
	got, failed := run(t, b, ":put 1\r\n# comment ; :put no\n\n:if (true) do={\n  :put 2\n}\n")
	if got != "1\n2\n" || failed {
		t.Errorf("got %q", got)
	}
	if got, _ := run(t, b, ":put 1\n  /ttt"); got != "bad command name ttt (line 2 column 4)\n" {
		t.Errorf("got %q", got)
	}
	b.dialect.ErrorLocation = true
	if got, _ := run(t, b, "\n\n/disk remove nosuch"); got != "no such item (/disk/remove; line 3)\n" {
		t.Errorf("got %q", got)
	}
}

// A marker before a delay arrives before the delay is over.
func TestOutputIsDeliveredAsProduced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		done := make(chan error, 1)
		go func() {
			_, err := console.Run(t.Context(), newBox(), "admin", `:put first; :delay 1h; :put second`, w)
			done <- errors.Join(err, w.Close())
		}()
		start := time.Now()
		buf := make([]byte, 64)
		n, err := r.Read(buf)
		if err != nil || string(buf[:n]) != "first\r\n" || time.Since(start) != 0 {
			t.Errorf("read %q, %v after %v", buf[:n], err, time.Since(start))
		}
		rest, err := io.ReadAll(r)
		if err != nil || string(rest) != "second\r\n" || time.Since(start) != time.Hour {
			t.Errorf("read %q, %v after %v", rest, err, time.Since(start))
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestContextEndsEverything(t *testing.T) {
	for _, script := range []string{
		`:delay 1h`,
		`:while (true) do={:delay 1m}`,
		`:do {:delay 1h} on-error={:put no}`,
		`:onerror e in={:delay 1h} do={:put no}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var buf bytes.Buffer
			_, err := console.Run(ctx, newBox(), "admin", script, &buf)
			if !errors.Is(err, context.DeadlineExceeded) || buf.Len() != 0 {
				t.Errorf("%s: %v, output %q", script, err, buf.String())
			}
		})
	}
}

type brokenPipe struct{ writes int }

func (b *brokenPipe) Write([]byte) (int, error) {
	b.writes++
	return 0, io.ErrClosedPipe
}

func TestReaderGone(t *testing.T) {
	for _, script := range []string{
		`:put 1; /disk remove [find]`,
		`/disk print; /disk remove [find]`,
		`:onerror e in={/disk print} do={}; /disk remove [find]`,
	} {
		b, pipe := newBox(), &brokenPipe{}
		_, err := console.Run(t.Context(), b, "admin", script, pipe)
		if !errors.Is(err, io.ErrClosedPipe) || pipe.writes != 1 || len(b.menus["/disk"].items) != 2 {
			t.Errorf("%s: %v, %d writes, %d disks", script, err, pipe.writes, len(b.menus["/disk"].items))
		}
	}
}

func TestEndlessScriptsEnd(t *testing.T) {
	for _, script := range []string{
		`:while (true) do={}`,
		`:do {} while=(true)`,
		`:while (true) do={:onerror e in={:error x} do={}}`,
		`:onerror e in={:while (true) do={}} do={:put no}`,
		`:local s "0123456789abcdef"; :while (true) do={:set s ($s . $s)}`,
		`:local a {1;2}; :while (true) do={:set a ($a , $a)}`,
		`:local a {1;2}; :for i from=1 to=60 do={:set a {$a;$a}}; :put [:len [:tostr $a]]; :error done`,
		`:local a {1;2}; :for i from=1 to=60 do={:set a {$a;$a}}; :put [:len [:serialize to=json $a]]; :error done`,
	} {
		var buf bytes.Buffer
		failed, err := console.Run(t.Context(), newBox(), "admin", script, &buf)
		if !failed || err != nil || strings.Contains(buf.String(), "no") {
			t.Errorf("%s: %v, %v, output %.80q", script, failed, err, buf.String())
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	for _, pair := range []string{"()", "[]", "{}", "!", "-"} {
		open := strings.Repeat(pair[:1], 100_000)
		if _, err := console.Parse(":put (" + open); err == nil {
			t.Errorf("%q nested without limit", pair)
		}
	}
	if _, err := console.Parse(":put (" + strings.Repeat("1+", 100_000) + "1)"); err == nil {
		t.Error("a chain without limit")
	}
	if _, err := console.Parse(":put {" + strings.Repeat(`"$[:put {"`, 30)); err == nil {
		t.Error("parsed what never ends")
	}
}

func TestValuesAsRead(t *testing.T) {
	for in, want := range map[string]int64{"5": 5, "-5": -5, "0x1F": 31, "007": 7} {
		if n, ok := console.Number(in); !ok || n != want {
			t.Errorf("Number(%q) = %d, %v", in, n, ok)
		}
	}
	for _, in := range []string{"", "1G", "1.5", "+1", "1_000", "--1", "yes", "9223372036854775808"} {
		if n, ok := console.Number(in); ok {
			t.Errorf("Number(%q) = %d", in, n)
		}
	}
	for in, want := range map[string]bool{"yes": true, "true": true, "no": false, "false": false} {
		if b, ok := console.Bool(in); !ok || b != want {
			t.Errorf("Bool(%q) = %v, %v", in, b, ok)
		}
	}
	if _, ok := console.Bool("Yes"); ok {
		t.Error(`Bool("Yes")`)
	}
}
