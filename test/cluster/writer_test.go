//go:build cluster

package main

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What Kubernetes lets happen to the first writer of a volume, and whether a second one gets in. In all of these the
// first node's kubelet has the volume mounted, as its Node object says.

// The Node object goes and comes back under the same name while its machine runs on: its attachment stays, counts, and
// keeps others out, before and after and across a restart.
func TestNodeMadeAgain(t *testing.T) {
	i := newInstallation(t)
	first, second := i.node("first"), i.node("second")
	volume := i.claims(1)[0]
	s := i.scrape()
	held := i.attach(volume, first)
	i.awaitAttached(held)
	i.inUse(first, volume)
	s.await(t, "1")
	mark := s.mark()

	i.dropNode(first)
	wanted := i.attach(volume, second)
	i.awaitRefused(wanted, second, first)
	i.restart()
	s.await(t, "1")
	i.awaitRefusedAgain(wanted, second, first)

	i.joinNode(first)
	i.awaitRefusedAgain(wanted, second, first)
	i.restart()
	s.await(t, "1")
	i.awaitRefusedAgain(wanted, second, first)

	i.detach(held)
	i.awaitGone(held)
	i.awaitAttached(wanted) // the new kubelet reports nothing mounted
	s.await(t, "1")
	s.only(t, mark, "0", "1")
}

// An administrator takes the finalizer off a VolumeAttachment: it is gone without an unpublish, and Kubernetes takes
// the volume for free. The kubelet's report keeps the next node out until the volume is unmounted.
func TestFinalizerRemovedByHand(t *testing.T) {
	i := newInstallation(t)
	first, second := i.node("first"), i.node("second")
	volume := i.claims(1)[0]
	s := i.scrape()
	held := i.attach(volume, first)
	i.awaitAttached(held)
	i.inUse(first, volume)
	s.await(t, "1")
	mark := s.mark()

	forceAway(t, held)
	i.awaitGone(held)
	s.await(t, "0")
	wanted := i.attach(volume, second)
	i.awaitRefused(wanted, second, first)
	i.restart()
	s.await(t, "0")
	i.awaitRefusedAgain(wanted, second, first)

	i.inUse(first)
	i.awaitAttached(wanted)
	s.await(t, "1")
	s.only(t, mark, "0", "1")
}

// The attach/detach controller detaches by force from a node that is not ready when its kubelet has not unmounted in
// time (six minutes; twenty seconds in these tests). The kubelet may be alive and writing: the next node stays out
// until the administrator says that the machine is off.
func TestForcedDetach(t *testing.T) {
	i := newInstallation(t)
	first, second := i.node("first"), i.node("second")
	claim := i.makeClaim(i.class).Name
	volume := i.bound(claim)
	s := i.scrape()
	i.runPod("one", first, claim)
	held := i.awaitAttachmentOf(volume, first)
	i.awaitAttached(held)
	i.inUse(first, volume)
	s.await(t, "1")
	mark := s.mark()

	i.setReady(first, corev1.ConditionFalse)
	i.killPod("one")
	i.runPod("two", second, claim)
	i.awaitGone(held) // by force
	s.await(t, "0")
	wanted := i.awaitAttachmentOf(volume, second)
	i.awaitRefused(wanted, second, first)
	i.restart()
	s.await(t, "0")
	i.awaitRefusedAgain(wanted, second, first)

	i.outOfService(first)
	i.awaitAttached(wanted)
	s.await(t, "1")
	s.only(t, mark, "0", "1")
}

// The administrator's word that a machine is off frees its volumes at once: Kubernetes detaches without waiting for
// the kubelet, and so does the ledger.
func TestOutOfServiceTaint(t *testing.T) {
	i := newInstallation(t)
	first, second := i.node("first"), i.node("second")
	claim := i.makeClaim(i.class).Name
	volume := i.bound(claim)
	s := i.scrape()
	i.runPod("one", first, claim)
	held := i.awaitAttachmentOf(volume, first)
	i.awaitAttached(held)
	i.inUse(first, volume)
	s.await(t, "1")
	mark := s.mark()

	i.setReady(first, corev1.ConditionFalse)
	i.outOfService(first)
	i.killPod("one")
	i.runPod("two", second, claim)
	i.awaitGone(held)
	i.awaitAttached(i.awaitAttachmentOf(volume, second))
	s.await(t, "1")
	s.only(t, mark, "0", "1")
}

