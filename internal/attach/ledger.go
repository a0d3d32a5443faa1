package attach

import (
	"sync"
	"sync/atomic"
	"time"
)

// Options of a Ledger; the zero value is right for production.
type Options struct {
	// ClockSkew is how far the clocks of the API servers may be apart. Zero
	// means ten seconds.
	ClockSkew time.Duration
}

// Ledger is safe for concurrent use.
type Ledger struct {
	mu sync.Mutex
	n  atomic.Int64
}

// NewLedger knows nothing until the first Replace.
func NewLedger(Options) *Ledger { return &Ledger{} }

// Standalone is the ledger of a controller without Kubernetes.
func Standalone() *Ledger { return &Ledger{} }

// Replace makes the ledger exactly what the authority listed.
func (l *Ledger) Replace([]Attachment) {}

// Upsert applies one added or changed VolumeAttachment.
func (l *Ledger) Upsert(Attachment) {}

// Remove applies that the VolumeAttachment is gone.
func (l *Ledger) Remove(uid string) {}

// Publish decides whether the volume may go to the node.
func (l *Ledger) Publish(volume, node string, mode Mode) error { return ErrUnknown }

// Abandon takes an admission back: the publish failed after it.
func (l *Ledger) Abandon(volume, node string) {}

// Unpublish ends an admission; an empty node means all.
func (l *Ledger) Unpublish(volume, node string) {}

// InUse names the nodes that have the volume or may get it.
func (l *Ledger) InUse(volume string) ([]string, error) { return nil, ErrUnknown }

// Nodes names the nodes on which the volume is attached, sorted.
func (l *Ledger) Nodes(volume string) []string { return nil }

// Volumes is the number of volumes with at least one attached VolumeAttachment.
func (l *Ledger) Volumes() (n int, known bool) { return 0, false }
