package driver

import (
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// checkGranted keeps a node to what the controller granted it. kubelet asks by the access modes of the PersistentVolume as it
// reads them, and these may be changed while the volume is attached: whoever was let in beside others because it reads would
// then write. One that was granted to write may read; on how many nodes a volume may be is the controller's to decide. What
// was attached before grants were kept, or by another driver, tells nothing, and kubelet's word counts as it always did.
func (p place) checkGranted() error {
	if readOnlyAtNode(p.capability) {
		return nil
	}
	granted, understood := attach.ParseGrant(p.publish[keyGranted])
	if mode, _ := granted.Mode(); understood && mode != attach.Readers {
		return nil
	}
	return refuse(codes.FailedPrecondition, "it was granted to this node as %q, and %s is asked for: the access modes of its PersistentVolume were changed while it is attached; "+
		"stop the pods that use it on this node and wait for the detach, so that it is attached anew, or change them back",
		p.publish[keyGranted], p.capability.GetAccessMode().GetMode())
}
