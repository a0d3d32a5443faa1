// Package routeros speaks to one RouterOS device over SSH: one connection with a pinned host key, a few channels
// opened ahead, scripts built without string concatenation, and replies that prove what happened.
//
// How sure a statement about RouterOS is, is marked after it: [V] its manual, [R] seen on a device, [S] somebody says
// so, [I] inferred, [U] unknown.
package routeros

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Config describes one RDS.
type Config struct {
	Name    string // for errors and logs
	Address string // host:port
	User    string

	Signers  []ssh.Signer // see ParseKeyFile
	Password string       // used only when not empty
	HostKey  HostKey      // KnownHosts or Fingerprint; there is no insecure mode

	MaxChannels    int  // session channels, in use and spare together; default 4
	SerializeOpen  bool // open channels one at a time
	MaxScriptBytes int  // longest command sent, markers included; default 8 KiB
	MaxReplyBytes  int  // longest reply read; default 64 MiB

	DialTimeout    time.Duration // TCP, handshake and version check together; default 10 s
	CommandTimeout time.Duration // ceiling for every command, whatever its context says; default 30 s
	KeepAlive      time.Duration // interval, and how long the reply may take; default 10 s

	// Observe is told about every command: ok, not_found, exists, no_space, permission, syntax, unknown, unreachable or error.
	Observe func(command, status string, took time.Duration)
	Logger  *slog.Logger
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	setDefault(&c.MaxChannels, 4)
	setDefault(&c.MaxScriptBytes, 8<<10) // what an exec channel takes is unknown [U]; /system/script's own limit is far above
	setDefault(&c.MaxReplyBytes, 64<<20)
	setDefault(&c.DialTimeout, 10*time.Second)
	setDefault(&c.CommandTimeout, 30*time.Second)
	setDefault(&c.KeepAlive, 10*time.Second)
	if c.Observe == nil {
		c.Observe = func(string, string, time.Duration) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("rds", c.Name, "address", c.Address)
	return c
}

func setDefault[T int | time.Duration](v *T, fallback T) {
	if *v <= 0 {
		*v = fallback
	}
}

// Client is one RDS. Its methods may be called from many goroutines.
type Client struct {
	cfg  Config
	ssh  *ssh.ClientConfig
	dial func(ctx context.Context) (net.Conn, error)
	pace pace

	wake chan struct{}  // nudges the owner out of its backoff
	wg   sync.WaitGroup // the owner and everything that belongs to a connection

	mu      sync.Mutex
	stop    context.CancelFunc // nil before Start
	over    bool               // no connection will be made any more
	conn    *conn              // nil while there is none
	status  Status
	begun   int           // dials that have begun
	ended   int           // dials that have ended, well or not
	away    bool          // a dial has ended without a connection since there was one
	waiting int           // calls that wait for a connection
	changed chan struct{} // closed and replaced whenever one of the above changes
}

// New checks the configuration. It does no I/O; Start does.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if cfg.HostKey.pin == nil {
		return nil, fmt.Errorf("rds %s: no host key is pinned: give a known_hosts file or a fingerprint", cfg.Name)
	}
	host, err := cfg.HostKey.pin(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("rds %s: %w", cfg.Name, err)
	}
	var auth []ssh.AuthMethod
	if len(cfg.Signers) > 0 {
		auth = append(auth, ssh.PublicKeys(cfg.Signers...))
	}
	if cfg.Password != "" {
		auth = append(auth, ssh.Password(cfg.Password))
	}
	if cfg.User == "" || len(auth) == 0 {
		return nil, fmt.Errorf("rds %s: a user and a private key (or a password) are needed", cfg.Name)
	}
	return &Client{
		cfg:     cfg,
		ssh:     &ssh.ClientConfig{User: cfg.User, Auth: auth, HostKeyCallback: host.check, HostKeyAlgorithms: host.algorithms},
		dial:    func(ctx context.Context) (net.Conn, error) { return dialTCP(ctx, cfg.Address) },
		pace:    defaultPace(),
		wake:    make(chan struct{}, 1),
		status:  Status{Err: errNotStarted},
		changed: make(chan struct{}),
	}, nil
}

