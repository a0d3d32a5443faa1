//go:build cluster

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rds-csi/rds-csi/test/cluster/controlplane"
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
	held := i.mounted(volume, first)
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
	s.only(t, mark, "1")

	mark = s.mark()
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
	held := i.mounted(volume, first)
	s.await(t, "1")

	forceAway(t, held)
	i.awaitGone(held)
	s.await(t, "0")
	mark := s.mark()
	wanted := i.attach(volume, second)
	i.awaitRefused(wanted, second, first)
	i.restart()
	s.await(t, "0")
	i.awaitRefusedAgain(wanted, second, first)
	s.only(t, mark, "0")

	mark = s.mark()
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
	s := i.scrape()
	volume, held := i.mountedByPod("one", first)
	s.await(t, "1")

	i.setReady(first, corev1.ConditionFalse)
	i.killPod("one")
	i.runPod("two", second, i.class)
	i.awaitGone(held) // by force
	s.await(t, "0")
	mark := s.mark()
	wanted := i.awaitAttachmentOf(volume, second)
	i.awaitRefused(wanted, second, first)
	i.restart()
	s.await(t, "0")
	i.awaitRefusedAgain(wanted, second, first)
	s.only(t, mark, "0")

	mark = s.mark()
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
	s := i.scrape()
	volume, held := i.mountedByPod("one", first)
	s.await(t, "1")
	mark := s.mark()

	i.setReady(first, corev1.ConditionFalse)
	i.runPod("two", second, i.class)
	i.restart()
	s.await(t, "1")
	s.only(t, mark, "1") // the machine may be alive

	mark = s.mark()
	i.outOfService(first)
	i.killPod("one")
	i.awaitGone(held)
	i.awaitAttached(i.awaitAttachmentOf(volume, second))
	s.await(t, "1")
	s.only(t, mark, "0", "1")
}

// mounted attaches a volume to a node, whose kubelet then has it in use.
func (i *installation) mounted(volume *corev1.PersistentVolume, node string) (attachment string) {
	i.t.Helper()
	attachment = i.attach(volume, node)
	i.awaitAttached(attachment)
	i.inUse(node, volume)
	return attachment
}

// mountedByPod does so for the claim of a pod; the attach/detach controller attaches it. The claim is named as the class.
func (i *installation) mountedByPod(suffix, node string) (volume *corev1.PersistentVolume, attachment string) {
	i.t.Helper()
	volume = i.bound(i.makeClaim(i.class).Name)
	i.runPod(suffix, node, i.class)
	attachment = i.awaitAttachmentOf(volume, node)
	i.awaitAttached(attachment)
	i.inUse(node, volume)
	return volume, attachment
}

// Two VolumeAttachments at once for a volume that one node may have: one of them, and only one, is attached, also when the
// controller is killed after it has said yes and before Kubernetes has written that down. (That no volume is ever
// attached to more nodes than may have it, every test asserts: prepare.)
func TestTwoWantOneVolume(t *testing.T) {
	const late = 2 * time.Second
	i := prepare(t)
	way := i.sidecarsOwnWay()
	i.startController()
	i.startSidecars()
	i.awaitReady()
	nodes := []string{i.node("a"), i.node("b")}
	volumes := i.claims(8)
	s := i.scrape()
	way.Slow(late)
	for _, v := range volumes {
		for _, node := range nodes {
			i.attach(v, node)
		}
	}
	i.killUnconfirmed(volumes, late/10)
	way.Slow(0)
	i.startController()
	i.awaitAnswers(volumes, nodes)
	for _, v := range volumes {
		if i.attachedTo(v, nodes...) == 0 {
			t.Logf("volume %s was refused to both", v.Name)
			i.detach(attachmentName(v, nodes[1]))
		}
	}
	i.restart()
	seen.until(t, "one of each pair is attached", func() error {
		for _, v := range volumes {
			if i.attachedTo(v, nodes...) == 0 {
				return fmt.Errorf("volume %s is on no node", v.Name)
			}
		}
		return nil
	})
	s.await(t, "8")
	mark := s.mark()
	has, other := nodes[0], nodes[1]
	if !isAttached(attachmentName(volumes[0], has)) {
		has, other = other, has
	}
	wish := attachmentName(volumes[0], other)
	forceAway(t, wish) // it may be there, and refused
	i.awaitGone(wish)
	i.attach(volumes[0], other)
	i.awaitRefused(wish, other, has)
	s.only(t, mark, "8")
}

// killUnconfirmed kills the controller between what it has granted and what Kubernetes has written down of that, which is
// later by much more than the time that is given.
func (i *installation) killUnconfirmed(volumes []*corev1.PersistentVolume, within time.Duration) {
	i.t.Helper()
	after := 1 + rand.IntN(len(volumes))
	i.poll("publishes are granted", i.controller, func(context.Context) error {
		if n := len(i.granted(volumes)); n < after {
			return fmt.Errorf("%d of %d are", n, after)
		}
		return nil
	})
	<-soon(i.t, within)
	i.controller.Kill()
	granted := i.granted(volumes)
	open := slices.DeleteFunc(slices.Clone(granted), isAttached)
	i.t.Logf("killed: %d of %d granted publishes were not written down", len(open), len(granted))
	if len(open) == 0 {
		i.t.Error("the kill did not fall between the two")
	}
}

// sidecarsOwnWay gives the sidecars, which are to be started after that, a way to the API server of their own.
func (i *installation) sidecarsOwnWay() *controlplane.Proxy {
	i.t.Helper()
	way, err := controlplane.NewProxy(i.t.Context(), plane.Front.Address())
	i.must(err)
	i.t.Cleanup(way.Close)
	i.must(plane.Kubeconfig(i.t.Context(), i.namespace, i.chart.account, way.Address(), i.in("sidecar.kubeconfig")))
	return way
}

// granted names the VolumeAttachments of these volumes whose publish the controller has granted, by its own log.
func (i *installation) granted(volumes []*corev1.PersistentVolume) (attachments []string) {
	i.t.Helper()
	log, err := os.ReadFile(i.controller.Log)
	i.must(err)
	for line := range bytes.Lines(log) {
		var said struct{ Msg, RPC, Code, Volume, Node string }
		if json.Unmarshal(line, &said) != nil || said.Msg != "done" || said.RPC != "ControllerPublishVolume" || said.Code != "OK" {
			continue
		}
		for _, v := range volumes {
			if v.Spec.CSI.VolumeHandle == said.Volume {
				attachments = append(attachments, attachmentName(v, said.Node))
			}
		}
	}
	return attachments
}

// awaitAnswers waits until each node that wants a volume has it or is refused. A restart may leave both refused, when it
// finds two requests of one moment, and nothing that says which came first: then one has to give up.
func (i *installation) awaitAnswers(volumes []*corev1.PersistentVolume, nodes []string) {
	i.t.Helper()
	seen.until(i.t, "all nodes have an answer", func() error {
		for _, v := range volumes {
			for _, node := range nodes {
				a, err := seen.attachments.Get(attachmentName(v, node))
				if err != nil {
					return err
				}
				if err := refusedFor(a, node, nodes...); err != nil && !a.Status.Attached {
					return err
				}
			}
		}
		return nil
	})
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
