package routeros

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

var (
	errLost   = errors.New("the connection was lost before the command was sent")
	errSilent = errors.New("the RDS does not answer any more")
)

// conn is one SSH connection and everything that lives with it. It begins in connect and ends with kill; the owner makes
// another one then. A connection is never repaired.
type conn struct {
	client *ssh.Client
	wire   *wire
	cfg    Config

	jobs   chan *job     // unbuffered: a job is taken only by a channel that is open
	demand chan struct{} // unbuffered: wakes a slot that does not open channels for nobody
	turn   chan struct{} // nil, or a token for opening one channel at a time

	born   time.Time
	opened atomic.Int64 // when a channel last opened, in nanoseconds after born
	spare  atomic.Int32 // channels that wait for a command
	inUse  atomic.Int32 // commands whose callers still wait for the answer
	active atomic.Int32 // slots that are not put aside because the RDS refused them a channel

	once  sync.Once
	dead  chan struct{}
	cause error // valid once dead is closed

	mu      sync.Mutex
	doubt   chan struct{} // not nil: the RDS fell silent, new commands wait until it is known whether it lives
	verdict *time.Timer
	check   chan struct{} // asks keepAlive to look now
}

// connect dials the RDS and learns its version, all within DialTimeout. The connection comes back together with the error
// when only the version is wrong: keeping it is cheaper than asking again and again.
func (c *Client) connect(ctx context.Context) (*conn, string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.DialTimeout, fmt.Errorf("no answer within %v", c.cfg.DialTimeout))
	defer cancel()
	client, w, err := c.handshake(ctx)
	if err != nil {
		return nil, "", err
	}
	conn := c.newConn(client, w)
	version, err := conn.version(ctx)
	if err == nil {
		_, err = dialectOf(version)
	}
	if err != nil && !errors.Is(err, ErrUnsupportedVersion) {
		conn.kill(err)
		return nil, "", err
	}
	return conn, version, err
}

// dialTCP opens a connection that is over when it is closed. Linux would otherwise go on sending what the RDS has not acknowledged yet,
// for minutes, also after the process has ended: a script that was given up would run when the network is back, beside
// whatever was done since. With a linger time of zero what was not sent is thrown away, and the RDS is told by a reset.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("a connection that would outlive its end is not used: %w", err)
		}
	}
	return raw, nil
}

// handshake opens TCP and SSH. The library's handshake knows no context: what ends it is its connection closing.
func (c *Client) handshake(ctx context.Context) (*ssh.Client, *wire, error) {
	raw, err := c.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	w := &wire{Conn: raw, born: time.Now()}
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	sc, chans, reqs, err := ssh.NewClientConn(w, c.cfg.Address, c.ssh)
	if !stop() && err == nil {
		_ = sc.Close()
		err = errors.New("too late")
	}
	if err != nil {
		_ = w.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return nil, nil, fmt.Errorf("user %s: %w", c.cfg.User, err)
	}
	return ssh.NewClient(sc, chans, reqs), w, nil
}

// newConn starts what a connection needs: its slots, which open their channels at once, its keepalive and its undertaker.
func (c *Client) newConn(client *ssh.Client, w *wire) *conn {
	conn := &conn{
		client: client, wire: w, cfg: c.cfg, born: time.Now(),
		jobs: make(chan *job), demand: make(chan struct{}),
		dead: make(chan struct{}), check: make(chan struct{}, 1),
	}
	w.failWrites(client)
	if c.cfg.SerializeOpen {
		conn.turn = make(chan struct{}, 1)
	}
	conn.active.Store(int32(c.cfg.MaxChannels))
	for range c.cfg.MaxChannels {
		c.wg.Go(conn.slot)
	}
	c.wg.Go(conn.keepAlive)
	c.wg.Go(func() { conn.kill(fmt.Errorf("connection lost: %w", client.Wait())) })
	return conn
}

// kill ends the connection for good (B31: a replaced connection stayed open): what the RDS has not got yet it never gets. It closes
// the socket itself, because the library's Close can wait behind a write that a silent peer never takes.
func (c *conn) kill(cause error) {
	c.once.Do(func() {
		c.cause = cause
		close(c.dead)
		_ = c.wire.Close()
		c.trust()
	})
}

func (c *conn) alive() bool {
	select {
	case <-c.dead:
		return false
	default:
		return true
	}
}

// lostCause says why the connection died, or that it did.
func (c *conn) lostCause() error {
	if c.alive() {
		return errLost
	}
	return c.cause
}

