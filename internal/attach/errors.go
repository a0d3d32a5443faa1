package attach

import (
	"errors"
	"fmt"
	"strings"
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
}

// Error names the volume, both nodes and the way out.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("volume %s cannot be attached to node %s: node %s has it (%s); "+
		"stop the pod that uses it there and wait for the detach",
		e.Volume, e.Node, e.Holder, e.Reason)
}

// rival is one node in the way, and why.
type rival struct{ node, reason string }

func conflict(volume, node string, rivals []rival) *ConflictError {
	nodes := make([]string, 0, len(rivals))
	reasons := make([]string, 0, len(rivals))
	for _, r := range rivals {
		nodes = append(nodes, r.node)
		reasons = append(reasons, r.reason)
	}
	return &ConflictError{
		Volume: volume, Node: node,
		Holder: strings.Join(nodes, ", "), Reason: strings.Join(reasons, ", "),
	}
}
