package main

import (
	"errors"
	"flag"
	"io"
	"log/slog"

	"k8s.io/klog/v2"
)

type role int

const (
	controllerRole role = iota
	nodeRole
)

// options are the flags of both roles.
type options struct {
	config, endpoint, metricsAddress string
	kubeconfig                       string // controller
	election                         election
	nodeID                           string // node
	logger                           *slog.Logger
	helped                           bool
}

func parseFlags(r role, args []string, stderr io.Writer) (options, error) {
	var o options
	var level, format string
	name, metricsAddress := "rds-csi controller", "127.0.0.1:9809"
	if r == nodeRole {
		name, metricsAddress = "rds-csi node", "127.0.0.1:9810"
	}
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&o.config, "config", "", "configuration `file` (required)")
	set.StringVar(&o.endpoint, "endpoint", "", "socket to serve CSI on, unix:///`path` (required)")
	set.StringVar(&o.metricsAddress, "metrics-address", metricsAddress, "`address` of /metrics, /healthz and /readyz")
	set.StringVar(&level, "log-level", "info", "info or debug")
	set.StringVar(&format, "log-format", "text", "text or json")
	if r == controllerRole {
		set.StringVar(&o.kubeconfig, "kubeconfig", "", "`file`; without it the pod's own credentials are used, and without these none")
		o.election.flags(set)
	} else {
		set.StringVar(&o.nodeID, "node-id", "", "Kubernetes `name` of this node (required)")
	}
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		o.helped = true
		return o, nil
	case err != nil:
		return o, &usageError{err}
	}
	o.election.complete()
	if err := o.check(r, set.Args()); err != nil {
		return o, err
	}
	var err error
	o.logger, err = newLogger(level, format, stderr)
	return o, err
}

func (o options) check(r role, rest []string) error {
	switch {
	case len(rest) > 0:
		return usageErrorf("unexpected argument %q", rest[0])
	case o.config == "":
		return usageErrorf("--config is required")
	case o.endpoint == "":
		return usageErrorf("--endpoint is required")
	case r == nodeRole && o.nodeID == "":
		return usageErrorf("--node-id is required: the Kubernetes name of this node")
	}
	return o.election.check()
}

func newLogger(level, format string, w io.Writer) (*slog.Logger, error) {
	o := &slog.HandlerOptions{}
	switch level {
	case "info":
	case "debug":
		o.Level = slog.LevelDebug
	default:
		return nil, usageErrorf("--log-level %q is neither info nor debug", level)
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, usageErrorf("--log-format %q is neither text nor json", format)
}

// bridgeLogs sends what the Kubernetes libraries log the same way as everything else.
func bridgeLogs(logger *slog.Logger) { klog.SetSlogLogger(logger.With("component", "client-go")) }
