package controlplane

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers with what it is sent.
func echo(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends a word and reads as much again.
func ask(c net.Conn, word string) error {
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != word {
		return errors.New("got " + string(got))
	}
	return nil
}

func TestProxy(t *testing.T) {
	p, err := NewProxy(t.Context(), echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	through := dial(t, p.Address())
	if err := ask(through, "plain"); err != nil {
		t.Fatal(err)
	}

	const delay = 50 * time.Millisecond
	p.Slow(delay)
	began := time.Now()
	if err := ask(through, "slow"); err != nil || time.Since(began) < 2*delay {
		t.Errorf("a slow proxy answered in %s, %v", time.Since(began), err)
	}
	p.Slow(0)

	p.Cut()
	if err := ask(through, "cut"); err == nil {
		t.Error("a cut connection answers")
	}
	if err := ask(dial(t, p.Address()), "new"); err != nil {
		t.Errorf("after the cut: %v", err)
	}

	p.Down()
	if err := ask(dial(t, p.Address()), "down"); err == nil {
		t.Error("a proxy that is down answers")
	}
	p.Up()
	p.Target(echo(t))
	if err := ask(dial(t, p.Address()), "moved"); err != nil {
		t.Errorf("up again, with another target: %v", err)
	}
}

func TestLauncher(t *testing.T) {
	l := NewLauncher(t.TempDir())
	long, err := l.Start("long", "/bin/sh", "-c", "echo begun; exec tail -f /dev/null")
	if err != nil {
		t.Fatal(err)
	}
	short, err := l.Start("short", "/bin/sh", "-c", "exit 3")
	if err != nil {
		t.Fatal(err)
	}
	<-short.Done()
	if err := short.Err(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the end of short: %v", err)
	}
	if err := long.Err(); err != nil {
		t.Errorf("long: %v", err)
	}
	if err := long.Pause(); err != nil {
		t.Error(err)
	}
	l.Close() // ends a paused one as well
	if _, err := l.Start("late", "/bin/true"); err == nil {
		t.Error("a closed launcher starts")
	}
	l.Close()
	if long.Err() == nil {
		t.Error("long outlived its launcher")
	}
}

func TestKept(t *testing.T) {
	l := NewLauncher(t.TempDir())
	defer l.Close()
	left := 2
	p, err := l.Keep(func() bool { left--; return left >= 0 }, "kept", "/bin/sh", "-c", "echo begun; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if log, err := os.ReadFile(p.Log); string(log) != strings.Repeat("begun\n", 3) {
		t.Errorf("started again twice it says %q, %v", log, err)
	}
	if err := p.Err(); !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("its last end: %v", err)
	}

	p, err = l.Keep(func() bool { t.Error("it was killed, and is to be started again"); return true }, "killed", "/bin/sh", "-c", "exec tail -f /dev/null")
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
}

func TestBuildSaysWhatFailed(t *testing.T) {
	module := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/none\n\nrequire (\n\tk8s.io/kubernetes v1.2.3\n)\n", "go.sum": "", "tools.go": "package tools\n",
	} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Build(t.Context(), module, t.TempDir(), io.Discard); err == nil || !strings.Contains(err.Error(), "kube-controller-manager") {
		t.Errorf("a module with a file missing: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(module, "kube-controller-manager"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(module, "kube-controller-manager", "main.go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOPROXY", "off")
	var log bytes.Buffer
	cache := t.TempDir()
	_, err := Build(t.Context(), module, cache, &log)
	if err == nil || !strings.Contains(err.Error(), "build etcd") || !strings.Contains(log.String(), "1 of 9: etcd") {
		t.Errorf("a module that cannot be built: %v, log %q", err, log.String())
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*")); len(left) > 0 {
		t.Errorf("half a build was left: %v", left)
	}
}

func TestFreeAddressIsNoneOfTheKernels(t *testing.T) {
	address, err := FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at, err := net.ResolveTCPAddr("tcp", address)
	if err != nil || at.Port == 0 || !at.IP.IsLoopback() {
		t.Errorf("%s, %v", address, err)
	}
	if first := ephemeralFrom(); first > lowestPort && at.Port >= first { // else there is no other
		t.Errorf("%s is among the kernel's own, from %d on", address, first)
	}
}

func TestPortBetween(t *testing.T) {
	for range 100 {
		if port := portBetween(10, 12); port < 10 || port > 12 {
			t.Errorf("port %d is not between 10 and 12", port)
		}
	}
	if only, none := portBetween(10, 10), portBetween(10, 9); only != 10 || none != 0 {
		t.Errorf("of one port %d, of none %d", only, none)
	}
}
