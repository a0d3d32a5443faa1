package sim

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// connection is one SSH connection after its login.
type connection struct {
	s      *server
	raw    net.Conn
	user   string
	width  int
	silent atomic.Bool // swallows everything from now on

	mu   sync.Mutex
	open int           // channels
	room chan struct{} // closed and made anew when a channel closes
}

func newConnection(s *server, raw net.Conn, conn *ssh.ServerConn) *connection {
	user, width := account(conn.User())
	return &connection{s: s, raw: raw, user: user, width: width, room: make(chan struct{})}
}

// run answers until the connection ends.
func (c *connection) run(ctx context.Context, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	ended := make(chan struct{})
	defer close(ended)
	c.s.work.Go(func() { c.global(requests) })
	for ask := range channels {
		if c.deaf() {
			continue
		}
		c.s.d.journal.channel()
		c.s.work.Go(func() { c.channel(ctx, ask, ended) })
	}
}

// deaf tells whether the connection answers no more. Once it does not, it never does again.
func (c *connection) deaf() bool {
	if !c.silent.Load() && c.s.d.faults.connection() {
		c.silent.Store(true)
	}
	return c.silent.Load()
}

// global answers requests that belong to no channel: all of them with a failure, keepalive@openssh.com too [R].
func (c *connection) global(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.WantReply && !c.deaf() {
			_ = r.Reply(false, nil) // fails when the connection has ended, as the loop then does
		}
	}
}

// channel takes a channel if there may be one more.
func (c *connection) channel(ctx context.Context, ask ssh.NewChannel, ended <-chan struct{}) {
	if ask.ChannelType() != "session" {
		_ = ask.Reject(ssh.UnknownChannelType, "only sessions")
		return
	}
	if !c.enter(ended) {
		_ = ask.Reject(ssh.ResourceShortage, "too many channels")
		return
	}
	defer c.leave()
	ch, requests, err := ask.Accept()
	if err != nil {
		return
	}
	defer ch.Close() //nolint:errcheck // closed already as often as not
	c.session(ctx, ch, requests)
}

// enter counts a channel in, waiting for room if that is what the device does.
func (c *connection) enter(ended <-chan struct{}) bool {
	for {
		c.mu.Lock()
		limit, room := c.s.d.quirks.number(quirkChannelLimit), c.room
		if limit == 0 || c.open < limit {
			c.open++
			c.mu.Unlock()
			return true
		}
		c.mu.Unlock()
		if c.s.d.quirks.is(quirkChannelOverLimit, refuse) {
			return false
		}
		select {
		case <-room:
		case <-ended:
			return false
		}
	}
}

func (c *connection) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	close(c.room)
	c.room = make(chan struct{})
}

// session waits for an exec and runs it. A terminal or a shell is not given: with a pty nothing works here, as on the
// device [R].
func (c *connection) session(ctx context.Context, ch ssh.Channel, requests <-chan *ssh.Request) {
	var idle <-chan time.Time
	if t := c.s.d.quirks.duration(quirkSpareIdleTimeout); t > 0 {
		timer := time.NewTimer(t)
		defer timer.Stop()
		idle = timer.C
	}
	for {
		select {
		case <-idle:
			return
		case r, ok := <-requests:
			if !ok {
				return
			}
			if r.Type != "exec" || c.deaf() {
				c.refuse(r)
				continue
			}
			var payload struct{ Command string }
			if err := ssh.Unmarshal(r.Payload, &payload); err != nil {
				c.refuse(r)
				continue
			}
			closed := c.discard(requests)
			c.exec(ctx, ch, r, payload.Command, closed)
			return
		}
	}
}

func (c *connection) refuse(r *ssh.Request) {
	if r.WantReply && !c.deaf() {
		_ = r.Reply(false, nil)
	}
}

// discard answers further requests of a channel and tells when the channel has closed.
func (c *connection) discard(requests <-chan *ssh.Request) (closed <-chan struct{}) {
	done := make(chan struct{})
	c.s.work.Go(func() {
		defer close(done)
		for r := range requests {
			c.refuse(r)
		}
	})
	return done
}

// exec runs a script with the faults that are due.
func (c *connection) exec(
	ctx context.Context, ch ssh.Channel, r *ssh.Request, script string, closed <-chan struct{},
) {
	d := c.s.d
	d.journal.command(script)
	p := d.faults.command(script)
	if r.WantReply && r.Reply(true, nil) != nil {
		return
	}
	if p.silent {
		<-closed
		return
	}
	pause(ctx, p.delay+d.quirks.duration(quirkCommandTime))
	switch {
	case p.reboot:
		d.rebootSoon()
		<-closed
		return
	case p.before:
		_ = c.raw.Close()
		return
	}
	reply := &reply{to: ch, hold: p.after || p.garbage != ""}
	failed, ended := c.script(ctx, script, p, reply)
	if p.after || !ended {
		_ = c.raw.Close()
		return
	}
	reply.release(p.garbage)
	c.exit(ch, failed)
	if d.power.wanted.CompareAndSwap(true, false) {
		d.rebootSoon()
	}
}

// script runs a script to its end, whether or not its reader is still there [I, from REST, where abandoned requests
// keep running]. Only the device going down comes before that end.
func (c *connection) script(ctx context.Context, script string, p plan, out *reply) (failed, ended bool) {
	ctx = context.WithValue(ctx, widthKey{}, c.width)
	if p.nospace {
		ctx = context.WithValue(ctx, fullKey{}, true)
	}
	if limit := c.s.d.quirks.number(quirkCommandLimit); limit > 0 && len(script) > limit {
		script = script[:limit]
	}
	failed, err := console.Run(ctx, c.s.d, c.user, script, out)
	if err != nil {
		c.s.d.log.DebugContext(ctx, "a script was cut off", "error", err)
	}
	return failed, err == nil
}

// exit ends a channel with status 0, even when the script failed [R].
func (c *connection) exit(ch ssh.Channel, failed bool) {
	status := struct{ Status uint32 }{}
	if failed && c.s.d.quirks.is(quirkExitStatus, nonzero) {
		status.Status = 1
	}
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(&status)) // in vain when the reader has gone
	_ = ch.CloseWrite()
}
