package nvme

import (
	"crypto/sha1" //nolint:gosec // RFC 4122 defines version 5 UUIDs over SHA-1; nothing secret hangs on it
	"fmt"
)

// Host identifies this node to the target. NQN and ID form a pair: the kernel
// refuses one host NQN with two host IDs and the other way round
// (kubernetes-csi/csi-driver-nvmf#36).
type Host struct{ NQN, ID string }

// HostFor derives the pair from the node's identity, so that it is the same
// after a reinstallation of the plugin and differs between cloned nodes, which
// share /etc/nvme/hostnqn (dell/csm#1530).
func HostFor(driverName, clusterID, nodeID string) Host {
	// The lengths keep ("ab","c") and ("a","bc") apart.
	name := fmt.Sprintf("%d:%s/%d:%s/%d:%s", len(driverName), driverName, len(clusterID), clusterID, len(nodeID), nodeID)
	id := uuid5(name)
	return Host{NQN: "nqn.2014-08.org.nvmexpress:uuid:" + id, ID: id}
}

// uuid5 is a version 5 UUID in the URL name space of RFC 4122.
func uuid5(name string) string {
	space := [16]byte{0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}
	sum := sha1.Sum(append(space[:], name...)) //nolint:gosec // see the import
	u := sum[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
