package main

import (
	"context"
	"net"
	"sync"
	"time"
)

// delayProxy forwards TCP connections to a target and holds every byte for half a round trip in each direction. Bandwidth is not limited:
// a chunk leaves exactly one delay after it arrived, however many are under way.
type delayProxy struct {
	listener net.Listener
	target   string
	oneWay   time.Duration
	wg       sync.WaitGroup
}

// startProxy listens on a free loopback port until ctx ends.
func startProxy(ctx context.Context, target string, roundTrip time.Duration) (*delayProxy, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &delayProxy{listener: l, target: target, oneWay: roundTrip / 2}
	p.wg.Go(func() { p.accept(ctx) })
	context.AfterFunc(ctx, func() { _ = l.Close() })
	return p, nil
}

func (p *delayProxy) address() string { return p.listener.Addr().String() }

func (p *delayProxy) accept(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(ctx, client) })
	}
}

func (p *delayProxy) serve(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = client.Close(); _ = server.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { p.pump(server, client) })
	wg.Go(func() { p.pump(client, server) })
	wg.Wait()
}

// chunk is bytes with the moment at which they may leave.
type chunk struct {
	data []byte
	due  time.Time
}

// pump moves bytes from src to dst, each one delay late, and closes dst when src ends.
func (p *delayProxy) pump(dst, src net.Conn) {
	queue := make(chan chunk, 4096)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer func() { _ = dst.Close() }()
		for c := range queue {
			<-time.After(time.Until(c.due))
			if _, err := dst.Write(c.data); err != nil {
				_ = src.Close()
				// Drain, so that the reader never blocks on a full queue.
				continue
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			queue <- chunk{data: append([]byte(nil), buf[:n]...), due: time.Now().Add(p.oneWay)}
		}
		if err != nil {
			_ = src.Close()
			break
		}
	}
	close(queue)
	wg.Wait()
}
