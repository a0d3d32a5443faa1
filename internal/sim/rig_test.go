package sim_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline bounds whatever a test waits for.
const deadline = 20 * time.Second

// rig is a device with its two users logged in.
type rig struct {
	*simtest.Server
	tb    testing.TB
	csi   *ssh.Client
	admin *ssh.Client
}

func start(tb testing.TB, o sim.Options) *rig {
	tb.Helper()
	r := &rig{Server: simtest.Start(tb, o), tb: tb}
	r.csi = r.dial("csi", ssh.PublicKeys(r.Signer))
	r.admin = r.dial("admin", ssh.PublicKeys(r.AdminSigner))
	return r
}

func quirk(pairs ...string) sim.Options {
	o := sim.Options{Quirks: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		o.Quirks[pairs[i]] = pairs[i+1]
	}
	return o
}

func (r *rig) dial(user string, auth ...ssh.AuthMethod) *ssh.Client {
	r.tb.Helper()
	c, err := r.tryDial(user, auth...)
	if err != nil {
		r.tb.Fatalf("log in as %s: %v", user, err)
	}
	return c
}

func (r *rig) tryDial(user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	c, err := login(r.Server, user, deadline, auth...)
	if err == nil {
		r.tb.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// login logs in within a time: ssh.Dial would wait for ever for a device that accepts and says nothing.
func login(s *simtest.Server, user string, timeout time.Duration, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	raw, err := net.DialTimeout("tcp", s.Address, timeout)
	if err != nil {
		return nil, err
	}
	err = raw.SetDeadline(time.Now().Add(timeout))
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	conn, channels, requests, err := ssh.NewClientConn(raw, s.Address, &ssh.ClientConfig{
		User: user, Auth: auth, HostKeyCallback: ssh.FixedHostKey(s.HostKey),
	})
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// result is what came of one exec.
type result struct {
	out    string
	stderr string
	status int // -1: the channel died without one
	err    error
}

func execOn(c *ssh.Client, command string) result {
	s, err := c.NewSession()
	if err != nil {
		return result{status: -1, err: err}
	}
	defer s.Close() //nolint:errcheck // ended by then
	var out, stderr bytes.Buffer
	s.Stdout, s.Stderr = &out, &stderr
	err = s.Run(command)
	res := result{out: out.String(), stderr: stderr.String(), err: err}
	var exit *ssh.ExitError
	switch {
	case errors.As(err, &exit):
		res.status, res.err = exit.ExitStatus(), nil
	case err != nil:
		res.status = -1
	}
	return res
}

// run runs a command that must reach its end, as the administrator.
func (r *rig) run(command string) string {
	r.tb.Helper()
	res := execOn(r.admin, command)
	if res.err != nil || res.status != 0 || res.stderr != "" {
		r.tb.Fatalf("%s: status %d, stderr %q, %v", command, res.status, res.stderr, res.err)
	}
	return res.out
}

// ok runs a command that must print nothing, as a successful write does.
func (r *rig) ok(command string) {
	r.tb.Helper()
	if out := r.run(command); out != "" {
		r.tb.Fatalf("%s printed %q, want nothing", command, out)
	}
}

// fails runs a command that must print a text.
func (r *rig) fails(command, want string) {
	r.tb.Helper()
	if out := r.run(command); !strings.Contains(out, want) {
		r.tb.Fatalf("%s printed %q, want %q in it", command, out, want)
	}
}

// prints runs a command that must print one line.
func (r *rig) prints(command, want string) {
	r.tb.Helper()
	if out := r.run(command); out != want+"\r\n" {
		r.tb.Fatalf("%s printed %q, want %q", command, out, want)
	}
}

// add makes a volume as a driver does, below a directory that is made first.
func (r *rig) add(slot, more string) {
	r.tb.Helper()
	if _, ok := r.Device.File("storage-pool/k8s"); !ok {
		r.ok(`/file add name=storage-pool/k8s type=directory`)
	}
	r.ok(`/disk add type=file file-path="/storage-pool/k8s/` + slot + `.img" file-size=1073741824 slot="` + slot +
		`" mount-filesystem=no ` + more)
}

// within polls for what no event tells.
func within(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			tb.Fatalf("%s: not within %s", what, deadline)
		case <-tick.C:
		}
	}
}

func refused(address string) bool {
	c, err := (&net.Dialer{Timeout: deadline}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return true
	}
	_ = c.Close()
	return false
}
