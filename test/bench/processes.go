package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// process is a child that is ended with SIGTERM.
type process struct{ cmd *exec.Cmd }

func (p process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// simulator is a running rds-sim.
type simulator struct {
	process
	address, dir, fingerprint string
}

// startSimulator starts rds-sim on a free port and waits until it has announced itself on standard output.
func startSimulator(ctx context.Context, binary, dir string) (*simulator, error) {
	address, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "--ssh-address", address, "--data", dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &simulator{process: process{cmd}, address: address, dir: dir}
	if err := awaitLine(stdout, "pool:"); err != nil {
		s.stop()
		return nil, fmt.Errorf("rds-sim: %w", err)
	}
	if s.fingerprint, err = fingerprint(filepath.Join(dir, "known_hosts")); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// awaitLine reads until a line holds the text, and goes on reading in the background so that the writer never blocks.
func awaitLine(r io.Reader, text string) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			go func() { _, _ = io.Copy(io.Discard, r) }()
			return nil
		}
	}
	return fmt.Errorf("ended before it printed %q", text)
}

func freePort(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// fingerprint pins the simulator's key for the proxy's address too.
func fingerprint(knownHosts string) (string, error) {
	data, err := os.ReadFile(knownHosts)
	if err != nil {
		return "", err
	}
	_, _, key, _, _, err := ssh.ParseKnownHosts(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", knownHosts, err)
	}
	return ssh.FingerprintSHA256(key), nil
}

// processorTime is what the process has used so far, in steps of 10 ms (proc_pid_stat(5): fields 14 and 15, of 1/100 s).
func (p process) processorTime() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // the name before may hold anything
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", p.cmd.Process.Pid, text)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// controller is a running rds-csi controller and a connection to it.
type controller struct {
	process
	conn *grpc.ClientConn
	csi  csi.ControllerClient
}

const driverConfig = `clusterID: bench
rds:
  - name: sim
    address: %s
    user: csi
    privateKeyFile: %s
    hostKeyFingerprint: %s
    nvme: { address: 127.0.0.1 }
    pool: { path: /storage-pool/k8s }
`

// startController starts the driver against the simulator as seen through the proxy, and waits until it is ready.
func startController(ctx context.Context, binary, dir string, sim *simulator, rds string) (*controller, error) {
	file, socket := filepath.Join(dir, "driver.yaml"), filepath.Join(dir, "csi.sock")
	text := fmt.Sprintf(driverConfig, rds, filepath.Join(sim.dir, "keys", "csi"), sim.fingerprint)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "controller.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, binary, "controller", "--config", file, "--endpoint", "unix://"+socket, "--metrics-address", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &controller{process: process{cmd}}
	if err := c.dial(ctx, socket); err != nil {
		c.stop()
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w; the controller said:\n%s", err, said)
	}
	return c, nil
}

// dial connects and waits for the driver's own word that it can serve.
func (c *controller) dial(ctx context.Context, socket string) error {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	c.conn, c.csi = conn, csi.NewControllerClient(conn)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
		if err == nil && r.GetReady().GetValue() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the controller is not ready after 30 s: %v, %w", r.GetReady(), err)
		case <-tick.C:
		}
	}
}

func (c *controller) stop() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.process.stop()
}
