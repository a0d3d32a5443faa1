package kube

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// AttachmentLedger is what the VolumeAttachments are fed to.
type AttachmentLedger interface {
	Replace([]attach.Attachment) // the whole truth, after each list
	Upsert(attach.Attachment)    // one VolumeAttachment was added or changed
	Remove(uid string)           // one VolumeAttachment is gone
}

// NodeLedger is what the Nodes are fed to.
type NodeLedger interface {
	ReplaceNodes([]attach.Node) // the whole truth, after each list
	UpsertNode(attach.Node)     // one Node was added or changed
	RemoveNode(name string)     // one Node is gone
	Doubt()                     // what was fed before may have missed something
}

// NodeContact hears when the API server last said anything of Nodes, after what it
// said: words that are old prove nothing.
type NodeContact interface{ NodesHeard(at time.Time) }

// Ledger is fed from all watches.
type Ledger interface {
	AttachmentLedger
	NodeLedger
	NodeContact
	LimitLedger
}

// RunAttachments keeps the ledger equal to the VolumeAttachments of this driver
// and to what Nodes say of them until ctx ends, and returns only then. The ledger
// stays unknown until all lists have come but that of CSINodes, without which no
// node is limited and all else is decided as ever. synced (may be nil) is called
// once, right after, and by any of the watches: it must not wait. An API server
// that is down is asked again and again, it is no reason to end. It is not to be
// called twice at once.
func (c *Client) RunAttachments(ctx context.Context, ledger Ledger, synced func()) error {
	once := sync.OnceFunc(func() {
		if synced != nil {
			synced()
		}
	})
	for ctx.Err() == nil {
		c.read(ctx, ledger, once)
	}
	return context.Cause(ctx)
}

// read lists and watches, until ctx ends or everything is to be read anew.
func (c *Client) read(ctx context.Context, ledger Ledger, synced func()) {
	ctx, caughtUp, stop := c.reading.begin(ctx)
	defer stop()
	c.follow(ctx, ledger, func() { synced(); caughtUp() })
}

func (c *Client) follow(ctx context.Context, ledger Ledger, synced func()) {
	ledger.Doubt() // a standby that takes over was not asked for the admissions until now
	first := countdown(2, synced)
	f, n := newFeed(c.cfg, c.volumes, ledger, first), newNodes(c.cfg, ledger, first)
	volumes, attachments, nodes := c.api.CoreV1().PersistentVolumes(), c.api.StorageV1().VolumeAttachments(), c.api.CoreV1().Nodes()
	limits, l := c.api.StorageV1().CSINodes(), csiNodes{driver: c.cfg.DriverName, ledger: ledger}
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(quiet{c.cfg.Logger.Handler()}))
	var all sync.WaitGroup
	all.Go(func() {
		follow(ctx, watched("PersistentVolumes", volumes, c.cfg.Logger),
			sink[corev1.PersistentVolume]{f.setVolume, f.dropVolume, f.replaceVolumes, c.contact(sourceVolumes)})
	})
	all.Go(func() {
		follow(ctx, watched("VolumeAttachments", attachments, c.cfg.Logger),
			sink[storagev1.VolumeAttachment]{f.setAttachment, f.dropAttachment, f.replaceAttachments, c.contact(sourceAttachments)})
	})
	all.Go(func() {
		follow(ctx, watched("Nodes", nodes, c.cfg.Logger),
			sink[corev1.Node]{n.set, n.drop, n.replace, func() { ledger.NodesHeard(c.contacts[sourceNodes].now()) }})
	})
	all.Go(func() {
		follow(ctx, watched("CSINodes", limits, c.cfg.Logger), sink[storagev1.CSINode]{l.set, l.drop, l.replace, c.contact(sourceCSINodes)})
	})
	all.Wait()
}

func (c *Client) contact(source string) func() { return func() { c.contacts[source].now() } }

// countdown calls back when it was called n times.
func countdown(n int32, then func()) func() {
	var left atomic.Int32
	left.Store(n)
	return func() {
		if left.Add(-1) == 0 {
			then()
		}
	}
}

// follow lists and watches until ctx ends, come what may. It drives the reflector
// itself: a reflector's own loop reports every failure as an error, and waits up
// to a minute before it notices that the API server is back.
func follow[T any, O interface {
	*T
	runtime.Object
}](ctx context.Context, from *source, to sink[T],
) {
	var example O = new(T)
	logger := klog.FromContext(ctx)
	reflector := cache.NewReflectorWithOptions(from, example, to, cache.ReflectorOptions{
		Name:    from.what,
		Logger:  &logger,
		Backoff: &wait.Backoff{Duration: firstWait, Factor: 2, Steps: 32, Cap: mostWait}, // of a watch that is refused
	})
	for pause := firstWait; ; pause = min(2*pause, mostWait) {
		began := time.Now()
		err := reflector.ListAndWatchWithContext(ctx)
		from.logger.DebugContext(ctx, "listing again", "what", from.what, "err", err)
		if time.Since(began) > mostWait {
			pause = firstWait // it went well for a while
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// sink is a reflector's store that keeps nothing: it passes on what happens.
type sink[T any] struct {
	set     func(*T)
	drop    func(*T)
	replace func([]*T)
	contact func() // the API server said something, and it was passed on
}

// Add is called by the reflector.
func (s sink[T]) Add(obj any) error { return pass(obj, s.set) }

// Update is called by the reflector.
func (s sink[T]) Update(obj any) error { return pass(obj, s.set) }

// Delete is called by the reflector.
func (s sink[T]) Delete(obj any) error { return pass(obj, s.drop) }

// Resync has nothing to do: nothing is kept.
func (s sink[T]) Resync() error { return nil }

// Replace is called by the reflector after each list.
func (s sink[T]) Replace(list []any, _ string) error {
	all := make([]*T, 0, len(list))
	for _, obj := range list {
		if err := pass(obj, func(o *T) { all = append(all, o) }); err != nil {
			return err
		}
	}
	s.replace(all)
	s.contact()
	return nil
}

// UpdateResourceVersion is called by the reflector after each event and bookmark.
func (s sink[T]) UpdateResourceVersion(string) { s.contact() }

func pass[T any](obj any, to func(*T)) error {
	o, ok := obj.(*T)
	if !ok {
		return fmt.Errorf("the API server sent a %T, not a %T", obj, o)
	}
	to(o)
	return nil
}
