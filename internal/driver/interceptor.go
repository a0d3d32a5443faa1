package driver

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/protosanitizer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// longestCall bounds a call whose caller gave no deadline. Kubelet waits two minutes, the sidecars less.
const longestCall = 2 * time.Minute

// intercept gives every call a deadline, survives its panics, turns its error into a code, and tells of its outcome
// once: in one log line and in the metrics.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	started := time.Now()
	method := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	logger := s.Logger.With(subject(req, method, s.NodeID)...)
	if logger.Enabled(ctx, slog.LevelDebug) {
		logger.DebugContext(ctx, "request", "request", protosanitizer.StripSecrets(req).String())
	}
	ctx, cancel := context.WithTimeout(ctx, longestCall)
	defer cancel()

	reply, err := survive(ctx, logger, req, handler)
	c, took := code(err), time.Since(started)
	if s.Observe != nil {
		s.Observe(method, c.String(), took)
	}
	logger = logger.With("code", c.String(), "took", took.Round(time.Millisecond).String())
	switch {
	case err != nil:
		logger.WarnContext(ctx, "failed", "err", err)
		return nil, status.Error(c, err.Error())
	case asksOnly(method):
		logger.DebugContext(ctx, "done")
	default:
		logger.InfoContext(ctx, "done")
	}
	return reply, nil
}

// survive turns a panic into an error: one bad request must not end the calls of all other volumes.
func survive(ctx context.Context, logger *slog.Logger, req any, handler grpc.UnaryHandler) (reply any, err error) {
	defer func() {
		if p := recover(); p != nil {
			logger.ErrorContext(ctx, "panic", "panic", p, "stack", string(debug.Stack()))
			reply, err = nil, refuse(codes.Internal, "internal error: the log of the driver has its trace")
		}
	}()
	return handler(ctx, req)
}

// asksOnly names the calls that sidecars repeat for ever and that change nothing: they would drown the log.
func asksOnly(method string) bool {
	switch method {
	case "Probe", "GetPluginInfo", "GetPluginCapabilities", "ControllerGetCapabilities", "NodeGetCapabilities", "GetCapacity":
		return true
	}
	return false
}

// subject is what a line is about: no line is without one.
func subject(req any, method, node string) []any {
	attrs := []any{"rpc", method}
	if r, ok := req.(interface{ GetName() string }); ok && r.GetName() != "" {
		attrs = append(attrs, "name", r.GetName())
	}
	if r, ok := req.(interface{ GetVolumeId() string }); ok && r.GetVolumeId() != "" {
		attrs = append(attrs, "volume", r.GetVolumeId())
		if id, err := appliance.ParseID(r.GetVolumeId(), anyRDS); err == nil {
			attrs = append(attrs, "nqn", appliance.NQNFor(id.Slot))
		}
	}
	if r, ok := req.(interface{ GetNodeId() string }); ok && r.GetNodeId() != "" {
		node = r.GetNodeId()
	}
	if node != "" {
		attrs = append(attrs, "node", node)
	}
	return attrs
}
