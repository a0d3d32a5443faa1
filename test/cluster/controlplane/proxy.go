package controlplane

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy is a TCP address that stays while what is behind it changes, gets slow, or goes away.
type Proxy struct {
	listener net.Listener
	ended    sync.WaitGroup

	mu     sync.Mutex
	target string
	delay  time.Duration // of every piece of data, in each direction
	closed bool          // whoever connects is sent away
	conns  map[net.Conn]bool
}

// NewProxy listens on a loopback port of the kernel's choice.
func NewProxy(ctx context.Context, target string) (*Proxy, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.ended.Go(p.accept)
	return p, nil
}

// Address is where clients connect.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Target sets where new connections lead.
func (p *Proxy) Target(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = address
}

// Slow holds up every piece of data that arrives from now on, in each direction.
func (p *Proxy) Slow(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// Cut ends all connections under way; new ones are served.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Down ends all connections and sends new ones away, until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
}

// Up serves again.
func (p *Proxy) Up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = false
}

// Close ends everything and waits for it.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.Down()
	p.ended.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.ended.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	if !p.note(client) {
		return
	}
	defer p.forget(client)
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if !p.note(server) {
		return
	}
	defer p.forget(server)
	var both sync.WaitGroup
	both.Go(func() { p.pump(server, client) })
	both.Go(func() { p.pump(client, server) })
	both.Wait()
}

// note remembers a connection for Cut, unless the proxy is down.
func (p *Proxy) note(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.conns[c] = true
	}
	return !p.closed
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// piece is data with the moment at which it may leave.
type piece struct {
	data []byte
	due  time.Time
}

// pump moves data from one side to the other, late by the delay; pieces overtake each other as little as they wait for
// each other. Either end's end is the end of both.
func (p *Proxy) pump(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	pieces := make(chan piece, 1024)
	var sender sync.WaitGroup
	sender.Go(func() {
		for next := range pieces {
			if wait := time.Until(next.due); wait > 0 {
				<-time.After(wait)
			}
			if _, err := to.Write(next.data); err != nil {
				_ = from.Close() // the reader below ends, and then the channel
			}
		}
	})
	p.read(from, pieces)
	close(pieces)
	sender.Wait()
}

func (p *Proxy) read(from io.Reader, pieces chan<- piece) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			p.mu.Lock()
			due := time.Now().Add(p.delay)
			p.mu.Unlock()
			pieces <- piece{append([]byte(nil), buffer[:n]...), due}
		}
		if err != nil {
			return
		}
	}
}
