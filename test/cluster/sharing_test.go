//go:build cluster

package main

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Kubernetes gives a ReadWriteMany raw block volume to any two pods. The second one's node gets it only when both are one
// KubeVirt virtual machine's, which is what such a volume is for.
func TestRawBlockIsForOneMachine(t *testing.T) {
	i := newInstallation(t)
	first, second := i.node("first"), i.node("second")
	claim := i.makeClaim(i.class, raw, shared).Name
	volume := i.bound(claim)
	i.runPod("one", first, claim)
	i.awaitAttached(i.awaitAttachmentOf(volume, first))
	i.runPod("two", second, claim)
	wanted := i.awaitAttachmentOf(volume, second)
	i.awaitRefused(wanted, second, i.class+"-one", i.class+"-two")
	i.awaitEvent("PersistentVolumeClaim", claim, corev1.EventTypeWarning, "AttachRefused", i.class+"-one", i.class+"-two")
	i.killPod("one")
	i.awaitAttached(wanted)

	machine := i.makeClaim(i.class+"-machine", raw, shared).Name
	disk := i.bound(machine)
	i.launcher("source", first, machine)
	i.awaitAttached(i.awaitAttachmentOf(disk, first))
	i.launcher("target", second, machine)
	i.awaitAttached(i.awaitAttachmentOf(disk, first), i.awaitAttachmentOf(disk, second))
}

// The access modes of a PersistentVolume are changed under a node that writes. What was granted to it stands in its
// VolumeAttachment, and keeps readers out until it is detached, for this controller and for the next one; what is attached
// after that is for readers, and keeps writers out when the access modes are changed back.
func TestAccessModesAreChangedWhileAttached(t *testing.T) {
	i := newInstallation(t)
	first, second, third, fourth := i.node("first"), i.node("second"), i.node("third"), i.node("fourth")
	volume := i.claims(1)[0]
	writer := i.mounted(volume, first)
	i.awaitGranted(writer, "SingleNode")

	i.setAccessModes(volume, corev1.ReadOnlyMany)
	reader := i.attach(volume, second)
	i.awaitRefused(reader, second, first)
	i.restart()
	i.awaitRefusedAgain(reader, second, first)
	i.awaitGranted(writer, "SingleNode")

	i.inUse(first)
	i.detach(writer)
	i.awaitGone(writer)
	i.awaitAttached(reader)
	another := i.attach(volume, third)
	i.awaitAttached(another)
	i.awaitGranted(reader, "Readers")
	i.awaitGranted(another, "Readers")

	i.setAccessModes(volume, corev1.ReadWriteOnce)
	late := i.attach(volume, fourth)
	i.awaitRefused(late, fourth, second, third)
	i.restart()
	i.awaitRefusedAgain(late, fourth, second, third)
	for _, a := range []string{reader, another} {
		i.detach(a)
		i.awaitGone(a)
	}
	i.awaitAttached(late)
	i.awaitGranted(late, "SingleNode")
}

// setAccessModes does what an administrator can do at any time.
func (i *installation) setAccessModes(volume *corev1.PersistentVolume, mode corev1.PersistentVolumeAccessMode) {
	i.t.Helper()
	patch := fmt.Sprintf(`{"spec":{"accessModes":[%q]}}`, mode)
	_, err := plane.Admin.CoreV1().PersistentVolumes().Patch(i.t.Context(), volume.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	i.must(err)
}

// awaitGranted waits until an attachment that is attached keeps that it was granted as that.
func (i *installation) awaitGranted(attachment, mode string) {
	i.t.Helper()
	seen.until(i.t, attachment+" is granted", func() error {
		a, err := seen.attachments.Get(attachment)
		if err == nil && (!a.Status.Attached || a.Status.AttachmentMetadata["grantedMode"] != mode) {
			err = fmt.Errorf("attached: %t, %v", a.Status.Attached, a.Status.AttachmentMetadata)
		}
		return err
	})
}

// launcher is a virt-launcher, the pod that a virtual machine runs in: it has two of them while it migrates.
func (i *installation) launcher(suffix, node, claim string) {
	i.t.Helper()
	controls := true
	i.makePodOf([]metav1.OwnerReference{{
		APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstance", Name: i.class, UID: "6f1c2b1e-7d1a-4c64-9a55-0d5c3f2a7b10", Controller: &controls,
	}}, suffix, claim, func(p *corev1.PodSpec) { p.NodeName = node })
}
