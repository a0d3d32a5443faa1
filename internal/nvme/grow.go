package nvme

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// growLimit is longer than it takes the kernel to notice that a target fell silent (three keep-alives of 5 s): within it,
// a size that stays the old one is the target's answer.
const growLimit = 20 * time.Second

// Grown answers the volume's device once it has at least want bytes. A target should announce growth by itself (an
// asynchronous event), and need not: so the kernel is told to look again, a few times. It never reconnects, for that
// takes the device from under whoever uses it.
//
// ErrOldSize: the controller is live, and the target still gives the old size. Some targets show growth to new connections
// only. One that fixes the size of a namespace when it is enabled (Linux before 5.8 does so, and an RDS is said to run one [I])
// shows it to nobody until the export is made anew, unless growing does that.
func (i *Initiator) Grown(outer context.Context, nqn string, want int64) (Namespace, error) {
	ctx, cancel := context.WithTimeout(outer, i.growLimit)
	defer cancel()
	var ns Namespace
	var last error
	rescans, next := 0, time.Now()
	err := i.until(ctx, func() (bool, error) {
		var controllers []controller
		controllers, ns, last = i.look(nqn)
		if last != nil {
			return false, last
		}
		if ns.SizeBytes >= want {
			return true, nil
		}
		last = fmt.Errorf("%w: it has %d bytes here, the volume has %d", ErrOldSize, ns.SizeBytes, want)
		if !time.Now().Before(next) {
			i.rescan(ctx, nqn, controllers, "device is smaller than the volume, rescanned")
			rescans++
			next = time.Now().Add(i.rescanAfter << rescans)
		}
		return false, nil
	})
	if errors.Is(err, ErrTimeout) && last != nil && outer.Err() == nil {
		err = fmt.Errorf("%w (after %d rescans in %v)", last, rescans, i.growLimit)
	}
	if err != nil {
		return ns, fmt.Errorf("growth of %s: %w", nqn, err)
	}
	return ns, nil
}
