package attach

import "time"

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

	Mode             Mode          // by the PersistentVolume; one that is not known gives SingleNode
	MigrationTimeout time.Duration // by the PersistentVolume; zero means five minutes

	Attached bool      // status.attached
	Deleting bool      // a deletion timestamp is set: detach is asked for
	Created  time.Time // creation timestamp, whole seconds of the API server's clock

	AttachError string // status.attachError.message: the answer to the last publish that failed
}

// Mode says on how many nodes a volume may be at once. The stricter is the
// smaller.
type Mode int

const (
	// SingleNode volumes are on one node at a time. It is the zero value: what
	// forgets to say otherwise gets the strict rule.
	SingleNode Mode = iota
	// MultiNode volumes (raw block, ReadWriteMany) may be on two nodes at a
	// time, so that a virtual machine can migrate.
	MultiNode
)

// limit is the number of nodes that may have the volume at once.
func (m Mode) limit() int {
	if m == MultiNode {
		return 2
	}
	return 1
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
