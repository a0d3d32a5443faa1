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
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/rds-csi/rds-csi/internal/lane"
)

var (
	// ErrNotConnected means: no subsystem with that NQN exists on this node.
	ErrNotConnected = errors.New("not connected")
	// ErrNoPath means: the subsystem is there but has no controllers. The kernel keeps
	// it while something holds its dead device open; no I/O can flow.
	ErrNoPath = errors.New("subsystem without a path")
	// ErrNotLive means: controllers exist, none of them is live (the target is down,
	// the kernel is reconnecting). Find returns the namespace with this error.
	ErrNotLive = errors.New("no live controller")
	// ErrNoNamespace means: a live controller shows no block device for NSID 1.
	ErrNoNamespace = errors.New("namespace missing")
	// ErrOldSize means: the device is smaller here than its volume, and the target does not say otherwise.
	ErrOldSize = errors.New("growth not seen")
	// ErrIdentity means: what is there is not what was asked for; nothing was touched.
	ErrIdentity = errors.New("identity mismatch")
	// ErrInUse means: the device is mounted, claimed or has holders.
	ErrInUse = errors.New("device in use")
	// ErrTimeout means: the deadline ended first. The kernel may still be at it; the
	// same call again waits for it and finds the result.
	ErrTimeout = errors.New("timed out")
	// ErrUnsupported means: this node cannot connect at all.
	ErrUnsupported = errors.New("nvme over tcp is not available")
	// ErrRefused means: the kernel reported that the connect failed.
	ErrRefused = errors.New("connect failed")
	// ErrInvalid means: a value that must not reach the kernel.
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

// Observer hears about events, not state: what became of each attempt to connect
// that reached the kernel, also after its caller had left (a device that never
// came is not one), and each disconnect that had something to do. Status is one of ok,
// timeout, in_use or error.
type Observer interface {
	ObserveConnect(status string, took time.Duration)
	ObserveDisconnect(status string)
}

// Config of an Initiator. Zero values mean the real system.
type Config struct {
	SysRoot  string // default /sys
	ProcRoot string // default /proc
	DevRoot  string // default /dev
	Fabrics  string // default <DevRoot>/nvme-fabrics
	Host     Host
	Observer Observer
	Logger   *slog.Logger
}

// Initiator is the node's side of NVMe/TCP. It is safe for concurrent use.
type Initiator struct {
	cfg    Config
	log    *slog.Logger
	kernel kernel
	lanes  lane.Set      // one kernel operation at a time per NQN, per target address and per device that is opened
	tick   time.Duration // how often sysfs is looked at without an event
	settle time.Duration // how long a subsystem may outlive its last controller

	claimLimit  time.Duration // how long an exclusive open may take
	openLimit   time.Duration // how long any other open may take to say that there is no device
	rescanAfter time.Duration // without a device; then twice as long each time
	growLimit   time.Duration // for a device to get its size
}

// New makes an Initiator; it does no I/O.
func New(cfg Config) *Initiator {
	if cfg.SysRoot == "" {
		cfg.SysRoot = "/sys"
	}
	if cfg.ProcRoot == "" {
		cfg.ProcRoot = "/proc"
	}
	if cfg.DevRoot == "" {
		cfg.DevRoot = "/dev"
	}
	if cfg.Fabrics == "" {
		cfg.Fabrics = filepath.Join(cfg.DevRoot, "nvme-fabrics")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = deaf{}
	}
	return &Initiator{
		cfg: cfg, log: cfg.Logger, kernel: linux(), lanes: lane.Set{Overdue: ErrTimeout},
		tick: 200 * time.Millisecond, settle: 5 * time.Second, claimLimit: claimLimit, openLimit: openLimit, rescanAfter: time.Second, growLimit: growLimit,
	}
}

// deaf is the Observer of who brings none.
type deaf struct{}

func (deaf) ObserveConnect(string, time.Duration) {}
func (deaf) ObserveDisconnect(string)             {}

// status is the metric label of an outcome.
func status(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrTimeout):
		return "timeout"
	case errors.Is(err, ErrInUse):
		return "in_use"
	default:
		return "error"
	}
}
