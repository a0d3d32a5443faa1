//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Where the simulated RDS is, and what it makes in its folder at its first start.
const (
	rdsAddress = "127.0.0.1:2222"
	rdsFolder  = "/var/lib/rds-sim"
	rdsName    = "sim" // in the configuration that it prints
	poolImage  = "/tmp/pool.img"
)

// appliance is the administrator's way to the RDS: plain SSH to its console. It knows nothing of the driver.
type appliance struct{ config, adminKey, knownHosts string }

func newAppliance() *appliance {
	return &appliance{
		config:     filepath.Join(rdsFolder, "driver.yaml"),
		adminKey:   filepath.Join(rdsFolder, "keys", "admin"),
		knownHosts: filepath.Join(rdsFolder, "known_hosts"),
	}
}

// makePool gives the simulated RDS a Btrfs for its folder, as a real one has for its pool: there snapshots share blocks.
func (d *demo) makePool(ctx context.Context) error {
	if err := os.MkdirAll(rdsFolder, 0o750); err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(poolImage, nil, 0o600), os.Truncate(poolImage, 8<<30)); err != nil {
		return err
	}
	for _, words := range [][]string{{"mkfs.btrfs", "-q", poolImage}, {"mount", "-o", "loop", poolImage, rdsFolder}} {
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, out)
		}
	}
	d.say("the pool of the RDS is a Btrfs, mounted at %s", rdsFolder)
	return nil
}

// console runs one command as admin and gives what the RDS printed.
func (a *appliance) console(ctx context.Context, command string) (string, error) {
	client, err := a.dial(ctx)
	if err != nil {
		return "", fmt.Errorf("log in to the RDS: %w", err)
	}
	defer func() { _ = client.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	out, err := session.CombinedOutput(command)
	var died *ssh.ExitMissingError
	if errors.As(err, &died) {
		err = nil // a reboot ends the session without a status
	}
	return string(out), err
}

func (a *appliance) dial(ctx context.Context) (*ssh.Client, error) {
	key, err := os.ReadFile(a.adminKey)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return nil, err
	}
	pinned, err := knownhosts.New(a.knownHosts)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", rdsAddress)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c, channels, requests, err := ssh.NewClientConn(conn, rdsAddress, &ssh.ClientConfig{
		User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: pinned,
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return ssh.NewClient(c, channels, requests), nil
}
