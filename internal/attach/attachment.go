package attach

import (
	"math"
	"time"
)

// Attachment is one VolumeAttachment: Kubernetes' wish that a volume be
// attached to a node, and whether external-attacher says that it is.
type Attachment struct {
	UID    string // identity; a name may come back with another UID
	Name   string // for messages only
	Volume string // canonical CSI volume handle
	Node   string // Kubernetes name of the node, which is also its CSI node id

	// NodeUID is that of the Node object that the volume was published to, as the
	// publish context kept it (status.attachmentMetadata). Empty: not known.
	NodeUID string

	Mode             Mode          // by the PersistentVolume as it is now; one that is not known gives SingleNode
	Granted          Grant         // by status.attachmentMetadata: what the publish was granted, whatever the PersistentVolume says since
	MigrationTimeout time.Duration // by the PersistentVolume; zero means five minutes

	Attached bool      // status.attached
	Deleting bool      // a deletion timestamp is set: detach is asked for
	Created  time.Time // creation timestamp, whole seconds of the API server's clock

	AttachError   string    // status.attachError.message: the answer to the last publish that failed
	AttachErrorAt time.Time // status.attachError.time, whole seconds of the attacher's clock
}

// Mode says which nodes may have a volume at once.
type Mode int

const (
	// SingleNode volumes are on one node at a time. It is the zero value: what
	// forgets to say otherwise gets the strict rule.
	SingleNode Mode = iota
	// MultiNode volumes (raw block, ReadWriteMany) may be on two nodes at a
	// time, so that a virtual machine can migrate.
	MultiNode
	// Readers may be on any number of nodes (ReadOnlyMany): none of them writes.
	Readers
)

// String is how publish contexts and messages name it.
func (m Mode) String() string {
	switch m {
	case MultiNode:
		return "MultiNode"
	case Readers:
		return "Readers"
	default:
		return "SingleNode"
	}
}

// And is the mode of a volume of which two things are said: what they agree on.
// Two that disagree agree on a single node only: a reader beside a writer would
// read what is half written.
func (m Mode) And(other Mode) Mode {
	if m != other {
		return SingleNode
	}
	return m
}

// limit is the number of nodes that may have the volume at once.
func (m Mode) limit() int {
	switch m {
	case MultiNode:
		return 2
	case Readers:
		return math.MaxInt
	default:
		return 1
	}
}

// Node is one Kubernetes Node, as its kubelet and its administrator speak of it.
type Node struct {
	Name, UID string
	// InUse are the canonical handles of this driver's volumes in
	// status.volumesInUse: kubelet names a volume there before it mounts it, and
	// until it has unmounted it.
	InUse []string
	// OutOfService is the taint node.kubernetes.io/out-of-service: the
	// administrator's word that the machine is off.
	OutOfService bool
	Created      time.Time
}
