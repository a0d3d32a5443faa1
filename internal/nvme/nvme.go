// Package nvme is the node's NVMe/TCP initiator: it connects through
// /dev/nvme-fabrics, finds devices by subsystem NQN in sysfs each time it is
// asked, and disconnects exactly the controllers of one NQN.
//
// Nothing is remembered between calls: the kernel is the only authority for
// what is connected (nvmeXnY changes its meaning on every reconnect), so a
// restart of this process changes no answer. The package never runs nvme-cli,
// never follows /dev/disk/by-id and never touches a subsystem whose NQN is not
// exactly the one it was given: the node may boot from NVMe/TCP itself.
package nvme

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

var (
	// ErrNotConnected: no subsystem with that NQN exists on this node.
	ErrNotConnected = errors.New("not connected")
	// ErrNoPath: the subsystem is there but has no controllers. The kernel keeps
	// it while something holds its dead device open; no I/O can flow.
	ErrNoPath = errors.New("subsystem without a path")
	// ErrNotLive: controllers exist, none of them is live (the target is down,
	// the kernel is reconnecting). Find returns the namespace with this error.
	ErrNotLive = errors.New("no live controller")
	// ErrNoNamespace: a live controller shows no block device for NSID 1.
	ErrNoNamespace = errors.New("namespace missing")
	// ErrIdentity: what is there is not what was asked for; nothing was touched.
	ErrIdentity = errors.New("identity mismatch")
	// ErrInUse: the device is mounted, claimed or has holders.
	ErrInUse = errors.New("device in use")
	// ErrTimeout: the deadline ended first. The kernel may still be at it; the
	// same call again waits for it and finds the result.
	ErrTimeout = errors.New("timed out")
	// ErrUnsupported: this node cannot connect at all.
	ErrUnsupported = errors.New("nvme over tcp is not available")
	// ErrRefused: the kernel reported that the connect failed.
	ErrRefused = errors.New("connect failed")
	// ErrInvalid: a value that must not reach the kernel.
	ErrInvalid = errors.New("invalid value")
)

// Target is one exported volume: one subsystem, NSID 1.
type Target struct {
	NQN     string
	Address string // an IP address: the kernel resolves no names
	Port    int
}

// Options are always sent explicitly; a zero value means the driver's default,
// never the kernel's (600 s of ctrl_loss_tmo kill mounts during an upgrade of
// the target: dell/csm#1459).
type Options struct {
	CtrlLossTimeout time.Duration // negative or zero: never give up
	ReconnectDelay  time.Duration // zero: 2 s
	KeepAlive       time.Duration // zero: 5 s
}

// Namespace is the block device of one connected volume as sysfs shows it now.
type Namespace struct {
	NQN          string
	NSID         uint32
	Name         string // nvme0n1: for logs only
	DevicePath   string // its device number was compared with sysfs
	Major, Minor uint32
	SizeBytes    int64
	UUID, NGUID  string
}

// Observer hears about events, not state: each attempt to connect that reached
// the kernel and each disconnect that had something to do. Status is one of ok,
// timeout, in_use or error.
type Observer interface {
	ObserveConnect(status string, took time.Duration)
	ObserveDisconnect(status string)
}

// Config of an Initiator. Zero values mean the real system.
type Config struct {
	SysRoot  string // default /sys
	DevRoot  string // default /dev
	Fabrics  string // default <DevRoot>/nvme-fabrics
	Host     Host
	Observer Observer
	Logger   *slog.Logger
}

// Initiator is the node's side of NVMe/TCP. It is safe for concurrent use.
type Initiator struct {
	cfg Config
}

// New makes an Initiator; it does no I/O.
func New(cfg Config) *Initiator { return &Initiator{cfg: cfg} }

// Connect makes sure that the target is connected and returns its block device.
func (i *Initiator) Connect(ctx context.Context, t Target, o Options) (Namespace, error) {
	return Namespace{}, ErrUnsupported
}

// Find looks the volume's device up by exact NQN.
func (i *Initiator) Find(nqn string) (Namespace, error) { return Namespace{}, ErrNotConnected }

// Disconnect deletes the controllers of exactly this NQN and returns nil once
// the NQN has left sysfs.
func (i *Initiator) Disconnect(ctx context.Context, nqn string) error { return ErrUnsupported }

// Connections counts this host's NVMe/TCP controllers by state.
func (i *Initiator) Connections() (map[string]int, error) { return nil, ErrUnsupported }
