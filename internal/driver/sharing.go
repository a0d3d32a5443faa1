package driver

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// Raw block that is ReadWriteMany is made for one thing: a virtual machine that migrates, whose hypervisors see to it that one
// of them writes. Nothing keeps a claim of that kind from being given to two pods that know nothing of each other, and then
// both write. So by default all that use such a volume must be one KubeVirt virtual machine's before a second node gets it.
const (
	keySharing    = "rwxBlockPolicy"
	sharingSameVM = "same-vm"
	sharingAny    = "any"
)

func checkSharing(policy string) error {
	if policy != sharingSameVM && policy != sharingAny {
		return fmt.Errorf("%q is neither %s nor %s", policy, sharingSameVM, sharingAny)
	}
	return nil
}

// restricted says whether the users of a volume are looked at. Those of the existing driver go on as they were used: their
// PersistentVolumes could not be told otherwise.
func restricted(volume map[string]string) bool {
	return volume[keySharing] != sharingAny && volume[keyAdopted] == ""
}

// checkUsers refuses a second node to a volume that more than one user has there. What is attached stays: a repeat of a
// publish changes nothing.
func (c *Controller) checkUsers(ctx context.Context, volume string, req *csi.ControllerPublishVolumeRequest) error {
	if c.Users == nil || attachMode(req.GetVolumeCapability()) != attach.MultiNode || !restricted(req.GetVolumeContext()) {
		return nil
	}
	uses, err := c.ledger.InUse(volume)
	if err != nil {
		return fmt.Errorf("volume %s for node %s: %w", volume, req.GetNodeId(), err)
	}
	another := slices.ContainsFunc(uses, func(u attach.Use) bool { return u.Node != req.GetNodeId() })
	if !another || slices.Contains(c.ledger.Nodes(volume), req.GetNodeId()) {
		return nil
	}
	users, err := c.Users(ctx, volume)
	if err != nil {
		return refuse(codes.Unavailable, "%s", attach.Cut(fmt.Sprintf("volume %s for node %s: it is not known who uses it: %v", volume, req.GetNodeId(), err)))
	}
	if len(users) < 2 {
		return nil
	}
	message := attach.Cut(fmt.Sprintf("volume %s cannot be attached to node %s: %s use it, and a ReadWriteMany raw block volume is for one virtual machine that migrates; "+
		"stop all but one, or, if they see to it that only one of them writes, use a StorageClass with %s: %s", volume, req.GetNodeId(), someOf(users), keySharing, sharingAny))
	if c.Refused != nil {
		c.Refused(volume, message)
	}
	return refuse(codes.FailedPrecondition, "%s", message)
}

// someOf names the first of the users: nobody reads a hundred names, and what is refused has to fit into a VolumeAttachment.
func someOf(users []string) string {
	const most = 3
	if len(users) <= most {
		return strings.Join(users, " and ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(users[:most], ", "), len(users)-most)
}
