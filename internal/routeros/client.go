// Package routeros speaks to one RouterOS device over SSH: one connection with a pinned host key, a few channels
// opened ahead, scripts built without string concatenation, and replies that prove what happened.
package routeros

import (
	"context"
	"errors"
	"log/slog"
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
	MaxScriptBytes int  // longest command sent; default 8 KiB
	MaxReplyBytes  int  // longest reply read; default 64 MiB

	DialTimeout    time.Duration // TCP, handshake and version check together; default 10 s
	CommandTimeout time.Duration // ceiling for every command, whatever its context says; default 30 s
	KeepAlive      time.Duration // interval, and how long the reply may take; default 10 s

	// Observe is told about every command: ok, not_found, exists, no_space, permission, syntax, unknown, unreachable or error.
	Observe func(command, status string, took time.Duration)
	Logger  *slog.Logger
}

// Status is what is known of the RDS without asking it.
type Status struct {
	Connected bool      // commands can be sent now
	Since     time.Time // when Connected last changed
	Err       error     // why it is not connected
	Version   string    // as the RDS last said it, such as "7.24.4 (stable)"
	Dialect   Dialect
}

// Client is one RDS. Its methods may be called from many goroutines.
type Client struct {
	cfg Config
}

// New checks the configuration. It does no I/O; Start does.
func New(cfg Config) (*Client, error) { return &Client{cfg: cfg}, nil }

// Start connects in the background and stays connected until ctx ends or Close is called.
func (c *Client) Start(ctx context.Context) {}

// Run sends one script and returns what it printed.
func (c *Client) Run(ctx context.Context, s Script) (Reply, error) {
	return Reply{}, errors.ErrUnsupported
}

// Status answers from memory.
func (c *Client) Status() Status { return Status{} }

// Close ends the connection and waits for every goroutine of the client.
func (c *Client) Close() error { return nil }
