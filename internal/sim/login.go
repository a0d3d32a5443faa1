package sim

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// account splits a login name: what follows a plus sets up a terminal, "admin+cet512w" is admin at 512 columns [S].
func account(login string) (name string, width int) {
	name, suffix, _ := strings.Cut(login, "+")
	width = execWidth
	digits := ""
	for _, c := range suffix {
		switch {
		case c >= '0' && c <= '9':
			digits += string(c)
		case c == 'w':
			if n, err := strconv.Atoi(digits); err == nil && n >= 40 && n <= 4096 {
				width = n
			}
			digits = ""
		default:
			digits = ""
		}
	}
	return name, width
}

// keyOf tells whether a key logs a user in. The policy ssh is needed for any login by SSH [V].
func (d *Device) keyOf(login string, key ssh.PublicKey) bool {
	name, _ := account(login)
	return d.Allowed(name, "ssh") && slices.ContainsFunc(d.users[name].Keys, func(k ssh.PublicKey) bool {
		return bytes.Equal(k.Marshal(), key.Marshal())
	})
}

// passwordOf tells whether a password does. Once a user has a key it does not [V].
func (d *Device) passwordOf(login string, password []byte) bool {
	name, _ := account(login)
	u := d.users[name]
	return d.Allowed(name, "ssh") && len(u.Keys) == 0 && u.Password != "" &&
		subtle.ConstantTimeCompare([]byte(u.Password), password) == 1
}

// HostKey is the key that the device shows.
func (d *Device) HostKey() ssh.PublicKey { return d.hostKey.PublicKey() }

// deviceKey reads or makes the default host key, RSA of 2048 bits [R].
func deviceKey(file string) (ssh.Signer, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
		if data = pem.EncodeToMemory(block); os.WriteFile(file, data, 0o600) != nil {
			return nil, fmt.Errorf("write the host key %s", file)
		}
	} else if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("host key %s: %w", file, err)
	}
	return signer, nil
}

func sortedNames(users map[string]User) []string { return slices.Sorted(maps.Keys(users)) }
