//go:build cluster

package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// launcher is a virt-launcher, the pod that a virtual machine runs in: it has two of them while it migrates.
func (i *installation) launcher(suffix, node, claim string) {
	i.t.Helper()
	controls := true
	i.makePodOf([]metav1.OwnerReference{{
		APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstance", Name: i.class, UID: "6f1c2b1e-7d1a-4c64-9a55-0d5c3f2a7b10", Controller: &controls,
	}}, suffix, claim, func(p *corev1.PodSpec) { p.NodeName = node })
}
