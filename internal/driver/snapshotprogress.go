package driver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// copies is what users were told last of the full copies under way, so that a poll that brings nothing new says nothing. How far
// a copy is, the RDS knows: a controller that starts in the middle of one tells of it once more, and goes on from there.
type copies struct {
	mu   sync.Mutex
	told map[string]told // by snapshot
}

type told struct {
	begun   time.Time // which attempt: one that failed is made anew from its beginning
	percent int
}

// step notes how far a snapshot is. Of a copy that nobody was told of nothing is worth telling once it is done: it may have been
// done for days. event says that it is one of the few points at which an event is sent: the first sight, each quarter, the end.
func (c *copies) step(s appliance.Snapshot) (percent int, changed, event bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := s.ID.Key()
	last, known := c.told[key]
	if s.Ready {
		delete(c.told, key)
		return 100, known, known
	}
	percent = int(100 * s.Progress)
	if c.told == nil {
		c.told = map[string]told{}
	}
	c.told[key] = told{s.Created, percent}
	if !known || !last.begun.Equal(s.Created) {
		return percent, true, true
	}
	return percent, percent != last.percent, percent/25 > last.percent/25
}

// forget is for a snapshot that is deleted.
func (c *copies) forget(id appliance.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.told, id.Key())
}

// progress tells how far the full copy for a snapshot has come: the log whenever that has changed, the claim of the volume, which
// cannot be attached meanwhile, now and then. A snapshot has no progress that Kubernetes could show.
func (c *Controller) progress(ctx context.Context, source appliance.ID, s appliance.Snapshot) {
	percent, changed, event := c.copies.step(s)
	if !changed {
		return
	}
	c.logger.InfoContext(ctx, "full copy", "snapshot", s.ID.String(), "volume", source.Key(), "bytes", s.SizeBytes, "percent", percent)
	if !event || c.Copying == nil {
		return
	}
	c.Copying(source.Key(), fmt.Sprintf("snapshot %s: the full copy of %d bytes on rds %s %s", s.ID, s.SizeBytes, s.ID.RDS, stage(percent, s.Ready)))
}

func stage(percent int, ready bool) string {
	const wait = "; a pod that is to use the volume waits until it is done"
	switch {
	case ready:
		return "is done"
	case percent == 0:
		return "has begun" + wait
	}
	return fmt.Sprintf("is %d%% done", percent) + wait
}
