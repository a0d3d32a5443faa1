package routeros

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// What a silent RDS has not taken when the connection is given up it never gets: it would run long after the script was thought lost.
func TestNothingIsSentAfterTheEnd(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	cfg := newRig(t).client(nil).cfg
	cfg.Address = listener.Addr().String()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	rds, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rds.Close() }()

	sent := 0
	if err := raw.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for err == nil { // until nothing more fits into any buffer
		var n int
		n, err = raw.Write(make([]byte, 1<<16))
		sent += n
	}
	_ = (&wire{Conn: raw}).Close()

	got, err := io.Copy(io.Discard, rds)
	if !errors.Is(err, syscall.ECONNRESET) || got >= int64(sent) {
		t.Errorf("of %d bytes %d arrived, then %v", sent, got, err)
	}
}
