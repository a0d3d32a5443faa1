package simtest_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func put(t *testing.T, s *simtest.Server, user string, key ssh.Signer, pin ssh.HostKeyCallback) string {
	t.Helper()
	c, err := ssh.Dial("tcp", s.Address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: pin,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.Output(`:put [/system identity get name]`)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestStartGivesAllThatAClientNeeds(t *testing.T) {
	s := simtest.Start(t, sim.Options{Identity: "rds7"})
	known, err := knownhosts.New(s.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	for user, file := range map[string]string{"csi": s.ClientKeyFile, "admin": s.AdminKeyFile} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ssh.ParsePrivateKey(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := put(t, s, user, key, known); got != "rds7\r\n" {
			t.Errorf("as %s: %q", user, got)
		}
	}
	if got := ssh.FingerprintSHA256(s.HostKey); got != s.HostKeyFingerprint {
		t.Errorf("fingerprint %s, want %s", s.HostKeyFingerprint, got)
	}
	if got := put(t, s, "csi", s.Signer, ssh.FixedHostKey(s.HostKey)); got != "rds7\r\n" {
		t.Errorf("with the signer: %q", got)
	}
}

func TestStopAndStartAgainIsTheSameDevice(t *testing.T) {
	first := simtest.Start(t, sim.Options{Identity: "rds7"})
	first.Stop()
	if _, err := ssh.Dial("tcp", first.Address, &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(first.HostKey)}); err == nil {
		t.Error("it still answers")
	}
	second := simtest.Start(t, sim.Options{Dir: first.Dir, Identity: "another"}) // the flash wins over the default
	if got := put(t, second, "csi", second.Signer, ssh.FixedHostKey(second.HostKey)); got != "rds7\r\n" {
		t.Errorf("after a restart: %q", got)
	}
	first.Stop() // twice is once
}
