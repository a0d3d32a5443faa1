//go:build kernel

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"sync"

	"github.com/rds-csi/rds-csi/test/guest/wire"
)

// Where the second machine answers the first: the agent, and the node plugin's socket.
const (
	agentAddress  = wire.SecondAddress + ":7001"
	pluginAddress = wire.SecondAddress + ":7002"

	pluginSocket = "/run/node-b.sock"
	pluginConfig = "/etc/node-b.yaml"
	driverName   = "rds.csi.test"
)

// Agent is what the second machine runs: the node plugin of node-b, the program itself, and what a test asks for beside it. A
// plugin that ends takes the agent with it, and the run fails.
type Agent struct {
	mu   sync.Mutex
	open map[string]*direct // raw devices, held as a hypervisor holds them
}

func serveAgent() error {
	if err := os.WriteFile(pluginConfig, []byte("driverName: "+driverName+"\nclusterID: "+clusterID+"\n"), 0o600); err != nil {
		return err
	}
	ended := make(chan error, 3)
	go func() { ended <- runPlugin() }()
	go func() {
		ended <- serveTCP(pluginAddress, func(from net.Conn) {
			to, err := net.Dial("unix", pluginSocket)
			if err != nil {
				_ = from.Close() // not there yet: gRPC tries again
				return
			}
			join(from, to)
		})
	}()
	server := rpc.NewServer()
	if err := server.Register(&Agent{open: map[string]*direct{}}); err != nil {
		return err
	}
	go func() { ended <- serveTCP(agentAddress, func(c net.Conn) { server.ServeConn(c) }) }()
	return <-ended
}

func runPlugin() error {
	cmd := exec.Command("rds-csi", "node", "--config", pluginConfig, "--endpoint", "unix://"+pluginSocket, "--node-id", nodeB)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return fmt.Errorf("the node plugin ended: %w", errors.Join(cmd.Run(), io.EOF))
}

func serveTCP(address string, serve func(net.Conn)) error {
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	for {
		c, err := listener.Accept()
		if err != nil {
			return err
		}
		go serve(c)
	}
}

// join passes everything on, both ways.
func join(a, b net.Conn) {
	go func() { _, _ = io.Copy(a, b); _ = a.Close() }()
	_, _ = io.Copy(b, a)
	_ = b.Close()
}

// Command is a program to run.
type Command struct {
	Args  []string
	Stdin []byte
	Stay  bool // go on while it runs
}

// Run gives what it printed; the error has that too.
func (*Agent) Run(c Command, out *[]byte) error {
	cmd := exec.CommandContext(context.Background(), c.Args[0], c.Args[1:]...)
	cmd.Stdin = bytes.NewReader(c.Stdin)
	if c.Stay {
		return cmd.Start()
	}
	var err error
	if *out, err = cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", c.Args, err, *out)
	}
	return nil
}

// Device is a raw device to open; Access is a flag of open(2).
type Device struct {
	Path   string
	Access int
}

// Blocks is a piece of a raw device.
type Blocks struct {
	Path   string
	Offset int64
	Data   []byte // to write, or as long as what is to be read
}

// Open opens a raw device until it is closed.
func (a *Agent) Open(o Device, _ *struct{}) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	d, err := newDirect(o.Path, o.Access)
	if err == nil {
		a.open[o.Path] = d
	}
	return err
}

// Close closes a raw device.
func (a *Agent) Close(path string, _ *struct{}) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	d, ok := a.open[path]
	if !ok {
		return os.ErrClosed
	}
	delete(a.open, path)
	return d.Close()
}

// Write writes past the page cache.
func (a *Agent) Write(b Blocks, n *int) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*n, err = a.open[b.Path].WriteAt(b.Data, b.Offset)
	return err
}

// Read reads past the page cache.
func (a *Agent) Read(b Blocks, data *[]byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	*data = b.Data
	_, err := a.open[b.Path].ReadAt(*data, b.Offset)
	return err
}

// PowerOff never answers: when the agent has ended, the machine is switched off as by its plug, with everything that is
// mounted, connected and running. Then it is switched on again.
func (*Agent) PowerOff(struct{}, *struct{}) error {
	os.Exit(0)
	return nil
}