// Two VolumeAttachments at once for a volume that one node may have: one of them, and only one, is attached.
func TestTwoWantOneVolume(t *testing.T) {
	i := newInstallation(t)
	nodes := []string{i.node("a"), i.node("b")}
	volumes := i.claims(8)
	for _, v := range volumes {
		for _, node := range nodes {
			i.attach(v, node)
		}
	}
	seen.until(t, "one of each pair is attached", func() error {
		for _, v := range volumes {
			if n := i.attachedTo(v, nodes...); n == 0 {
				return fmt.Errorf("volume %s is on no node", v.Name)
			} else if n > 1 {
				t.Fatalf("volume %s is on %d nodes", v.Name, n)
			}
		}
		return nil
	})
	i.restart()
	i.awaitReady()
	for _, v := range volumes {
		seen.until(t, "the other is refused", func() error {
			a, err := seen.attachments.Get(attachmentName(v, nodes[1]))
			if err == nil && a.Status.Attached {
				a, err = seen.attachments.Get(attachmentName(v, nodes[0]))
			}
			if err != nil {
				return err
			}
			return refusedFor(a, nodes[0], nodes[1])
		})
		if n := i.attachedTo(v, nodes...); n != 1 {
			t.Errorf("volume %s is on %d nodes", v.Name, n)
		}
	}
}

func (i *installation) attachedTo(volume *corev1.PersistentVolume, nodes ...string) (n int) {
	for _, node := range nodes {
		if a, err := seen.attachments.Get(attachmentName(volume, node)); err == nil && a.Status.Attached {
			n++
		}
	}
	return n
}

// awaitRefusedAgain waits for a refusal that is younger than this call.
func (i *installation) awaitRefusedAgain(attachment, node string, holders ...string) {
	i.t.Helper()
	before, err := plane.Admin.StorageV1().VolumeAttachments().Get(i.t.Context(), attachment, metav1.GetOptions{})
	i.must(err)
	since := metav1.Time{}
	if before.Status.AttachError != nil {
		since = before.Status.AttachError.Time
	}
	seen.until(i.t, attachment+" is refused again", func() error {
		a, err := seen.attachments.Get(attachment)
		switch {
		case err != nil:
			return err
		case a.Status.Attached:
			i.t.Fatalf("%s is attached: a second writer got in", attachment)
		case a.Status.AttachError == nil || !since.Before(&a.Status.AttachError.Time):
			return fmt.Errorf("not since %s", since)
		}
		return refusedFor(a, node, holders...)
	})
}

// awaitAttachmentOf waits for a VolumeAttachment that the attach/detach controller made.
func (i *installation) awaitAttachmentOf(volume *corev1.PersistentVolume, node string) (name string) {
	i.t.Helper()
	seen.until(i.t, "volume "+volume.Name+" is wanted on node "+node, func() error {
		all, err := seen.attachments.List(everything())
		if err != nil {
			return err
		}
		for _, a := range all {
			if a.Spec.NodeName == node && *a.Spec.Source.PersistentVolumeName == volume.Name {
				name = a.Name
				return nil
			}
		}
		return fmt.Errorf("no VolumeAttachment among %d", len(all))
	})
	i.t.Cleanup(func() { forceAway(i.t, name) })
	return name
}

// runPod makes a pod with a claim, on a node of the test's choice: there is no kubelet to start it, but the
// attach/detach controller attaches its volume.
func (i *installation) runPod(suffix, node, claim string) {
	i.t.Helper()
	i.makePod(suffix, claim, func(p *corev1.PodSpec) { p.NodeName = node })
}

func (i *installation) makePod(suffix, claim string, place func(*corev1.PodSpec)) {
	i.t.Helper()
	i.makePodOf(nil, suffix, claim, place)
}

func (i *installation) makePodOf(owners []metav1.OwnerReference, suffix, claim string, place func(*corev1.PodSpec)) {
	i.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: i.class + "-" + suffix, OwnerReferences: owners},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "app", Image: "none"}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			}}},
		},
	}
	place(&pod.Spec)
	_, err := plane.Admin.CoreV1().Pods(space).Create(i.t.Context(), pod, metav1.CreateOptions{})
	i.must(err)
	i.t.Cleanup(func() { i.killPod(suffix) })
}

// killPod deletes a pod without waiting for its kubelet, as kubectl delete --force does.
func (i *installation) killPod(suffix string) {
	i.t.Helper()
	at := int64(0)
	i.must(ignoreGone(plane.Admin.CoreV1().Pods(space).Delete(background(), i.class+"-"+suffix, metav1.DeleteOptions{GracePeriodSeconds: &at})))
}

// outOfService is the administrator's word that a machine is off.
func (i *installation) outOfService(node string) {
	i.t.Helper()
	patch := `{"spec":{"taints":[{"key":"node.kubernetes.io/out-of-service","value":"nodeshutdown","effect":"NoExecute"}]}}`
	_, err := plane.Admin.CoreV1().Nodes().Patch(i.t.Context(), node, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	i.must(err)
}
