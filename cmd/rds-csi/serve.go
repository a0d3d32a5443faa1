package main

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"

	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/metrics"
)

// serve answers CSI calls and scrapes until ctx ends, and returns when the running calls have ended. It needs neither
// the RDS nor the API server to begin: what cannot be done yet is answered so.
func serve(ctx context.Context, o options, csi *driver.Server, web *metrics.Server) error {
	socket, err := driver.Listen(ctx, o.endpoint)
	if err != nil {
		return err
	}
	defer socket.Close() //nolint:errcheck // closed by the server already, unless it never began
	port, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.metricsAddress)
	if err != nil {
		return fmt.Errorf("metrics address: %w", err)
	}
	o.logger.InfoContext(ctx, "serving", "endpoint", o.endpoint, "metrics", port.Addr().String(), "version", version)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return csi.Serve(ctx, socket) })
	group.Go(func() error { return web.Serve(ctx, port) })
	err = group.Wait()
	o.logger.InfoContext(ctx, "served", "endpoint", o.endpoint)
	return err
}
