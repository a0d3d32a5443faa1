package routeros

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"
)

// ParseKeyFile reads the private key that the driver shows to the RDS. RouterOS takes ed25519 (7.12 and newer) and RSA
// user keys and refuses ECDSA ones [R], which is said here, where it can be understood.
func ParseKeyFile(file string) (ssh.Signer, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("private key %s is protected by a passphrase, which nobody could type for a driver: use a key without one", file)
	case err != nil && isPublicKey(pem):
		return nil, fmt.Errorf("private key %s holds a public key: give the file without .pub", file)
	case err != nil:
		return nil, fmt.Errorf("private key %s: %w", file, err)
	}
	if t := signer.PublicKey().Type(); t != ssh.KeyAlgoED25519 && t != ssh.KeyAlgoRSA {
		return nil, fmt.Errorf("private key %s is of type %s, RouterOS takes only ed25519 and RSA", file, t)
	}
	return signer, nil
}

func isPublicKey(text []byte) bool {
	_, _, _, _, err := ssh.ParseAuthorizedKey(text)
	return err == nil
}
