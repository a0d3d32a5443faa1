package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// drainTime is how long calls may finish after the process was told to end: a mkfs that is cut leaves half a file
// system. It is below the 30 seconds that Kubernetes gives a pod.
const drainTime = 25 * time.Second

// Server is the gRPC side of a plugin. Controller or Node may be nil.
type Server struct {
	Identity   csi.IdentityServer
	Controller csi.ControllerServer
	Node       csi.NodeServer
	NodeID     string                                        // for log lines; empty on the controller
	Observe    func(method, code string, took time.Duration) // may be nil
	Logger     *slog.Logger
	DrainTime  time.Duration // default 25 s
}

// Listen opens the socket of an endpoint such as unix:///csi/csi.sock. A socket that an earlier process left is
// removed; anything else at that path, or a socket that somebody answers on, is not.
func Listen(ctx context.Context, endpoint string) (net.Listener, error) {
	path, err := socketPath(endpoint)
	if err != nil {
		return nil, err
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", endpoint, err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", endpoint, err)
	}
	// Who may connect may create and delete volumes; the sidecars may run under another user of the same group.
	if err := os.Chmod(path, 0o660); err != nil { //nolint:gosec // see above
		return nil, errors.Join(fmt.Errorf("endpoint %s: %w", endpoint, err), listener.Close())
	}
	return listener, nil
}

func socketPath(endpoint string) (string, error) {
	path, ok := strings.CutPrefix(endpoint, "unix:")
	path = strings.TrimPrefix(path, "//")
	if !ok || path == "" || strings.HasSuffix(path, "/") {
		return "", fmt.Errorf("endpoint %q is not unix:///path/to/socket", endpoint)
	}
	return path, nil
}

func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something that is not a socket: remove it")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(errors.New("another process serves there already"), conn.Close())
	}
	return os.Remove(path)
}

// Serve answers on the listener until ctx ends, then lets running calls finish, for a while.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
	csi.RegisterIdentityServer(server, s.Identity)
	if s.Controller != nil {
		csi.RegisterControllerServer(server, s.Controller)
	}
	if s.Node != nil {
		csi.RegisterNodeServer(server, s.Node)
	}
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		s.drain(server)
	})
	err := server.Serve(listener)
	if stop() {
		server.Stop() // Serve failed by itself: there is nothing to drain
		return err
	}
	<-drained
	return err
}

func (s *Server) drain(server *grpc.Server) {
	limit := drainTime
	if s.DrainTime > 0 {
		limit = s.DrainTime
	}
	force := time.AfterFunc(limit, server.Stop)
	defer force.Stop()
	server.GracefulStop()
}
