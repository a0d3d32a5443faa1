package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// loginTime is how long a connection may take to log in.
const loginTime = 30 * time.Second

// Serve answers SSH on the listener until ctx ends; by then all connections are closed and no command runs. A reboot
// closes the listener, so that connections are refused meanwhile, and opens it again at the same address.
func (d *Device) Serve(ctx context.Context, ln net.Listener) error {
	defer d.power.finish()
	for {
		if err := d.serve(ctx, ln); err != nil {
			return err
		}
		select {
		case <-d.power.isOn():
		case <-ctx.Done():
		}
		if ln = listenAgain(ctx, ln.Addr()); ln == nil {
			return nil
		}
	}
}

// listenAgain takes the old address back. Somebody may have it for a moment, as the local end of a connection. It
// returns nil when ctx ends before.
func listenAgain(ctx context.Context, at net.Addr) net.Listener {
	for ctx.Err() == nil {
		ln, err := (&net.ListenConfig{}).Listen(ctx, at.Network(), at.String())
		if err == nil {
			return ln
		}
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}

// server is what the connections of one service share.
type server struct {
	d      *Device
	config *ssh.ServerConfig
	work   sync.WaitGroup

	mu   sync.Mutex
	open int // connections
}

// serve answers until ctx ends or the device reboots.
func (d *Device) serve(ctx context.Context, ln net.Listener) error {
	run, stop := context.WithCancel(ctx)
	defer stop()
	me := &service{stop: stop, gone: make(chan struct{})}
	defer close(me.gone)
	s := &server{d: d, config: d.sshConfig()}
	defer s.work.Wait()
	defer stop()
	defer ln.Close() //nolint:errcheck // twice as a rule: below, so that Accept returns
	defer context.AfterFunc(run, func() { _ = ln.Close() })()
	d.power.begin(me)
	for {
		conn, err := ln.Accept()
		if run.Err() != nil {
			if err == nil {
				err = conn.Close()
			}
			d.log.DebugContext(ctx, "no longer answering", "reason", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept SSH connections on %s: %w", ln.Addr(), err)
		}
		d.journal.connection()
		s.work.Go(func() { s.handle(run, conn) })
	}
}

// handle runs one TCP connection to its end.
func (s *server) handle(ctx context.Context, raw net.Conn) {
	defer raw.Close() //nolint:errcheck // whatever is to be known about it is known by then
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	if s.d.faults.connection() {
		_, _ = io.Copy(io.Discard, raw) // not even a banner, until the other side gives up
		return
	}
	if !s.enter() { // [U] what one session too many gets; here: nothing
		s.d.log.InfoContext(ctx, "too many sessions", "from", raw.RemoteAddr())
		return
	}
	defer s.leave()
	if err := raw.SetDeadline(time.Now().Add(loginTime)); err != nil {
		return
	}
	conn, channels, requests, err := ssh.NewServerConn(raw, s.config)
	if err != nil {
		s.d.log.InfoContext(ctx, "login failure via ssh", "from", raw.RemoteAddr(), "error", err)
		return
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return
	}
	s.d.log.InfoContext(ctx, "user logged in via ssh", "user", conn.User(), "from", raw.RemoteAddr())
	newConnection(s, raw, conn).run(ctx, channels, requests)
	s.d.log.InfoContext(ctx, "user logged out via ssh", "user", conn.User(), "from", raw.RemoteAddr())
}

func (s *server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= s.d.quirks.number(quirkMaxSessions) {
		return false
	}
	s.open++
	return true
}

func (s *server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
}

// sshConfig is a server like the device's: its banner, one host key, RSA and ed25519 keys of users [R].
func (d *Device) sshConfig() *ssh.ServerConfig {
	c := &ssh.ServerConfig{
		ServerVersion:           "SSH-2.0-ROSSSH",
		PublicKeyAuthAlgorithms: []string{ssh.KeyAlgoED25519, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512},
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if d.keyOf(c.User(), key) {
				return nil, nil //nolint:nilnil // no restrictions
			}
			return nil, errors.New("unknown user or key")
		},
		PasswordCallback: func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			if d.passwordOf(c.User(), password) {
				return nil, nil //nolint:nilnil // no restrictions
			}
			return nil, errors.New("unknown user or password")
		},
	}
	c.AddHostKey(d.hostKey)
	return c
}
