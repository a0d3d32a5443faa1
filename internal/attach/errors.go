package attach

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrUnknown says that the authority was not read yet, so nothing may be admitted.
	// The caller answers Unavailable and is asked again.
	ErrUnknown = errors.New("attachments are not known yet")
	// ErrNotSeen says that no VolumeAttachment that asks for this volume on this
	// node is visible yet, so older rivals may be invisible too. The caller answers
	// NotFound, as CSI does for a volume or node that is not there; external-attacher
	// asks again after that as after any other error.
	ErrNotSeen = errors.New("no VolumeAttachment asks for it yet")
)

// ConflictError refuses a publish because other nodes have the volume, or may
// get it first.
type ConflictError struct {
	Volume string
	Node   string // who asked
	Holder string // who has it; two nodes are joined by a comma
	Reason string // what proves it
	// Mounted says that part of the proof is a kubelet's word alone: no
	// VolumeAttachment is in the way on that node.
	Mounted bool
}

// Error names the volume, both nodes and the way out.
func (e *ConflictError) Error() string {
	out := "stop the pod that uses it there and wait for the detach"
	if e.Mounted {
		out = "stop the pod that uses it there and let kubelet unmount it, or, " +
			"when that machine is off for certain, taint the node with node.kubernetes.io/out-of-service"
	}
	return fmt.Sprintf("volume %s cannot be attached to node %s: node %s has it (%s); %s",
		e.Volume, e.Node, e.Holder, e.Reason, out)
}

// MigrationExpiredError refuses the second node of a migration that did not end
// in time.
type MigrationExpiredError struct {
	Volume string
	Node   string // who asked
	Other  string // who has the volume, or asked for it first
	Began  time.Time
	Limit  time.Duration
}

// Error names the volume, both nodes, the times and the way out.
func (e *MigrationExpiredError) Error() string {
	return fmt.Sprintf("volume %s cannot be attached to node %s any more: its migration from node %s began at %s and had %s; "+
		"cancel it (stop the pod on node %s and wait for the detach), then start another; "+
		"the StorageClass parameter migrationTimeout gives later volumes more time",
		e.Volume, e.Node, e.Other, e.Began.UTC().Format(time.RFC3339), e.Limit, e.Node)
}

// rival is one node in the way, and why.
type rival struct {
	node, reason string
	mounted      bool // by a kubelet's word
}

func conflict(volume, node string, rivals []rival) *ConflictError {
	e := &ConflictError{Volume: volume, Node: node}
	nodes := make([]string, 0, len(rivals))
	reasons := make([]string, 0, len(rivals))
	for _, r := range rivals {
		nodes = append(nodes, r.node)
		reasons = append(reasons, r.reason)
		e.Mounted = e.Mounted || r.mounted
	}
	e.Holder, e.Reason = strings.Join(nodes, ", "), strings.Join(reasons, ", ")
	return e
}
