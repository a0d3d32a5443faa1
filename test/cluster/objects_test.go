//go:build cluster

package main

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const space = metav1.NamespaceDefault // of claims and pods

func (i *installation) must(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatal(err)
	}
}

// claims makes claims and waits until all are bound; it answers their PersistentVolumes.
func (i *installation) claims(n int) []*corev1.PersistentVolume {
	i.t.Helper()
	return i.claimsNamed("claim", n)
}

func (i *installation) claimsNamed(kind string, n int) []*corev1.PersistentVolume {
	i.t.Helper()
	names := make([]string, n)
	for k := range names {
		names[k] = fmt.Sprintf("%s-%s-%d", i.class, kind, k)
		i.makeClaim(names[k])
	}
	volumes := make([]*corev1.PersistentVolume, n)
	for k, name := range names {
		volumes[k] = i.bound(name)
	}
	return volumes
}

// bound waits for a claim's PersistentVolume.
func (i *installation) bound(claim string) (volume *corev1.PersistentVolume) {
	i.t.Helper()
	seen.until(i.t, "claim "+claim+" is bound", func() (err error) {
		volume, err = seen.volumeOf(space, claim)
		return err
	})
	return volume
}

// What a claim can ask for beyond the usual.
func raw(c *corev1.PersistentVolumeClaim) {
	block := corev1.PersistentVolumeBlock
	c.Spec.VolumeMode = &block
}

func shared(c *corev1.PersistentVolumeClaim) {
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
}

func (i *installation) makeClaim(name string, with ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	i.t.Helper()
	claim := i.claimFor(name)
	for _, change := range with {
		change(claim)
	}
	made, err := plane.Admin.CoreV1().PersistentVolumeClaims(space).Create(i.t.Context(), claim, metav1.CreateOptions{})
	i.must(err)
	return made
}

// claimFor is the usual claim.
func (i *installation) claimFor(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &i.class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("64Mi")}},
		},
	}
}

// node makes what a kubelet and the driver's node plugin make when a machine joins, and waits until Kubernetes takes
// the node for ready. It is gone with the test.
func (i *installation) node(suffix string) string {
	i.t.Helper()
	name := i.class + "-" + suffix
	i.joinNode(name)
	return name
}

// joinNode does so for a name, which may have been there before.
func (i *installation) joinNode(name string) {
	i.t.Helper()
	i.makeNode(name, nil)
	i.register(name, nil)
}

// register says that a node has the driver's plugin, and which labels are its topology.
func (i *installation) register(name string, topology []string) {
	i.t.Helper()
	_, err := plane.Admin.StorageV1().CSINodes().Create(i.t.Context(), &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: i.driver, NodeID: name, TopologyKeys: topology}}},
	}, metav1.CreateOptions{})
	i.must(err)
}

func (i *installation) makeNode(name string, more map[string]string) {
	i.t.Helper()
	labelled := map[string]string{corev1.LabelHostname: name}
	maps.Copy(labelled, more)
	_, err := plane.Admin.CoreV1().Nodes().Create(i.t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      labelled,
			Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
		},
	}, metav1.CreateOptions{})
	i.must(err)
	i.t.Cleanup(func() { i.dropNode(name) })
	i.setReady(name, corev1.ConditionTrue)
	seen.until(i.t, "node "+name+" has lost its taint", func() error {
		n, err := seen.nodes.Get(name)
		if err == nil && len(n.Spec.Taints) > 0 {
			err = fmt.Errorf("taints %v", n.Spec.Taints)
		}
		return err
	})
}

func (i *installation) dropNode(name string) {
	ctx := i.t.Context()
	if ctx.Err() != nil { // in a clean-up
		ctx = background()
	}
	err := errors.Join(
		ignoreGone(plane.Admin.StorageV1().CSINodes().Delete(ctx, name, metav1.DeleteOptions{})),
		ignoreGone(plane.Admin.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})),
	)
	if err != nil {
		i.t.Errorf("node %s: %v", name, err)
	}
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// setReady writes the condition that a kubelet writes.
func (i *installation) setReady(node string, status corev1.ConditionStatus) {
	i.t.Helper()
	patch := fmt.Sprintf(`{"status":{"capacity":{"cpu":"64","memory":"64Gi","pods":"200"},"allocatable":{"cpu":"64","memory":"64Gi","pods":"200"},`+
		`"conditions":[{"type":"Ready","status":%q,"reason":"Test","lastHeartbeatTime":%q,"lastTransitionTime":%q}]}}`, status, now(), now())
	_, err := plane.Admin.CoreV1().Nodes().Patch(i.t.Context(), node, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	i.must(err)
}

// inUse writes what a kubelet reports before it mounts a volume, and until it has unmounted it.
func (i *installation) inUse(node string, volumes ...*corev1.PersistentVolume) {
	i.t.Helper()
	names := make([]string, 0, len(volumes))
	for _, v := range volumes {
		names = append(names, fmt.Sprintf("%q", "kubernetes.io/csi/"+i.driver+"^"+v.Spec.CSI.VolumeHandle))
	}
	patch := fmt.Sprintf(`{"status":{"volumesInUse":[%s]}}`, strings.Join(names, ","))
	_, err := plane.Admin.CoreV1().Nodes().Patch(i.t.Context(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	i.must(err)
}

// attachmentName is a test's own; the attach/detach controller has others.
func attachmentName(volume *corev1.PersistentVolume, node string) string {
	return "csi-" + volume.Name + "-" + node
}

// attach makes a VolumeAttachment as the attach/detach controller does, and does not wait.
func (i *installation) attach(volume *corev1.PersistentVolume, node string) string {
	i.t.Helper()
	name := attachmentName(volume, node)
	_, err := plane.Admin.StorageV1().VolumeAttachments().Create(i.t.Context(), &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: i.driver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume.Name},
		},
	}, metav1.CreateOptions{})
	i.must(err)
	i.t.Cleanup(func() { forceAway(i.t, name) })
	return name
}

// detach deletes a VolumeAttachment, and does not wait.
func (i *installation) detach(attachment string) {
	i.t.Helper()
	i.must(plane.Admin.StorageV1().VolumeAttachments().Delete(i.t.Context(), attachment, metav1.DeleteOptions{}))
}

// forceAway is for what a test leaves behind, and for tests of just that: the finalizer is taken off by hand.
func forceAway(t *testing.T, attachment string) {
	t.Helper()
	client := plane.Admin.StorageV1().VolumeAttachments()
	_, patched := client.Patch(background(), attachment, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	deleted := client.Delete(background(), attachment, metav1.DeleteOptions{})
	if err := errors.Join(ignoreGone(patched), ignoreGone(deleted)); err != nil {
		t.Errorf("VolumeAttachment %s: %v", attachment, err)
	}
}

func (i *installation) awaitAttached(attachments ...string) {
	i.t.Helper()
	seen.until(i.t, "attached", func() error {
		for _, name := range attachments {
			a, err := seen.attachments.Get(name)
			switch {
			case err != nil:
				return err
			case !a.Status.Attached:
				return fmt.Errorf("%s is not attached: %v", name, a.Status.AttachError)
			}
		}
		return nil
	})
}

func (i *installation) awaitGone(attachments ...string) {
	i.t.Helper()
	seen.until(i.t, "detached", func() error {
		for _, name := range attachments {
			if a, err := seen.attachments.Get(name); err == nil {
				return fmt.Errorf("%w: %s, %v", errStill, name, a.Status)
			}
		}
		return nil
	})
}
