package routeros

import (
	"io"
	"net"
	"sync"
	"time"
)

// link is a TCP connection in memory: buffered, with a latency, and with the failures that TCP has. It works on the clock of
// synctest, so that a round trip can be counted by the time it takes.
type link struct {
	client, server *stream // bytes on their way to that side
}

func newLink(latency time.Duration) *link {
	return &link{client: newStream(latency), server: newStream(latency)}
}

func (l *link) clientEnd() net.Conn { return end{l.client, l.server} }
func (l *link) serverEnd() net.Conn { return end{l.server, l.client} }

// cut ends the connection for both sides, as a reset does.
func (l *link) cut() {
	l.client.close()
	l.server.close()
}

// silence lets nothing through any more, and tells nobody: a half-open connection.
func (l *link) silence() {
	l.client.hold()
	l.server.hold()
}

type chunk struct {
	data []byte
	due  time.Time
}

type stream struct {
	latency time.Duration
	mu      sync.Mutex
	cond    *sync.Cond
	chunks  []chunk
	held    bool
	closed  bool
}

func newStream(latency time.Duration) *stream {
	s := &stream{latency: latency}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		ready := len(s.chunks) > 0 && !s.held && !time.Now().Before(s.chunks[0].due)
		switch {
		case ready:
			n := copy(p, s.chunks[0].data)
			if s.chunks[0].data = s.chunks[0].data[n:]; len(s.chunks[0].data) == 0 {
				s.chunks = s.chunks[1:]
			}
			return n, nil
		case s.closed:
			return 0, io.EOF
		}
		s.cond.Wait()
	}
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	s.chunks = append(s.chunks, chunk{append([]byte(nil), p...), time.Now().Add(s.latency)})
	if s.latency > 0 {
		time.AfterFunc(s.latency, s.cond.Broadcast)
	} else {
		s.cond.Broadcast()
	}
	return len(p), nil
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cond.Broadcast()
}

func (s *stream) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
}

type end struct{ in, out *stream }

func (e end) Read(p []byte) (int, error)  { return e.in.Read(p) }
func (e end) Write(p []byte) (int, error) { return e.out.Write(p) }

func (e end) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

func (e end) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (e end) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 22} }
func (e end) SetDeadline(time.Time) error      { return nil }
func (e end) SetReadDeadline(time.Time) error  { return nil }
func (e end) SetWriteDeadline(time.Time) error { return nil }
