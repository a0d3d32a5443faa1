//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// What is in a restored volume is proved where there are file systems (test/kernel). Here is proved that what users ask
// of Kubernetes gets there and back, through the real snapshot-controller and sidecars.

// A snapshot of a volume in use is ready at once on a pool that shares blocks, outlives its volume, and becomes volumes
// of the same size and of a larger one.
func TestSnapshot(t *testing.T) {
	i := newInstallation(t)
	claim := i.makeClaim(i.class).Name
	volume := i.bound(claim)
	held := i.attach(volume, i.node("node"))
	i.awaitAttached(held)
	snapshot := i.snapshot("kept", claim)
	if size := i.awaitSnapshot(snapshot); size != "64Mi" {
		t.Errorf("the snapshot asks for %s of room", size)
	}
	i.sized(i.bound(i.makeClaim(i.class+"-restored", from("VolumeSnapshot", snapshot)).Name), "64Mi")

	i.detach(held)
	i.awaitGone(held)
	i.dropClaim(claim, volume)
	i.sized(i.bound(i.makeClaim(i.class+"-later", from("VolumeSnapshot", snapshot), larger("128Mi")).Name), "128Mi")
	i.dropSnapshot(snapshot)
	if left := i.files(t); len(left) != 2 {
		t.Errorf("on the RDS are %v", left)
	}
}

// On a pool that has to copy, a snapshot waits until its volume is detached, says on which node it is, and is ready when
// the copy is whole; so is a restored volume. A controller that dies in the middle, of which the copy takes long enough,
// neither loses nor doubles a copy.
func TestSnapshotByCopy(t *testing.T) {
	class := ""
	i := newInstallation(t, func(i *installation, v values) {
		class = i.class + "-copy"
		v["config"].(map[string]any)["rds"] = []any{i.startSimulator("slow", "--quirk", "file-copy-time=10s")}
		v.add("storageClasses", storageClass(class, map[string]any{"poolPath": "/raid10/k8s"}))
	})
	of := func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = &class }
	claim := i.makeClaim(i.class, of).Name
	node := i.node("node")
	held := i.attach(i.bound(claim), node)
	i.awaitAttached(held)
	snapshot := i.snapshot("copied", claim)
	seen.until(t, "the snapshot is refused", func() error {
		status, err := i.snapshotStatus(snapshot)
		if ready, _, _ := unstructured.NestedBool(status, "readyToUse"); ready {
			t.Fatal("a copy was made of what a node may be writing")
		}
		if message, _, _ := unstructured.NestedString(status, "error", "message"); err == nil && !strings.Contains(message, node) {
			err = fmt.Errorf("its error is %q", message)
		}
		return err
	})
	i.detach(held)
	<-soon(t, 3*time.Second)
	i.restart()
	i.awaitSnapshot(snapshot)
	i.awaitEvent("PersistentVolumeClaim", claim, corev1.EventTypeNormal, "SnapshotProgress", "full copy") // whichever of the two saw how much of it
	restored := i.makeClaim(i.class+"-restored", of, from("VolumeSnapshot", snapshot)).Name
	<-soon(t, 3*time.Second)
	i.restart()
	i.sized(i.bound(restored), "64Mi")
	left := i.filesOn(t, "slow") // beside the images lie small files that say how far a copy is
	images := slices.DeleteFunc(slices.Clone(left), func(name string) bool { return filepath.Ext(name) != ".img" })
	if len(images) != 3 {
		t.Errorf("on the RDS are not the volume, its snapshot and the restored one: %v", left)
	}
}

// A clone is a volume of its own: its source can go first.
func TestClone(t *testing.T) {
	i := newInstallation(t)
	claim := i.makeClaim(i.class).Name
	volume := i.bound(claim)
	clone := i.bound(i.makeClaim(i.class+"-clone", from("PersistentVolumeClaim", claim)).Name)
	i.sized(clone, "64Mi")
	if clone.Spec.CSI.VolumeHandle == volume.Spec.CSI.VolumeHandle {
		t.Error("both are one volume")
	}
	i.dropClaim(claim, volume)
	held := i.attach(clone, i.node("node"))
	i.awaitAttached(held)
}

// from makes a claim one for a volume with the content of a snapshot or of another claim's.
func from(kind, name string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: kind, Name: name}
		if kind == "VolumeSnapshot" {
			group := "snapshot.storage.k8s.io"
			c.Spec.DataSource.APIGroup = &group
		}
	}
}

func larger(size string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
	}
}

func (i *installation) sized(volume *corev1.PersistentVolume, want string) {
	i.t.Helper()
	if got := volume.Spec.Capacity.Storage().String(); got != want {
		i.t.Errorf("volume %s has %s, want %s", volume.Name, got, want)
	}
}

// snapshot asks for one, and does not wait.
func (i *installation) snapshot(suffix, claim string) (name string) {
	i.t.Helper()
	name = i.class + "-" + suffix
	i.must(plane.Apply(i.t.Context(), fmt.Appendf(nil, `{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: %s, namespace: %s}, `+
		`spec: {volumeSnapshotClassName: %s, source: {persistentVolumeClaimName: %s}}}`, name, space, i.class, claim)))
	return name
}

func (i *installation) snapshotStatus(name string) (map[string]any, error) {
	found, err := seen.snapshots.ByNamespace(space).Get(name)
	if err != nil {
		return nil, err
	}
	status, _, err := unstructured.NestedMap(found.(*unstructured.Unstructured).Object, "status")
	return status, err
}

// awaitSnapshot waits until it can be used, and says how much room a volume made from it needs.
func (i *installation) awaitSnapshot(name string) (size string) {
	i.t.Helper()
	seen.until(i.t, "snapshot "+name+" is ready", func() error {
		status, err := i.snapshotStatus(name)
		if ready, _, _ := unstructured.NestedBool(status, "readyToUse"); err == nil && !ready {
			err = fmt.Errorf("its status is %v", status)
		}
		size, _, _ = unstructured.NestedString(status, "restoreSize")
		return err
	})
	return size
}

// dropClaim deletes a claim and waits until its volume is gone.
func (i *installation) dropClaim(claim string, volume *corev1.PersistentVolume) {
	i.t.Helper()
	i.must(plane.Admin.CoreV1().PersistentVolumeClaims(space).Delete(i.t.Context(), claim, metav1.DeleteOptions{}))
	seen.until(i.t, "the PersistentVolume is gone", func() error {
		if v, err := seen.volumes.Get(volume.Name); err == nil {
			return fmt.Errorf("%w: %s is %s: %s", errStill, v.Name, v.Status.Phase, v.Status.Message)
		}
		return nil
	})
}

// dropSnapshot deletes a snapshot and waits until the driver has.
func (i *installation) dropSnapshot(name string) {
	i.t.Helper()
	client := plane.Admin.Discovery().RESTClient()
	path := "/apis/snapshot.storage.k8s.io/v1/"
	i.must(client.Delete().AbsPath(path + "namespaces/" + space + "/volumesnapshots/" + name).Do(i.t.Context()).Error())
	i.poll("its content is gone", i.controller, func(ctx context.Context) error {
		text, err := client.Get().AbsPath(path + "volumesnapshotcontents").DoRaw(ctx)
		if err == nil && strings.Contains(string(text), fmt.Sprintf("%q", name)) {
			err = errors.New("it is there")
		}
		return err
	})
}
