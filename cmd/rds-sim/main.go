// Command rds-sim is a simulated RDS to try a driver against: RouterOS's console over SSH, with disks, files and
// exports, and with switches for what is not known of the real device.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/rds-csi/rds-csi/internal/sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "rds-sim:", err)
		os.Exit(1)
	}
}

// run is the whole program: it ends with ctx. Standard output gets the driver's configuration and nothing else.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := settingsFrom(args, stderr)
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.SSHAddress)
	if err != nil {
		return fmt.Errorf("listen for SSH: %w", err)
	}
	keys, err := prepareKeys(s)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	options := optionsFrom(s, keys, slog.New(slog.NewTextHandler(stderr, nil)))
	device, err := sim.New(options)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	err = announce(s, keys, device, ln.Addr(), stdout)
	if err == nil {
		_, err = fmt.Fprintf(stderr, "rds-sim: RouterOS %s answers SSH at %s\nrds-sim: %s\n",
			s.Version, ln.Addr(), exportsLine(s, device))
	}
	if err != nil {
		return errors.Join(err, ln.Close(), device.Close())
	}
	return errors.Join(device.Serve(ctx, ln), device.Close())
}

// optionsFrom makes exports real where that was asked for and is possible.
func optionsFrom(s settings, keys keys, logger *slog.Logger) sim.Options {
	o := sim.Options{
		Dir: s.Data, Version: s.Version, Identity: s.Identity, Quirks: s.Quirks, Faults: s.Faults,
		Users:   []sim.User{sim.CSIUser(keys.csi...), sim.AdminUser(keys.admin...)},
		HostKey: keys.host, Pools: s.pools, Logger: logger,
	}
	if s.NVMeAddress != "" && sim.TargetAvailable("") == nil {
		o.NVMe = &sim.NVMeOptions{Address: s.NVMeAddress}
	}
	return o
}

// exportsLine says plainly whether a host can connect to what the disk table calls exported.
func exportsLine(s settings, device *sim.Device) string {
	switch {
	case device.RealExports():
		return "exports are real: the kernel's NVMe target answers at " + s.NVMeAddress
	case s.NVMeAddress == "":
		return "exports are entries of the disk table only: no --nvme-address was given"
	}
	return fmt.Sprintf("exports are entries of the disk table only: %v", sim.TargetAvailable(""))
}
