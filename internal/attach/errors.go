package attach

import (
	"errors"
	"fmt"
	"slices"
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
	Holder string // who is in the way: all of these nodes, with commas between them
	rivals []rival
}

// Error names the volume, the nodes and the way out.
func (e *ConflictError) Error() string {
	text := fmt.Sprintf("volume %s cannot be attached to node %s: ", e.Volume, e.Node)
	if len(e.rivals) == 0 {
		return text + e.Holder + " has it"
	}
	verb := " is in the way; "
	if len(e.rivals) > 1 {
		verb = " are in the way; "
	}
	return fit(e.rivals, func(who string) string { return text + who + verb + wayOut(e.rivals) })
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
	return Cut(fmt.Sprintf("volume %s cannot be attached to node %s any more: its migration from node %s began at %s and had %s; "+
		"cancel it (stop the pod on node %s and wait for the detach), then start another; "+
		"the StorageClass parameter migrationTimeout gives later volumes more time",
		e.Volume, e.Node, e.Other, e.Began.UTC().Format(time.RFC3339), e.Limit, e.Node))
}

// rival is one node in the way, and why.
type rival struct {
	node, reason string
	why          Why
}

func conflict(volume, node string, rivals []rival) *ConflictError {
	nodes := make([]string, 0, len(rivals))
	for _, r := range rivals {
		nodes = append(nodes, r.node)
	}
	return &ConflictError{Volume: volume, Node: node, Holder: strings.Join(nodes, ", "), rivals: rivals}
}

const (
	// mostNamed is how many nodes a message names.
	mostNamed = 3
	// mostBytes of a message: external-attacher writes it into a VolumeAttachment, with
	// words of its own before it, and the API server refuses more than 1024 bytes there
	// (kubernetes: pkg/apis/storage/validation, maxVolumeErrorMessageSize [S]). Then
	// nobody would read any of it.
	mostBytes = 700
)

// fit makes a text that names as many of the nodes as there is room for.
func fit(rivals []rival, text func(who string) string) string {
	out := ""
	for named := min(len(rivals), mostNamed); named > 0; named-- {
		if out = text(name(rivals, named)); len(out) <= mostBytes {
			return out
		}
	}
	return Cut(out)
}

// Cut takes out of the middle of a refusal what is too long for a VolumeAttachment: names
// are at the beginning, what to do is at the end.
func Cut(text string) string {
	const gap = " ... "
	if len(text) <= mostBytes {
		return text
	}
	head, tail := mostBytes/2, mostBytes/2-len(gap)
	return strings.ToValidUTF8(text[:head], "") + gap + strings.ToValidUTF8(text[len(text)-tail:], "")
}

// name is "node a (why)", or "nodes a (why), b (why) and 3 more".
func name(rivals []rival, named int) string {
	pairs := make([]string, 0, named)
	for _, r := range rivals[:named] {
		pairs = append(pairs, fmt.Sprintf("%s (%s)", r.node, r.reason))
	}
	kind, more := "node ", ""
	if len(rivals) > 1 {
		kind = "nodes "
	}
	if len(rivals) > named {
		more = fmt.Sprintf(" and %d more", len(rivals)-named)
	}
	return kind + strings.Join(pairs, ", ") + more
}

// wayOut is what to do about them.
func wayOut(rivals []rival) string {
	var outs []string
	has := func(fits func(rival) bool) (first rival, ok bool) {
		if i := slices.IndexFunc(rivals, fits); i >= 0 {
			return rivals[i], true
		}
		return first, false
	}
	if _, ok := has(func(r rival) bool { return !r.why.word() }); ok {
		outs = append(outs, "stop the pod there and wait for the detach")
	}
	if _, ok := has(func(r rival) bool { return r.why == Mounted }); ok {
		outs = append(outs, "stop the pod there and let kubelet unmount the volume")
	}
	if r, ok := has(func(r rival) bool { return r.why > Mounted }); ok {
		outs = append(outs, fmt.Sprintf("scale the pod there down, or keep it off node %s, until kubelet no longer lists the volume "+
			"(kubectl get node %s -o jsonpath={.status.volumesInUse})", r.node, r.node))
	}
	if _, ok := has(func(r rival) bool { return r.why.word() }); ok {
		outs = append(outs, "if that machine is off for good, taint its Node with node.kubernetes.io/out-of-service or delete the Node")
	}
	return strings.Join(outs, "; ")
}
