package main

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers what it is sent until ctx ends.
func echo(ctx context.Context, t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
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

// An exchange through the proxy takes at least a round trip, and a hundred at once take one, not a hundred.
func TestProxyDelaysButDoesNotQueue(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	const rtt = 40 * time.Millisecond
	p, err := startProxy(ctx, echo(ctx, t), rtt)
	if err != nil {
		t.Fatal(err)
	}
	defer p.wg.Wait()
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	began := time.Now()
	const n = 100
	go func() {
		for range n {
			_, _ = conn.Write([]byte("x"))
		}
	}()
	if _, err := io.ReadFull(conn, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if took < rtt {
		t.Errorf("an exchange took %v, less than the round trip of %v", took, rtt)
	}
	if took > n/2*rtt {
		t.Errorf("%d bytes in flight took %v: the proxy delays them one after the other", n, took)
	}
}

func TestTargets(t *testing.T) {
	cells := []cell{
		{Operation: "create", Callers: 1, P50Ms: 5},
		{Operation: "create", RoundTripMs: 50, Callers: 1, P50Ms: 110},
		{Operation: "create", RoundTripMs: 50, Callers: 16, PerSecond: 39},
	}
	got := targets(cells)
	if len(got) != 2 || got[0].Met || got[0].Reached != 2 || !got[1].Met || got[1].Reached != 0.975 {
		t.Errorf("targets = %+v, want 2.00 not met and 0.975 met", got)
	}
	if targets(nil) != nil {
		t.Error("targets without measurements")
	}
}
