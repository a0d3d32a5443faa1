package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Repair makes sure that an attached volume is exported, as its last ControllerPublishVolume left it: the RDS may lose
// exports at a reboot (democratic-csi#496), and nobody publishes again what is attached. It takes the volume's lock and looks
// again whether a node has the volume, so that it never brings back what a detach or a deletion takes away meanwhile. done
// says whether anything was settled, well or not: not when the volume is busy, no longer attached or another controller's
// to decide about, nor when the RDS did not answer. An item that is not this cluster's is refused by the appliance.
func (c *Controller) Repair(ctx context.Context, volume string) (done bool, err error) {
	id, err := c.parseID(volume)
	if err != nil {
		return false, err
	}
	unlock, err := c.lock(id.Key(), "Repair")
	if err != nil {
		return false, err
	}
	defer unlock()
	_, rds, _, err := c.appliance(id.RDS)
	if err != nil {
		return false, fmt.Errorf("volume %s: %w", id, err)
	}
	if len(c.ledger.Nodes(id.Key())) == 0 {
		return false, nil
	}
	v, err := rds.Export(ctx, id.Slot)
	if err == nil && v.Repaired != "" {
		c.logger.InfoContext(ctx, "repaired", "volume", id.Key(), "what", v.Repaired)
	}
	later := errors.Is(err, appliance.ErrUnavailable) || errors.Is(err, appliance.ErrOutcomeUnknown) || ctx.Err() != nil
	return err == nil || !later, err
}

// repaired makes known what an attach has put right: a volume of the existing driver gets an owner and loses
// mount-filesystem=yes, and a lost export comes back.
func (c *Controller) repaired(ctx context.Context, v appliance.Volume) {
	if v.Repaired == "" {
		return
	}
	c.logger.InfoContext(ctx, "repaired", "volume", v.ID.Key(), "what", v.Repaired)
	if c.Repaired != nil {
		c.Repaired(v.ID.Key(), "on rds "+v.ID.RDS+" was put right: "+v.Repaired)
	}
}