// pause waits, and ends early with the connection.
func (c *conn) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.dead:
	}
}

// keepAlive asks the RDS regularly, and when in doubt, whether it is there.
func (c *conn) keepAlive() {
	ticker := time.NewTicker(c.cfg.KeepAlive)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.check:
		case <-c.dead:
			return
		}
		if !c.ping() {
			return
		}
		c.trust()
	}
}

// ping waits for any reply: RouterOS is said to know no keepalive@openssh.com, and its refusal proves just as well that
// it lives [R]. No reply in time kills the connection, which also ends the wait.
func (c *conn) ping() bool {
	timer := time.AfterFunc(c.cfg.KeepAlive, func() { c.kill(fmt.Errorf("%w: no reply to a keepalive within %v", errSilent, c.cfg.KeepAlive)) })
	defer timer.Stop()
	_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
	return err == nil
}

// suspect is called when a command ran into its deadline. If nothing at all was heard of the RDS since the command left,
// the connection may be half-open (B13): it is checked at once, and commands that come meanwhile wait for the verdict
// instead of running into the same silence.
func (c *conn) suspect(sent time.Time) {
	if c.wire.heardSince(sent) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.doubt != nil || !c.alive() {
		return
	}
	c.doubt = make(chan struct{})
	patience := c.cfg.KeepAlive / 3 // shorter than for an idle RDS: this one failed a command already
	c.verdict = time.AfterFunc(patience, func() {
		c.kill(fmt.Errorf("%w: no reply to a command, nor to a keepalive within %v", errSilent, patience))
	})
	select {
	case c.check <- struct{}{}:
	default:
	}
}

// trust ends the doubt, because the RDS answered or because the connection is dead.
func (c *conn) trust() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.doubt != nil {
		c.verdict.Stop()
		close(c.doubt)
		c.doubt = nil
	}
}

// trusted waits until there is no doubt about the connection.
func (c *conn) trusted(ctx context.Context) {
	c.mu.Lock()
	doubt := c.doubt
	c.mu.Unlock()
	if doubt == nil {
		return
	}
	select {
	case <-doubt:
	case <-ctx.Done():
	}
}

// watch kills the connection when something on a channel has not come for so long, if by then the connection is hopeless.
// The library can neither cancel the opening of a channel nor forget one that the peer does not close, and each
// of them takes a place away for good.
func (c *conn) watch(patience time.Duration, hopeless func() bool) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var timer *time.Timer
	armed := make(chan struct{}) // the timer may fire before it is assigned
	timer = time.AfterFunc(patience, func() {
		<-armed
		switch {
		case ctx.Err() != nil:
		case hopeless():
			c.kill(fmt.Errorf("%w: a channel neither opens nor closes", errSilent))
		default:
			timer.Reset(patience)
		}
	})
	close(armed)
	return func() {
		cancel()
		timer.Stop()
	}
}

// unused: no caller waits for an answer, so that a new connection costs nobody anything.
func (c *conn) unused() bool { return c.inUse.Load() == 0 }

// stalled: there is no channel that works, nor has there been one for a while. As long as there is one, the RDS may simply let
// others wait [U].
func (c *conn) stalled() bool {
	return c.unused() && c.spare.Load() == 0 && time.Since(c.born) > time.Duration(c.opened.Load())+c.cfg.DialTimeout
}

// wire is the socket. It notes when the peer was last heard and whether anything was written.
type wire struct {
	net.Conn
	born   time.Time
	heard  atomic.Int64 // nanoseconds after born
	writes atomic.Int64 // those that passed at least one byte on
	broken atomic.Bool
	last   atomic.Pointer[func()] // called once the socket is closed, before the library learns of it
}

func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if n > 0 {
		w.writes.Add(1)
	}
	return n, err
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(int64(time.Since(w.born)))
	}
	if err != nil {
		w.broken.Store(true)
		_ = w.Close()
		if last := w.last.Load(); last != nil {
			(*last)()
		}
	}
	return n, err
}

// failWrites makes the library fail every later write at once. When a read fails, the library first gives up the channels
// it has and only then refuses writes, and the first write that fails is reported as a success: a channel asked for in between would
// be waited for by nobody's clock. So the failing write is provoked here, while the library has not seen the read fail.
func (w *wire) failWrites(client *ssh.Client) {
	last := func() { _, _, _ = client.SendRequest("keepalive@openssh.com", false, nil) }
	w.last.Store(&last)
}

func (w *wire) heardSince(t time.Time) bool {
	return time.Duration(w.heard.Load()) > t.Sub(w.born)
}
