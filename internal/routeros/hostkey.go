package routeros

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// HostKey says which host key the RDS must show. The zero value accepts none.
type HostKey struct {
	pin func(address string) (pinned, error)
}

// pinned is what a HostKey means for one address.
type pinned struct {
	check      ssh.HostKeyCallback
	algorithms []string
}

// KnownHosts pins the keys that an OpenSSH known_hosts file has for the RDS's address.
func KnownHosts(file string) (HostKey, error) {
	check, err := knownhosts.New(file)
	if err != nil {
		return HostKey{}, fmt.Errorf("known hosts file: %w", err)
	}
	return HostKey{pin: func(address string) (pinned, error) {
		keys, err := knownKeys(check, address)
		if err != nil {
			return pinned{}, fmt.Errorf("known hosts file %s: %w", file, err)
		}
		return pinned{check: explain(check, file), algorithms: algorithmsOf(keys)}, nil
	}}, nil
}

// Fingerprint pins one key by its fingerprint, "SHA256:..." as ssh-keygen -l prints it.
func Fingerprint(fingerprint string) (HostKey, error) {
	sum, ok := strings.CutPrefix(fingerprint, "SHA256:")
	if !ok || len(sum) != 43 { // 32 bytes in base64 without padding
		return HostKey{}, fmt.Errorf("host key fingerprint %q: want SHA256: and 43 characters, as `ssh-keygen -l` prints it", fingerprint)
	}
	check := func(_ string, _ net.Addr, key ssh.PublicKey) error {
		if got := ssh.FingerprintSHA256(key); got != fingerprint {
			return fmt.Errorf("the RDS shows the %s host key %s, the configuration pins %s", key.Type(), got, fingerprint)
		}
		return nil
	}
	return HostKey{pin: func(string) (pinned, error) {
		return pinned{check: check, algorithms: allAlgorithms()}, nil
	}}, nil
}

// knownKeys lists the keys that check accepts for address. The library has no such question, but refusing a key
// that nobody has names the ones it would have liked.
func knownKeys(check ssh.HostKeyCallback, address string) ([]ssh.PublicKey, error) {
	stranger, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	if err != nil {
		return nil, err
	}
	var refused *knownhosts.KeyError
	if err := check(address, &net.TCPAddr{IP: net.IPv4zero}, stranger); !errors.As(err, &refused) {
		return nil, fmt.Errorf("address %s: %w", address, err)
	}
	if len(refused.Want) == 0 {
		return nil, fmt.Errorf("no entry for %s: add what `ssh-keyscan` prints for it, after comparing it with the device's own key", knownhosts.Normalize(address))
	}
	keys := make([]ssh.PublicKey, len(refused.Want))
	for i, known := range refused.Want {
		keys[i] = known.Key
	}
	return keys, nil
}

// explain turns the library's refusals into messages that say what to compare.
func explain(check ssh.HostKeyCallback, file string) ssh.HostKeyCallback {
	return func(address string, remote net.Addr, key ssh.PublicKey) error {
		err := check(address, remote, key)
		if err == nil {
			return nil
		}
		return fmt.Errorf("the RDS shows the %s host key %s, which known hosts file %s does not have for %s: %w",
			key.Type(), ssh.FingerprintSHA256(key), file, knownhosts.Normalize(address), err)
	}
}

// algorithmsOf lists the host key algorithms to offer for keys: a device with several host keys must choose one that is pinned.
func algorithmsOf(keys []ssh.PublicKey) []string {
	return slices.DeleteFunc(allAlgorithms(), func(algorithm string) bool {
		return !slices.ContainsFunc(keys, func(key ssh.PublicKey) bool { return keyType(algorithm) == key.Type() })
	})
}

// allAlgorithms is every host key algorithm in the order of preference. RouterOS comes with an RSA 2048 key [R]; which
// signatures it makes with it is unknown [U], so SHA-1 (ssh-rsa) is offered too, last. The pin still decides which key is
// accepted, and RFC 8332 keeps an attacker from choosing the weaker signature for a device that offers the stronger.
func allAlgorithms() []string {
	return []string{
		ssh.KeyAlgoED25519,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSA,
	}
}

func keyType(algorithm string) string {
	if algorithm == ssh.KeyAlgoRSASHA256 || algorithm == ssh.KeyAlgoRSASHA512 {
		return ssh.KeyAlgoRSA
	}
	return algorithm
}