var (
	errNotStarted = errors.New("the connection was not started")
	errClosed     = errors.New("the driver closed the connection")
)

// Start connects in the background and stays connected until ctx ends or Close is called. It returns at once; a second
// call does nothing.
func (c *Client) Start(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil || c.over {
		return
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.status = Status{Err: errors.New("not connected yet"), Since: time.Now()}
	c.wg.Go(func() { c.own(ctx) })
}

// Close ends the connection and waits for every goroutine of the client. Commands under way end with ErrOutcomeUnknown.
func (c *Client) Close() error {
	c.mu.Lock()
	stop := c.stop
	if stop == nil {
		c.over = true
	}
	c.mu.Unlock()
	if stop != nil {
		stop()
	}
	c.wg.Wait()
	return nil
}

// Status is what is known of the RDS without asking it.
type Status struct {
	Connected bool      // commands can be sent now
	Since     time.Time // when Connected last changed
	Err       error     // why it is not connected
	Version   string    // as the RDS last said it, such as "7.24.4 (stable)"
	Dialect   Dialect
}

// Status answers from memory.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Down answers at once why no command can be sent: the RDS was dialled since there was a connection, and that failed. Nil while there
// is a connection, and while nobody knows. It is for callers who have something better to do than to wait for a dial, as Run does;
// being asked, the client dials again as soon as if one waited.
func (c *Client) Down() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.away {
		return nil
	}
	c.want()
	return fmt.Errorf("%w: %w", ErrUnreachable, c.why())
}

// maxAttempts bounds how often a command is offered to a connection that dies before the command left.
const maxAttempts = 3

// Run sends one script and returns what it printed. It ends within ctx or Config.CommandTimeout, whichever is shorter.
// Every error is a *CommandError. Whether the script may have changed something is in its class: ErrOutcomeUnknown says
// maybe, ErrUnreachable, ErrUnsupportedVersion and ErrInvalid say no.
func (c *Client) Run(ctx context.Context, s Script) (Reply, error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CommandTimeout)
	defer cancel()
	reply, err := c.run(ctx, s)
	c.cfg.Observe(s.name, statusOf(err), time.Since(begun))
	if err != nil {
		return Reply{}, err
	}
	return reply, nil
}

func (c *Client) run(ctx context.Context, s Script) (Reply, error) {
	f := frameOf(s)
	if err := f.fits(s, c.cfg.MaxScriptBytes); err != nil {
		return Reply{}, c.failed(s, "", err)
	}
	for attempt := 1; ; attempt++ {
		answer, err := c.send(ctx, f)
		if errors.Is(err, ErrUnreachable) && errors.Is(err, errLost) && attempt < maxAttempts && ctx.Err() == nil {
			continue // nothing was sent; the next attempt waits for a new connection
		}
		if err != nil {
			return Reply{}, c.failed(s, "", err)
		}
		reply, text, err := f.read(answer)
		if errors.Is(err, ErrOutcomeUnknown) && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", err, context.Cause(ctx)) // it is the deadline that closed the channel
		}
		if err != nil || text != "" {
			return Reply{}, c.failed(s, text, err)
		}
		return reply, nil
	}
}

// send puts one framed script on the wire, on a connection that it waits for if it must.
func (c *Client) send(ctx context.Context, f frame) (answer, error) {
	conn, err := c.connection(ctx)
	if err != nil {
		return answer{}, err
	}
	return conn.exec(ctx, f.command)
}

func (c *Client) failed(s Script, text string, err error) error {
	return &CommandError{RDS: c.cfg.Name, Command: s.name, Text: shorten(text), Err: err}
}
