//go:build kernel

package kernel

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// second is the other machine: a kernel of its own, with the node plugin of node-b.
type second struct {
	host
	t     *testing.T
	agent *rpc.Client
	dir   string
}

// newSecond waits until the machine is up. After a failure it is switched off, so that the next test finds it clean.
func newSecond(t *testing.T) *second {
	t.Helper()
	b := &second{t: t, agent: dialAgent(t), dir: "/var/lib/" + strings.ReplaceAll(t.Name(), "/", "-")}
	conn, err := grpc.NewClient("passthrough:///"+pluginAddress,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			b.powerOff()
		}
		_ = b.agent.Close()
		_ = conn.Close()
	})
	b.host = host{nodeB, remoteNode{csi.NewNodeClient(conn)}, b.controllersOf}
	return b
}

// dialAgent waits for a machine that boots, on a host that has other things to do, and may have to be booted more than once.
func dialAgent(t *testing.T) *rpc.Client {
	t.Helper()
	ctx := within(t, 20*time.Minute)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	dialer := net.Dialer{Timeout: 2 * time.Second}
	for {
		c, err := dialer.DialContext(ctx, "tcp4", agentAddress)
		if err == nil {
			return rpc.NewClient(c)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the second machine is not up: %v", err)
		}
	}
}

// call has a deadline, which net/rpc has not.
func (b *second) call(method string, args, reply any) error {
	late := time.NewTimer(60 * time.Second)
	defer late.Stop()
	select {
	case done := <-b.agent.Go("Agent."+method, args, reply, make(chan *rpc.Call, 1)).Done:
		return done.Error
	case <-late.C:
		return fmt.Errorf("%s on the second machine: %w", method, context.DeadlineExceeded)
	}
}

func (b *second) run(c Command) string {
	b.t.Helper()
	var out []byte
	must(b.t, b.call("Run", c, &out))
	return string(out)
}

func (b *second) shell(line string) string {
	b.t.Helper()
	return b.run(Command{Args: []string{"sh", "-c", line}})
}

// powerOff returns when the agent is no more. That the machine is, is certain when the next newSecond has found it.
func (b *second) powerOff() {
	if err := b.call("PowerOff", struct{}{}, &struct{}{}); err == nil || errors.Is(err, context.DeadlineExceeded) {
		b.t.Errorf("the second machine is still there: %v", err)
	}
}

// controllersOf looks with as little code as possible, none of it the driver's.
func (b *second) controllersOf(nqn string) []string {
	b.t.Helper()
	var found []string
	for line := range strings.Lines(b.shell(`for d in /sys/class/nvme/nvme*; do echo "$(cat $d/subsysnqn) $(cat $d/hostnqn) $(cat $d/state)"; done 2>/dev/null`)) {
		if hostAndState, ours := strings.CutPrefix(strings.TrimSpace(line), nqn+" "); ours {
			found = append(found, hostAndState)
		}
	}
	return found
}

// on is the claim as a pod of the second machine has it.
func (c *claim) on(b *second) *claim {
	c.s.t.Helper()
	there := *c
	there.host = b.host
	dir := path.Join(b.dir, c.slot())
	b.run(Command{Args: []string{"mkdir", "-p", dir}})
	there.staging, there.directory = dir+"/staging", dir+"/target"
	return &there
}

// fill is that of the first machine.
func (b *second) fill(dir string, size int, names ...string) contents {
	b.t.Helper()
	b.run(Command{Args: []string{"mkdir", "-p", dir}})
	sums := contents{}
	for _, name := range names {
		data := random(b.t, size)
		b.run(Command{Args: []string{"dd", "of=" + path.Join(dir, name), "bs=64k", "conv=fsync"}, Stdin: data})
		sums[name] = sha256.Sum256(data)
	}
	return sums
}

func (b *second) verify(dir string, want contents) {
	b.t.Helper()
	for name, sum := range want {
		if got := b.shell("echo 3 > /proc/sys/vm/drop_caches; sha256sum " + path.Join(dir, name)); !strings.HasPrefix(got, fmt.Sprintf("%x ", sum)) {
			b.t.Errorf("%s in %s on the second machine: %s", name, dir, got)
		}
	}
}

// rawThere is a raw device of the second machine.
type rawThere struct {
	b    *second
	path string
}

func (b *second) openDirect(path string, access int) rawThere {
	b.t.Helper()
	must(b.t, b.call("Open", Device{path, access}, &struct{}{}))
	return rawThere{b, path}
}

func (r rawThere) WriteAt(p []byte, offset int64) (n int, err error) {
	err = r.b.call("Write", Blocks{r.path, offset, p}, &n)
	return n, err
}

func (r rawThere) ReadAt(p []byte, offset int64) (int, error) {
	var data []byte
	err := r.b.call("Read", Blocks{r.path, offset, make([]byte, len(p))}, &data)
	return copy(p, data), err
}

func (r rawThere) Close() error { return r.b.call("Close", r.path, &struct{}{}) }

// remoteNode calls over the link what kubelet calls on the node.
type remoteNode struct{ client csi.NodeClient }

func (n remoteNode) NodeStageVolume(ctx context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	return n.client.NodeStageVolume(ctx, r)
}

func (n remoteNode) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return n.client.NodePublishVolume(ctx, r)
}

func (n remoteNode) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return n.client.NodeUnpublishVolume(ctx, r)
}

func (n remoteNode) NodeUnstageVolume(ctx context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return n.client.NodeUnstageVolume(ctx, r)
}
