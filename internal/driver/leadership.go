package driver

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
)

// One controller of several decides. That is for order, not for safety: no two processes admit rivals, because what keeps a
// node out follows from VolumeAttachments and Nodes, which both read (package attach). They need not decide alike: who has
// watched for longer knows of more words that they are only wishes, and may admit what the other refuses.

// Standby is what a controller answers that does not lead; leader may be empty when nobody is known to.
func Standby(leader string) error {
	if leader == "" {
		return refuse(codes.Unavailable, "standby: no controller leads yet; try again")
	}
	return refuse(codes.Unavailable, "standby: %s leads; ask there", leader)
}

// lock takes the volume for an operation that decides something: only the leader does.
func (c *Controller) lock(volume, operation string) (unlock func(), err error) {
	if err := c.leads(volume); err != nil {
		return nil, err
	}
	return c.locks.lock(volume, operation)
}

// leads answers an error while another controller decides about the volume.
func (c *Controller) leads(volume string) error {
	if c.Lead == nil {
		return nil
	}
	if err := c.Lead(); err != nil {
		return fmt.Errorf("%s: %w", volume, err)
	}
	return nil
}

// take locks a volume, or a snapshot, for an operation, and answers the RDS that it lies on.
func (c *Controller) take(id appliance.ID, operation string) (rds Appliance, unlock func(), err error) {
	if unlock, err = c.lock(id.Key(), operation); err != nil {
		return nil, nil, err
	}
	if _, rds, _, err = c.appliance(id.RDS); err != nil {
		unlock()
		return nil, nil, err
	}
	return rds, unlock, nil
}

// refused tells the user of a refusal that only he can lift, and answers it. What passes by itself (the ledger does not
// know yet, the VolumeAttachment is not seen yet) is not worth an event.
func (c *Controller) refused(volume string, err error) error {
	var conflict *attach.ConflictError
	var expired *attach.MigrationExpiredError
	switch {
	case c.Refused == nil:
	case errors.As(err, &conflict):
		c.Refused(volume, conflict.Error())
	case errors.As(err, &expired):
		c.Refused(volume, expired.Error())
	}
	return err
}
