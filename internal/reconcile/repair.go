package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rds-csi/rds-csi/internal/kube"
)

// What became of a repair.
const (
	repairOK    = "ok"
	repairError = "error"
)

// lostExport is one occurrence as it was when its repair was decided.
type lostExport struct {
	*occurrence
	volume string
}

// repairAll exports one volume after the other. It stops when the RDS is silent:
// each of the others would wait as long.
func (d *Drift) repairAll(ctx context.Context, lost []lostExport) error {
	slices.SortFunc(lost, func(a, b lostExport) int { return strings.Compare(a.volume, b.volume) })
	var later []error
	for _, l := range lost {
		err := d.repair(ctx, l)
		later = append(later, err)
		if silent(ctx, err) {
			break
		}
	}
	return errors.Join(later...)
}

// repair is visible whatever becomes of it: in the log, on the claim, as a metric.
func (d *Drift) repair(ctx context.Context, l lostExport) error {
	ctx, cancel := context.WithTimeout(ctx, repairLimit)
	defer cancel()
	done, err := d.cfg.Repair(ctx, l.volume)
	switch {
	case !done && err != nil:
		return fmt.Errorf("volume %s is not exported again yet: %w", l.volume, err)
	case !done:
		return nil // detached since
	}
	l.repaired.Store(true)
	if err != nil {
		d.cfg.Repaired(string(ExportLost), repairError)
		d.cfg.Logger.ErrorContext(ctx, "a lost export could not be repaired", "kind", string(ExportLost), "volume", l.volume, "err", err)
		d.cfg.Events.Volume(l.volume, kube.Warning, kube.RepairFailed,
			fmt.Sprintf("volume %s is attached, its rds does not export it, and refuses to: %v", l.volume, err))
		return nil
	}
	d.cfg.Repaired(string(ExportLost), repairOK)
	d.cfg.Logger.WarnContext(ctx, "exported again", "kind", string(ExportLost), "volume", l.volume)
	d.cfg.Events.Volume(l.volume, kube.Normal, kube.ExportRepaired,
		fmt.Sprintf("the rds had lost the export of volume %s, it is exported again; look for a reboot of the rds, or for who changed it", l.volume))
	return nil
}
