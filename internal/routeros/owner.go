package routeros

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// pace says how often the RDS is dialled while it cannot be reached.
type pace struct {
	floor   time.Duration // never more often than this, however many calls wait
	ceiling time.Duration // at least this often, even when nobody waits
	settled time.Duration // a connection that lived so long was a good one: its loss starts a new count
}

func defaultPace() pace {
	return pace{floor: 500 * time.Millisecond, ceiling: 30 * time.Second, settled: 30 * time.Second}
}

// backoff is the time between the beginnings of two dials after so many failures in a row, with jitter so that several
// drivers that lost the same RDS do not come back in step.
func (p pace) backoff(failures int) time.Duration {
	d := min(p.ceiling, p.floor<<min(failures, 16))
	return d/2 + rand.N(d/2+1) //nolint:gosec // jitter is no secret
}

// own is the one goroutine that makes connections and buries them. That there is only one is what keeps an outage from
// becoming a stampede (B31: 122 TCP connections for 28 drops).
func (c *Client) own(ctx context.Context) {
	defer c.finish()
	for failures := 1; ctx.Err() == nil; failures++ {
		begun := c.begin()
		conn, version, err := c.connect(ctx)
		c.report(ctx, conn, version, err)
		if conn != nil {
			select {
			case <-conn.dead:
			case <-ctx.Done():
				conn.kill(errClosed)
			}
			c.report(ctx, nil, version, conn.cause)
			if time.Since(begun) >= c.pace.settled {
				failures = 1
			}
		}
		c.rest(ctx, begun, failures)
	}
}

// begin counts a dial that begins.
func (c *Client) begin() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun++
	return time.Now()
}

// report publishes what became of a dial, or of the connection, and lets everybody who waits look at it.
func (c *Client) report(ctx context.Context, conn *conn, version string, err error) {
	c.mu.Lock()
	was := c.status
	next := Status{Connected: conn != nil && err == nil, Since: was.Since, Err: err, Version: was.Version, Dialect: was.Dialect}
	if version != "" {
		next.Version = version
		next.Dialect, _ = dialectOf(version) // an unsupported one is in err already
	}
	if next.Connected != was.Connected {
		next.Since = time.Now()
	}
	if conn != nil || c.conn == nil { // the loss of a connection is no dial
		c.ended++
		c.away = conn == nil
	}
	c.conn, c.status = conn, next
	c.announce()
	c.mu.Unlock()
	c.log(ctx, was, next)
}

// log tells about changes, not about every dial of a long outage.
func (c *Client) log(ctx context.Context, was, next Status) {
	switch log := c.cfg.Logger; {
	case next.Connected:
		log.InfoContext(ctx, "connected to the RDS", "version", next.Version)
	case was.Connected:
		log.WarnContext(ctx, "connection to the RDS lost", "err", next.Err)
	case was.Err == nil || was.Err.Error() != next.Err.Error():
		log.WarnContext(ctx, "the RDS cannot be used", "err", next.Err)
	}
}

func (c *Client) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
	c.waiting = 0 // who still waits after looking counts itself again
}

func (c *Client) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop() // the owner may end because of its parent's context
	c.over, c.conn = true, nil
	c.status.Connected, c.status.Err = false, errClosed
	c.announce()
}

// rest waits before the next dial: for the floor when a call waits, for the backoff when nobody does.
func (c *Client) rest(ctx context.Context, begun time.Time, failures int) {
	floor := time.NewTimer(time.Until(begun.Add(c.pace.floor)))
	defer floor.Stop()
	select {
	case <-floor.C:
	case <-ctx.Done():
		return
	}
	backoff := time.NewTimer(time.Until(begun.Add(c.pace.backoff(failures))))
	defer backoff.Stop()
	for !c.wanted() {
		select {
		case <-backoff.C:
			return
		case <-c.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (c *Client) wanted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting > 0
}

// connection returns the live connection. Without one it wakes the owner and waits for the outcome of a dial, which every
// call that waits shares. A dial that was under way when the call came may succeed for it but not fail for it: it may
// have been hanging since before the RDS recovered.
func (c *Client) connection(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for before := c.begun; ; {
		switch {
		case c.conn != nil && c.conn.alive():
			return c.conn, c.status.Err // which is not nil when its RouterOS is too old
		case c.stop == nil || c.over || c.ended > before:
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, c.why())
		}
		if err := c.await(ctx); err != nil {
			return nil, fmt.Errorf("%w: still not connected: %w (%w)", ErrUnreachable, err, c.why())
		}
	}
}

func (c *Client) why() error {
	if c.status.Err == nil { // lost, and the owner has not said so yet
		return errLost
	}
	return c.status.Err
}

// await waits for the next change. It is called with the lock held and returns with it held.
func (c *Client) await(ctx context.Context) error {
	changed := c.changed
	c.want()
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		c.giveUp(changed)
		return context.Cause(ctx)
	}
}

// want lets the owner dial before its backoff is over. It is called with the lock held; what becomes of the next dial ends it.
func (c *Client) want() {
	c.waiting++
	select {
	case c.wake <- struct{}{}:
	default: // a nudge is on its way already
	}
}

// giveUp takes back what a call that waits no longer had announced.
func (c *Client) giveUp(changed chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == changed {
		c.waiting--
	}
}
