package kube

import (
	"context"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// What the feed tells the ledger. All of it runs under the feed's lock, so the
// ledger hears of everything in the order in which it was seen.

// replaceLedger gives the ledger the whole truth, once both lists have come. It
// reports whether this was the first time.
func (f *feed) replaceLedger() (first bool) {
	if !f.volumesKnown || f.wishes == nil {
		return false
	}
	list := make([]attach.Attachment, 0, len(f.wishes))
	for _, w := range f.wishes {
		list = append(list, w.Attachment)
	}
	f.ledger.Replace(list)
	f.reportAll(list)
	first = !f.complete
	f.complete = true
	return first
}

func (f *feed) upsert(w wish) {
	if f.complete {
		f.ledger.Upsert(w.Attachment)
		f.report(w.Attachment)
	}
}

func (f *feed) remove(uid string) {
	delete(f.unresolved, uid)
	if f.complete {
		f.ledger.Remove(uid)
	}
}

// report says once that a VolumeAttachment names a PersistentVolume of which
// nothing is known.
func (f *feed) report(a attach.Attachment) {
	pv, unresolved := Unresolved(a.Volume)
	if !unresolved || f.unresolved[a.UID] {
		return
	}
	f.unresolved[a.UID] = true
	f.logger.WarnContext(context.Background(), "VolumeAttachment without a known PersistentVolume, counted by its name",
		"attachment", a.Name, "node", a.Node, "persistentvolume", pv)
}

// reportAll does so after a list, and forgets what is gone.
func (f *feed) reportAll(list []attach.Attachment) {
	before := f.unresolved
	f.unresolved = make(map[string]bool, len(before))
	for _, a := range list {
		if before[a.UID] {
			f.unresolved[a.UID] = true
		}
		f.report(a)
	}
}
