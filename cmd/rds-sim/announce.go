package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/rds-csi/rds-csi/internal/sim"
)

// keys are who may log in, and who the device is. host nil lets the device make its own.
type keys struct {
	csi, admin []ssh.PublicKey
	host       ssh.Signer
	csiFile    string // private, "" when it is the caller's
}

// prepareKeys reads the keys that were given and makes, or finds from an earlier run, those that were not.
func prepareKeys(s settings) (keys, error) {
	dir := filepath.Join(s.Data, "keys")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return keys{}, err
	}
	k := keys{}
	var err error
	if s.HostKey != "" {
		if k.host, err = readKey(s.HostKey); err != nil {
			return k, err
		}
	}
	if s.AuthorizedKeys != "" {
		k.csi, err = readAuthorizedKeys(s.AuthorizedKeys)
		k.admin = k.csi
		return k, err
	}
	k.csiFile = filepath.Join(dir, "csi")
	csi, err := findOrMakeKey(k.csiFile)
	if err != nil {
		return k, err
	}
	admin, err := findOrMakeKey(filepath.Join(dir, "admin"))
	if err != nil {
		return k, err
	}
	k.csi, k.admin = []ssh.PublicKey{csi.PublicKey()}, []ssh.PublicKey{admin.PublicKey()}
	return k, nil
}

func readKey(file string) (ssh.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return signer, nil
}

// findOrMakeKey makes an ed25519 key pair in files like those of ssh-keygen, unless it is there.
func findOrMakeKey(file string) (ssh.Signer, error) {
	signer, err := readKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return signer, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "rds-sim "+filepath.Base(file))
	if err != nil {
		return nil, err
	}
	if signer, err = ssh.NewSignerFromKey(private); err != nil {
		return nil, err
	}
	return signer, errors.Join(
		os.WriteFile(file, pem.EncodeToMemory(block), 0o600),
		os.WriteFile(file+".pub", ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o600),
	)
}

func readAuthorizedKeys(file string) ([]ssh.PublicKey, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []ssh.PublicKey
	for len(bytes.TrimSpace(rest)) > 0 {
		var key ssh.PublicKey
		if key, _, _, rest, err = ssh.ParseAuthorizedKey(rest); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		list = append(list, key)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: no key in it", file)
	}
	return list, nil
}

// driverConfig is a configuration with which the driver finds this device.
const driverConfig = `# For rds-csi. Made by rds-sim; a clusterID tells the volumes of one cluster from those of another.
clusterID: rds-sim
rds:
  - name: sim
    default: true
    address: %s
    user: csi
    privateKeyFile: %s
    knownHostsFile: %s
    nvme: { address: %s, port: %d }
    pool: { path: /%s/k8s }
`

// announce writes known_hosts, and the driver's configuration to DATA/driver.yaml and to stdout. Where the caller
// brought the keys of users, the driver's private key is not known here: then there is no configuration.
func announce(s settings, k keys, device *sim.Device, at net.Addr, stdout io.Writer) error {
	address, err := reachable(at)
	if err != nil {
		return err
	}
	known := filepath.Join(s.Data, "known_hosts")
	line := knownhosts.Line([]string{address}, device.HostKey()) + "\n"
	if err := os.WriteFile(known, []byte(line), 0o600); err != nil { //nolint:gosec // --data is the caller's to choose
		return err
	}
	if k.csiFile == "" {
		return nil
	}
	nvme, pool := "127.0.0.1", sim.DefaultPools()[0].Slot
	if s.NVMeAddress != "" {
		nvme = s.NVMeAddress
	}
	if len(s.pools) > 0 {
		pool = s.pools[0].Slot
	}
	text := fmt.Sprintf(driverConfig, quote(address), quote(k.csiFile), quote(known), quote(nvme), s.NVMePort, pool)
	if err := os.WriteFile(filepath.Join(s.Data, "driver.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	_, err = io.WriteString(stdout, text)
	return err
}

// reachable is an address that a driver on this machine can use.
func reachable(at net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// quote writes a YAML string that any path and any IPv6 address fits in.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
