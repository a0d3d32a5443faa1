package routeros

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func rsaSigner(t *testing.T) ssh.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestKnownHosts(t *testing.T) {
	ed, other := newSigner(t).PublicKey(), newSigner(t).PublicKey()
	rsaKey := rsaSigner(t).PublicKey()
	rsaAlgorithms := []string{"rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"}
	tests := map[string]struct {
		file, address string
		accepted      ssh.PublicKey
		algorithms    []string
	}{
		"standard port": {knownhosts.Line([]string{"rds.test"}, ed), "rds.test:22", ed, []string{"ssh-ed25519"}},
		"other port":    {knownhosts.Line([]string{"[rds.test]:2222"}, ed), "rds.test:2222", ed, []string{"ssh-ed25519"}},
		"address":       {knownhosts.Line([]string{"10.42.241.3"}, rsaKey), "10.42.241.3:22", rsaKey, rsaAlgorithms},
		"hashed":        {knownhosts.Line([]string{knownhosts.HashHostname("rds.test")}, ed), "rds.test:22", ed, []string{"ssh-ed25519"}},
		"two keys": {
			knownhosts.Line([]string{"rds.test"}, ed) + "\n" + knownhosts.Line([]string{"rds.test"}, rsaKey), "rds.test:22", rsaKey,
			append([]string{"ssh-ed25519"}, rsaAlgorithms...),
		},
		"among others": {knownhosts.Line([]string{"x"}, other) + "\n" + knownhosts.Line([]string{"rds.test"}, ed), "rds.test:22", ed, []string{"ssh-ed25519"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			key, err := KnownHosts(file(t, tt.file+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			p, err := key.pin(tt.address)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(p.algorithms, tt.algorithms) {
				t.Errorf("algorithms %v, want %v", p.algorithms, tt.algorithms)
			}
			remote := end{}.RemoteAddr()
			if err := p.check(tt.address, remote, tt.accepted); err != nil {
				t.Error(err)
			}
			if err := p.check(tt.address, remote, other); err == nil || !strings.Contains(err.Error(), ssh.FingerprintSHA256(other)) {
				t.Errorf("another key: %v", err)
			}
		})
	}
}

func TestHostKeysThatPinNothing(t *testing.T) {
	if _, err := KnownHosts(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing known_hosts file was accepted")
	}
	if _, err := KnownHosts(file(t, "not a line\n")); err == nil {
		t.Error("a broken known_hosts file was accepted")
	}
	for _, s := range []string{"", "SHA256:", "SHA256:abc", "MD5:" + strings.Repeat("a", 43), strings.Repeat("a", 43)} {
		if _, err := Fingerprint(s); err == nil {
			t.Errorf("fingerprint %q was accepted", s)
		}
	}
	unknown, err := KnownHosts(file(t, knownhosts.Line([]string{"other"}, newSigner(t).PublicKey())))
	if err != nil {
		t.Fatal(err)
	}
	good := Config{Name: "rds1", Address: testAddress, User: "csi", Password: "x"}
	for name, key := range map[string]HostKey{"none": {}, "no entry for the address": unknown} {
		cfg := good
		cfg.HostKey = key
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "rds1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewNeedsAWayToLogIn(t *testing.T) {
	pin, err := Fingerprint(ssh.FingerprintSHA256(newSigner(t).PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no key":  {Address: testAddress, HostKey: pin, User: "csi"},
		"no user": {Address: testAddress, HostKey: pin, Password: "x"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// What a real handshake makes of the pins: RSA as RouterOS comes with, and a key that is not the pinned one.
func TestPinnedHandshake(t *testing.T) {
	tests := map[string]struct {
		host func(*testing.T) ssh.Signer
		algo string // the only signature algorithm that the RDS makes
	}{
		"ed25519":             {func(t *testing.T) ssh.Signer { return newSigner(t) }, ssh.KeyAlgoED25519},
		"rsa with SHA-2":      {rsaSigner, ssh.KeyAlgoRSASHA256},
		"rsa with SHA-1 only": {rsaSigner, ssh.KeyAlgoRSA},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			host, err := ssh.NewSignerWithAlgorithms(tt.host(t).(ssh.AlgorithmSigner), []string{tt.algo})
			if err != nil {
				t.Fatal(err)
			}
			known := file(t, knownhosts.Line([]string{"rds.test"}, host.PublicKey())+"\n")
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.host = host
				mustRun(t, r.started(nil))
				mustRun(t, r.started(func(c *Config) {
					if c.HostKey, err = KnownHosts(known); err != nil {
						t.Fatal(err)
					}
				}))
				r.host = newSigner(t) // somebody in between
				c := r.client(nil)
				r.host = host
				c.Start(context.Background())
				_, err := c.Run(t.Context(), script(t, "disk_get"))
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), ssh.FingerprintSHA256(host.PublicKey())) {
					t.Errorf("err = %v", err)
				}
			})
		})
	}
}

func TestParseKeyFile(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	plain := func(block *pem.Block, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(block))
	}
	public := string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey()))
	tests := map[string]struct{ text, want string }{
		"rsa":        {plain(ssh.MarshalPrivateKey(small, "")), ""},
		"locked":     {plain(ssh.MarshalPrivateKeyWithPassphrase(small, "", []byte("x"))), "passphrase"},
		"ecdsa":      {plain(ssh.MarshalPrivateKey(ec, "")), "only ed25519 and RSA"},
		"public key": {public, "without .pub"},
		"nonsense":   {"x", "private key"},
		"empty":      {"", "private key"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			signer, err := ParseKeyFile(file(t, tt.text))
			switch {
			case tt.want == "" && (err != nil || signer == nil):
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := ParseKeyFile(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
