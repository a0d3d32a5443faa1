//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
)

// patience is for everything that Kubernetes, its sidecars and the driver do in a second on a quiet machine.
const patience = 2 * time.Minute

// view is what the tests see of Kubernetes: watches of their own, so that waiting means waiting for a change.
type view struct {
	claims      corelisters.PersistentVolumeClaimLister
	volumes     corelisters.PersistentVolumeLister
	nodes       corelisters.NodeLister
	pods        corelisters.PodLister
	events      corelisters.EventLister
	attachments storagelisters.VolumeAttachmentLister
	capacities  storagelisters.CSIStorageCapacityLister
	snapshots   cache.GenericLister
	close       func()

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, at every change
	history []moment      // of all VolumeAttachments, in the order of the API server
}

// look begins to watch, and waits until everything was listed.
func look(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	client, err := dynamic.NewForConfig(plane.Config())
	if err != nil {
		cancel()
		return err
	}
	factory, others := informers.NewSharedInformerFactory(plane.Admin, 0), dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	core, storage := factory.Core().V1(), factory.Storage().V1()
	snapshots := others.ForResource(schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshots"})
	v := &view{
		claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(),
		nodes: core.Nodes().Lister(), pods: core.Pods().Lister(), events: core.Events().Lister(),
		attachments: storage.VolumeAttachments().Lister(), capacities: storage.CSIStorageCapacities().Lister(), snapshots: snapshots.Lister(),
		close:   func() { cancel(); factory.Shutdown(); others.Shutdown() },
		changed: make(chan struct{}),
	}
	seen = v
	for _, informer := range []cache.SharedIndexInformer{
		core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(), core.Nodes().Informer(),
		core.Pods().Informer(), core.Events().Informer(), storage.VolumeAttachments().Informer(),
		storage.CSIStorageCapacities().Informer(), snapshots.Informer(),
	} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    v.note,
			UpdateFunc: func(_, o any) { v.note(o) },
			DeleteFunc: v.noteGone,
		}); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	others.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), snapshots.Informer().HasSynced) {
		return errors.New("no list of snapshots")
	}
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("no list of %s", kind)
		}
	}
	return nil
}

// note remembers the states of VolumeAttachments, and wakes who waits.
func (v *view) note(object any) { v.remember(object, false) }

func (v *view) noteGone(object any) {
	if missed, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = missed.Obj
	}
	v.remember(object, true)
}

func (v *view) remember(object any, gone bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if a, ok := object.(*storagev1.VolumeAttachment); ok {
		v.history = append(v.history, v.momentOf(a, gone))
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *view) change() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// attachedAt is when a VolumeAttachment was first seen attached; zero: never so far. The same name may have been
// another's before, hence the UID.
func (v *view) attachedAt(name, uid string) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.history {
		if m.name == name && m.uid == uid && m.attached {
			return m.at
		}
	}
	return time.Time{}
}

// until waits until check has nothing to complain about; it is asked at every change.
func (v *view) until(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		changed := v.change()
		err := check()
		if err == nil {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		case <-t.Context().Done():
			t.Fatalf("interrupted: %s: %v", what, err)
		}
	}
}

// volumeOf is the PersistentVolume to which a claim is bound.
func (v *view) volumeOf(namespace, claim string) (*corev1.PersistentVolume, error) {
	c, err := v.claims.PersistentVolumeClaims(namespace).Get(claim)
	if err != nil {
		return nil, err
	}
	if c.Status.Phase != corev1.ClaimBound {
		return nil, fmt.Errorf("claim %s is %s", claim, c.Status.Phase)
	}
	return v.volumes.Get(c.Spec.VolumeName)
}

// errStill says that something is there that should be gone.
var errStill = errors.New("still there")
