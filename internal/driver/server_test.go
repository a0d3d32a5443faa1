package driver_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// oddController misbehaves on purpose.
type oddController struct {
	csi.UnimplementedControllerServer
	entered  chan struct{}
	carryOn  chan struct{}
	deadline time.Duration
}

func (o *oddController) CreateVolume(context.Context, *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	panic("a bug")
}

func (o *oddController) DeleteVolume(ctx context.Context, _ *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if d, ok := ctx.Deadline(); ok {
		o.deadline = time.Until(d)
	}
	close(o.entered)
	select {
	case <-o.carryOn:
		return &csi.DeleteVolumeResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.b.String()), "\n")
}

// served is a server on a socket, and a client of it.
type served struct {
	csi.IdentityClient
	csi.ControllerClient
	log      *lockedBuffer
	stop     context.CancelFunc
	done     chan error
	observed chan string
}

func serve(t *testing.T, s *driver.Server) *served {
	t.Helper()
	out := &served{log: &lockedBuffer{}, done: make(chan error, 1), observed: make(chan string, 100)}
	s.Logger = slog.New(slog.NewTextHandler(out.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.Observe = func(method, code string, _ time.Duration) { out.observed <- method + " " + code }
	if s.Identity == nil {
		s.Identity = &driver.Identity{Name: "rds.csi.srvlab.io", Version: "v0", Ready: func(context.Context) error { return nil }}
	}
	endpoint := "unix://" + filepath.Join(t.TempDir(), "csi.sock")
	listener, err := driver.Listen(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	out.stop = stop
	go func() { out.done <- s.Serve(ctx, listener) }()
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	out.IdentityClient, out.ControllerClient = csi.NewIdentityClient(conn), csi.NewControllerClient(conn)
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		stop()
		select {
		case err := <-out.done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server does not end")
		}
	})
	return out
}

func TestPanicIsOneFailedCall(t *testing.T) {
	s := serve(t, &driver.Server{Controller: &oddController{}})
	_, err := s.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "pvc-1"})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "a bug") {
		t.Errorf("got %v", err)
	}
	if _, err := s.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{}); err != nil {
		t.Errorf("the server is gone: %v", err)
	}
	if got := <-s.observed; got != "CreateVolume Internal" {
		t.Errorf("observed %q", got)
	}
}

// Every outcome is one line with its subject; nothing of a request's secrets is in any.
func TestOneLinePerOutcomeAndNoSecrets(t *testing.T) {
	s := serve(t, &driver.Server{Controller: newScene(t, attach.Standalone()).Controller, NodeID: "node-x"})
	req := createRequest("pvc-1", gib)
	req.Secrets = map[string]string{"password": "hunter2"}
	if _, err := s.CreateVolume(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ControllerPublishVolume(t.Context(), publishRequest("rds1/NO", "node-b")); err == nil {
		t.Fatal("accepted")
	}
	var outcomes []string
	for _, line := range s.log.lines() {
		if strings.Contains(line, "hunter2") {
			t.Errorf("a secret is in the log: %s", line)
		}
		if !strings.Contains(line, "level=DEBUG") {
			outcomes = append(outcomes, line)
		}
	}
	if len(outcomes) != 2 {
		t.Fatalf("%d lines: %v", len(outcomes), outcomes)
	}
	for i, words := range [][]string{
		{"level=INFO", "rpc=CreateVolume", "name=pvc-1", "code=OK"},
		{"level=WARN", "rpc=ControllerPublishVolume", "volume=rds1/NO", "node=node-b", "code=InvalidArgument"},
	} {
		for _, w := range words {
			if !strings.Contains(outcomes[i], w) {
				t.Errorf("%q is not in %q", w, outcomes[i])
			}
		}
	}
}

// B21: SIGTERM lets calls finish, for a while.
func TestDrain_B21(t *testing.T) {
	odd := &oddController{entered: make(chan struct{}), carryOn: make(chan struct{})}
	s := serve(t, &driver.Server{Controller: odd})
	result := make(chan error, 1)
	go func() {
		_, err := s.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: "rds1/x"})
		result <- err
	}()
	<-odd.entered
	if odd.deadline <= 0 || odd.deadline > 2*time.Minute {
		t.Errorf("a call without a deadline got %s", odd.deadline)
	}
	s.stop()
	close(odd.carryOn)
	if err := <-result; err != nil {
		t.Errorf("the running call was cut: %v", err)
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	s.done <- nil
}

func TestDrainHasADeadline_B21(t *testing.T) {
	odd := &oddController{entered: make(chan struct{}), carryOn: make(chan struct{})}
	s := serve(t, &driver.Server{Controller: odd, DrainTime: 50 * time.Millisecond})
	result := make(chan error, 1)
	go func() {
		_, err := s.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: "rds1/x"})
		result <- err
	}()
	<-odd.entered
	s.stop()
	if err := <-result; err == nil {
		t.Error("the call that never ends ended well")
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	s.done <- nil
}

func TestProbeTellsTheTruth(t *testing.T) {
	var ready error
	i := &driver.Identity{Name: "x", Ready: func(context.Context) error { return ready }}
	for _, ready = range []error{nil, errors.New("the ledger is unknown"), nil} {
		reply, err := i.Probe(t.Context(), &csi.ProbeRequest{})
		if err != nil || reply.GetReady().GetValue() != (ready == nil) {
			t.Errorf("%v, %v while ready is %v", reply, err, ready)
		}
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "csi.sock")
	endpoint := "unix://" + path
	for _, bad := range []string{"", "tcp://127.0.0.1:1", "unix://", "unix:///tmp/", path} {
		if l, err := driver.Listen(t.Context(), bad); err == nil {
			t.Errorf("%q was accepted: %v", bad, l.Close())
		}
	}
	first, err := driver.Listen(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := driver.Listen(t.Context(), endpoint); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("the socket was taken from its server: %v, %v", l, err)
	}
	// A process that was killed leaves its socket.
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := driver.Listen(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	// What is not a socket is not removed.
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := driver.Listen(t.Context(), endpoint); err == nil {
		t.Errorf("a file was taken for a socket: %v", l.Close())
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Errorf("the file is gone: %v", err)
	}
}
