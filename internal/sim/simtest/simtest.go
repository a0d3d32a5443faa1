// Package simtest starts a simulated RDS for a test and takes it away when the test ends.
package simtest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/rds-csi/rds-csi/internal/sim"
)

// Server is a device that answers SSH on a loopback port.
type Server struct {
	Device             *sim.Device
	Dir                string
	Address            string // host:port
	HostKey            ssh.PublicKey
	HostKeyFingerprint string // SHA256:...
	KnownHostsFile     string
	Signer             ssh.Signer // of user csi
	ClientKeyFile      string
	AdminSigner        ssh.Signer // of user admin
	AdminKeyFile       string

	stop func()
}

// Start starts a device. Unset options get defaults fit for a test: a temporary directory, users csi and admin with
// fresh keys, an ed25519 host key. Users given replace these two, and then the signers belong to nobody.
func Start(tb testing.TB, o sim.Options) *Server {
	tb.Helper()
	keys := tb.TempDir()
	s := &Server{ClientKeyFile: filepath.Join(keys, "csi"), AdminKeyFile: filepath.Join(keys, "admin")}
	s.Signer, s.AdminSigner = newKey(tb, s.ClientKeyFile), newKey(tb, s.AdminKeyFile)
	if o.HostKey == nil {
		o.HostKey = newKey(tb, filepath.Join(keys, "host"))
	}
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	if o.Users == nil {
		o.Users = []sim.User{sim.CSIUser(s.Signer.PublicKey()), sim.AdminUser(s.AdminSigner.PublicKey())}
	}
	s.Dir, s.HostKey = o.Dir, o.HostKey.PublicKey()
	s.HostKeyFingerprint = ssh.FingerprintSHA256(s.HostKey)
	device, err := sim.New(o)
	if err != nil {
		tb.Fatalf("start the simulator: %v", err)
	}
	s.Device = device
	s.serve(tb)
	s.KnownHostsFile = filepath.Join(keys, "known_hosts")
	line := knownhosts.Line([]string{s.Address}, s.HostKey) + "\n"
	if err := os.WriteFile(s.KnownHostsFile, []byte(line), 0o600); err != nil {
		tb.Fatal(err)
	}
	return s
}

// Stop takes the device away before the test ends, as pulling its plug does not: exports are withdrawn in order.
// Another Start with the same Dir brings it back at another address.
func (s *Server) Stop() { s.stop() }

func (s *Server) serve(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	s.Address = ln.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- s.Device.Serve(ctx, ln) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("the simulator ended: %v", err)
		}
		if err := s.Device.Close(); err != nil {
			tb.Errorf("close the simulator: %v", err)
		}
	}
	tb.Cleanup(s.stop)
}

// newKey makes an ed25519 key and writes it to a file as ssh-keygen does.
func newKey(tb testing.TB, file string) ssh.Signer {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return signer
}
