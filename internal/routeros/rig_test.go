package routeros

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testAddress = "rds.test:22"

// rig is a scripted RDS on the other side of links: it answers what the test tells it to, and counts. The exact rules of the
// console are the simulator's business.
type rig struct {
	tb      testing.TB
	host    ssh.Signer
	latency time.Duration

	mu       sync.Mutex
	refuse   error                                 // what a dial comes to, when not nil
	mute     bool                                  // a dial succeeds and nobody speaks
	deaf     atomic.Bool                           // requests to execute are refused
	version  string                                // what /system/resource says
	reply    func(command string) string           // what other commands print; nil: only the ok marker
	exec     func(s *session, command string) bool // true: the test has dealt with the command itself
	open     func(c ssh.NewChannel, before int) bool
	links    []*link
	dials    int
	opens    int // channels asked for
	most     int // the most that were open or asked for at once
	commands []string
	sessions []*session
	wg       sync.WaitGroup
}

func newSigner(tb testing.TB) ssh.Signer {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return signer
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{tb: tb, host: newSigner(tb), version: "7.24.4 (stable)"}
	tb.Cleanup(func() {
		r.cut()
		r.wg.Wait()
	})
	return r
}

// client makes a client of the rig, not started.
func (r *rig) client(change func(*Config)) *Client {
	r.tb.Helper()
	pin, err := Fingerprint(ssh.FingerprintSHA256(r.host.PublicKey()))
	if err != nil {
		r.tb.Fatal(err)
	}
	cfg := Config{Name: "rds1", Address: testAddress, User: "csi", Signers: []ssh.Signer{newSigner(r.tb)}, HostKey: pin}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		r.tb.Fatal(err)
	}
	c.dial = r.dial
	r.tb.Cleanup(func() { _ = c.Close() })
	return c
}

// started makes a client and starts it.
func (r *rig) started(change func(*Config)) *Client {
	c := r.client(change)
	c.Start(context.Background())
	return c
}

func (r *rig) dial(context.Context) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dials++
	if r.refuse != nil {
		return nil, r.refuse
	}
	l := newLink(r.latency)
	r.links = append(r.links, l)
	if r.mute {
		return l.clientEnd(), nil
	}
	r.wg.Go(func() { r.serve(l.serverEnd()) })
	return l.clientEnd(), nil
}

// with changes the rig's behaviour.
func (r *rig) with(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// cut ends every connection there is.
func (r *rig) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		l.cut()
	}
	r.links = nil
}

// silence makes every connection there is half-open.
func (r *rig) silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		l.silence()
	}
}

func (r *rig) counts() (dials, opens, commands int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dials, r.opens, len(r.commands)
}

// mostChannels is the most channels that were open on one connection at once.
func (r *rig) mostChannels() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most
}

func (r *rig) serve(c net.Conn) {
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return &ssh.Permissions{}, nil }}
	cfg.AddHostKey(r.host)
	sc, channels, requests, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	defer func() { _ = sc.Close() }()
	r.wg.Go(func() { ssh.DiscardRequests(requests) }) // refuses keepalives, as RouterOS does
	var own []*session
	for asked := range channels {
		own = r.consider(asked, own)
	}
}

// consider counts a channel that is asked for, against those of its connection that both sides have not closed yet.
func (r *rig) consider(asked ssh.NewChannel, own []*session) []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := 0
	for _, s := range own {
		if !s.over() {
			before++
		}
	}
	r.opens++
	r.most = max(r.most, before+1)
	known := len(r.sessions)
	if r.open == nil || !r.open(asked, before) {
		r.accept(asked)
	}
	return append(own, r.sessions[known:]...)
}

// accept opens a channel. It is called with the lock held.
func (r *rig) accept(asked ssh.NewChannel) *session {
	ch, requests, err := asked.Accept()
	if err != nil {
		return nil
	}
	s := &session{rig: r, Channel: ch, requests: requests}
	r.sessions = append(r.sessions, s)
	r.wg.Go(func() {
		for req := range requests {
			s.handle(req)
		}
	})
	return s
}

// session is a channel on the side of the RDS.
type session struct {
	ssh.Channel
	rig      *rig
	requests <-chan *ssh.Request
	mu       sync.Mutex
	ended    bool // we closed it
}

// over reports whether both sides have closed the channel. The library queues a new channel only after it has dealt with the
// close that came before it, so looking into the queue tells the truth of that moment.
func (s *session) over() bool {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	for ended {
		select {
		case req, ok := <-s.requests:
			if !ok {
				return true
			}
			s.handle(req)
		default:
			return false
		}
	}
	return false
}

func (s *session) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	_ = s.Close()
}

func (s *session) handle(req *ssh.Request) {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	var exec struct{ Command string }
	if ended { // nobody is at home
		return
	}
	if s.rig.deaf.Load() || req.Type != "exec" || ssh.Unmarshal(req.Payload, &exec) != nil {
		_ = req.Reply(false, nil)
		return
	}
	s.rig.wg.Go(func() { s.run(req, exec.Command) })
}

func (s *session) run(req *ssh.Request, command string) {
	r := s.rig
	r.mu.Lock()
	isVersion := strings.HasPrefix(command, ":put [/system resource get version]")
	reply, exec, version := r.reply, r.exec, r.version
	if !isVersion {
		r.commands = append(r.commands, command)
	}
	r.mu.Unlock()
	ok, _ := marks(command)
	switch {
	case isVersion:
		_ = req.Reply(true, nil)
		s.print(version + "\r\n" + ok + "\r\n")
	case exec != nil && exec(s, command):
		return
	case reply != nil:
		_ = req.Reply(true, nil)
		s.print(reply(command))
	default:
		_ = req.Reply(true, nil)
		s.print(ok + "\r\n")
	}
	s.finish()
}

func (s *session) print(text string) { _, _ = s.Write([]byte(text)) }

// finish ends a command as RouterOS does: exit status 0, whatever happened.
func (s *session) finish() {
	_, _ = s.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
	s.end()
}

// marks finds the lines that prove a framed command's success and failure.
func marks(command string) (ok, fail string) {
	find := func(mark string) string {
		_, rest, found := strings.Cut(command, `("`+mark+`" . "`)
		if !found {
			return ""
		}
		nonce, _, _ := strings.Cut(rest, `"`)
		return mark + nonce
	}
	return find(okMark), find(failMark)
}

// script is a script of one statement.
func script(tb testing.TB, name code) Script {
	tb.Helper()
	s, err := NewScript(name).Add(`/disk print`).Build()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

var errRefusedDial = errors.New("connect: connection refused")
