package routeros

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/ssh"
)

// channel is one open session channel. A channel carries one command.
type channel struct {
	ssh.Channel
	closed chan struct{} // closed once the RDS has closed its side, or the connection is gone
}

// job is one command on its way.
type job struct {
	ctx     context.Context // it travels with the command to the goroutine that sends it
	command string
	done    chan result // buffered: the slot never waits for a caller who went away
}

// answer is what the RDS wrote before it ended the channel.
type answer struct {
	stdout []byte
	stderr []byte
	broken bool // the connection ended first, so that the text may be cut anywhere
}

type result struct {
	answer answer
	err    error
}

// Times that no configuration needs.
const (
	reopenAfter  = 5 * time.Second        // after the RDS closed a channel that nobody used
	retryRefused = 30 * time.Second       // before a slot asks again for a channel that the RDS refused it
	retryLast    = 100 * time.Millisecond // the same for the last slot, without which nothing works
	lastRefusals = 5                      // so often
)

// exec runs one command. An error that wraps ErrUnreachable says that it was not sent, one that wraps ErrOutcomeUnknown
// that it was, or may have been.
func (c *conn) exec(ctx context.Context, command string) (answer, error) {
	c.trusted(ctx)
	j := &job{ctx: ctx, command: command, done: make(chan result, 1)}
	if err := c.hand(ctx, j); err != nil {
		return answer{}, err
	}
	sent := time.Now()
	defer c.inUse.Add(-1) // the slot counted it when it took it
	select {
	case r := <-j.done:
		return r.answer, r.err
	case <-ctx.Done():
		return c.overdue(ctx, j, sent)
	}
}

// hand gives the job to a slot with an open channel.
func (c *conn) hand(ctx context.Context, j *job) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: nothing was sent: %w", ErrUnreachable, context.Cause(ctx))
	}
	for demand := c.demand; ; {
		select {
		case c.jobs <- j:
			return nil
		case demand <- struct{}{}:
			demand = nil // one slot more than was wanted is enough
		case <-c.dead:
			return fmt.Errorf("%w: %w: %w", ErrUnreachable, errLost, c.cause)
		case <-ctx.Done():
			return fmt.Errorf("%w: no free channel, nothing was sent: %w", ErrUnreachable, context.Cause(ctx))
		}
	}
}

// overdue is what a caller learns who cannot wait any longer.
func (c *conn) overdue(ctx context.Context, j *job, sent time.Time) (answer, error) {
	select {
	case r := <-j.done: // both at once: the answer counts
		return r.answer, r.err
	default:
	}
	c.suspect(sent)
	return answer{}, fmt.Errorf("%w: no answer after %v: %w", ErrOutcomeUnknown, time.Since(sent).Round(time.Millisecond), context.Cause(ctx))
}

// slot is one of the MaxChannels places for a channel: it opens one ahead, lets one command have it, waits until the RDS
// has closed it, and begins again. There being so many slots and no more is what holds the limit.
func (c *conn) slot() {
	for refusals := 0; c.alive(); {
		ch, err := c.open()
		var refused *ssh.OpenChannelError
		switch {
		case errors.As(err, &refused):
			refusals++
			c.putAside(refused, refusals)
		case err != nil:
			c.kill(err)
		default:
			refusals = 0
			c.serve(ch)
		}
	}
}

// open asks for a channel: one round trip.
func (c *conn) open() (*channel, error) {
	if c.turn != nil {
		select {
		case c.turn <- struct{}{}:
			defer func() { <-c.turn }()
		case <-c.dead:
			return nil, c.lostCause()
		}
	}
	defer c.watch(c.cfg.DialTimeout, c.stalled)()
	type opened struct {
		ch  *channel
		err error
	}
	done := make(chan opened, 1)
	go func() { // the library gives no way to stop waiting, and none at all when the RDS disconnects in this very moment
		ch, requests, err := c.client.OpenChannel("session", nil)
		if err != nil {
			done <- opened{err: err}
			return
		}
		closed := make(chan struct{})
		done <- opened{ch: &channel{ch, closed}}
		ssh.DiscardRequests(requests) // exit-status: RouterOS says 0 whatever happened [R]
		close(closed)
	}()
	select {
	case o := <-done:
		return o.ch, o.err
	case <-c.dead:
		return nil, c.lostCause()
	}
}

// putAside keeps a slot away from an RDS that wants fewer channels, as long as another slot works.
func (c *conn) putAside(refused *ssh.OpenChannelError, times int) {
	others := c.active.Add(-1)
	defer c.active.Add(1)
	switch {
	case others > 0:
		c.cfg.Logger.Debug("the RDS allows fewer channels than configured", "err", refused, "channels", others)
		c.pause(retryRefused)
	case times < lastRefusals:
		c.pause(retryLast)
	default:
		c.kill(fmt.Errorf("the RDS opens no channel: %w", refused))
	}
}

// serve keeps an open channel until a command has used it or the RDS has closed it.
func (c *conn) serve(ch *channel) {
	c.opened.Store(int64(time.Since(c.born)))
	c.spare.Add(1)
	select {
	case j := <-c.jobs:
		c.inUse.Add(1)
		c.spare.Add(-1)
		defer c.watch(c.cfg.CommandTimeout+c.cfg.DialTimeout, c.unused)()
		j.done <- c.perform(j, ch)
		_ = ch.Close() // it is closed already, as a rule
		select {       // only then does the RDS count one channel less
		case <-ch.closed:
		case <-c.dead:
		}
	case <-ch.closed:
		c.spare.Add(-1)
		c.idle()
	case <-c.dead:
	}
}

// idle waits after the RDS closed a channel that nobody used: not to open one after the other for nothing, and yet to have one when
// a command comes.
func (c *conn) idle() {
	timer := time.NewTimer(reopenAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.demand:
	case <-c.dead:
	}
}

// perform sends the command and reads the answer: one round trip.
func (c *conn) perform(j *job, ch *channel) result {
	if j.ctx.Err() != nil {
		return result{err: fmt.Errorf("%w: nothing was sent: %w", ErrUnreachable, context.Cause(j.ctx))}
	}
	defer context.AfterFunc(j.ctx, func() { _ = ch.Close() })()
	writes := c.wire.writes.Load()
	accepted, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{j.command}))
	switch {
	case err != nil:
		return result{err: c.unanswered(j.ctx, err, c.wire.writes.Load() == writes)}
	case !accepted:
		return result{err: fmt.Errorf("%w: the RDS refuses to execute commands over SSH: the user's group needs the policies ssh, read and write", ErrUnreachable)}
	}
	_ = ch.CloseWrite() // no input will come; as other clients of the device do [R]
	return c.collect(ch)
}

// unanswered decides whether a command without a reply to its request can have run. It cannot when nothing was written, or
// when the library refused to write. Otherwise the library's io.EOF says that the channel was closed, before or after, by
// whomever: if it was not us and the connection lives, the RDS closed it without replying to the request, which RFC 4254
// lets it do only when it had closed it first [I].
func (c *conn) unanswered(ctx context.Context, err error, unsent bool) error {
	switch {
	case !errors.Is(err, io.EOF):
		c.kill(fmt.Errorf("connection lost: %w", err))
		return fmt.Errorf("%w: %w: %w", ErrUnreachable, errLost, err)
	case unsent:
		if c.wire.broken.Load() {
			c.kill(errors.New("connection lost")) // the library is about to say so too
		}
		return fmt.Errorf("%w: %w: the channel was closed", ErrUnreachable, errLost)
	case ctx.Err() == nil && c.ping():
		return fmt.Errorf("%w: %w: the RDS closed the channel", ErrUnreachable, errLost)
	default:
		return fmt.Errorf("%w: the connection was lost with the command on its way", ErrOutcomeUnknown)
	}
}

// collect reads the answer to its end. Errors on stderr are not RouterOS's way [R], but they cost nothing to look at.
func (c *conn) collect(ch *channel) result {
	limit := int64(c.cfg.MaxReplyBytes)
	stdout, err := io.ReadAll(io.LimitReader(ch, limit+1))
	switch {
	case err != nil:
		return result{err: fmt.Errorf("%w: the answer cannot be read: %w", ErrOutcomeUnknown, err)}
	case int64(len(stdout)) > limit:
		return result{err: fmt.Errorf("%w: the answer is longer than %d bytes", ErrOutcomeUnknown, limit)}
	}
	stderr, _ := io.ReadAll(io.LimitReader(ch.Stderr(), 4096)) // it ended together with stdout
	return result{answer: answer{stdout: stdout, stderr: stderr, broken: c.wire.broken.Load()}}
}
