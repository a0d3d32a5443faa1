//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What Kubernetes, a kubelet and an RDS say of attached volumes is made to contradict itself, in each way that a test can
// bring about from outside. Each kind is counted, and told where somebody looks for it: on the claim, on the Node where one
// is concerned, on the PersistentVolume where the claim is gone. When the matter is settled, the count is 0 again.
func TestDrift(t *testing.T) {
	t.Parallel()
	i := newInstallation(t, reconciled("2s", "1h"))
	vanishing, node := i.node("vanishing"), i.node("node")
	volumes := i.claims(5)
	onGone, released, byHand, unexported, removed := volumes[0], volumes[1], volumes[2], volumes[3], volumes[4]
	i.inUse(node, byHand)
	attached := map[*corev1.PersistentVolume]string{onGone: i.attach(onGone, vanishing), released: i.attach(released, vanishing)}
	for _, v := range []*corev1.PersistentVolume{byHand, unexported, removed} {
		attached[v] = i.attach(v, node)
	}
	for _, name := range attached {
		i.awaitAttached(name)
	}
	i.release(released)
	item := i.diskItem(removed)
	f := i.follow()
	for _, kind := range []string{"node_gone", "in_use_unattached", "volume_gone", "export_lost"} {
		f.await(t, drift(kind), "0")
	}
	f.await(t, gauge, "5")

	i.dropNode(vanishing)
	forceAway(t, attached[byHand])
	i.console("rds", `/disk set [find slot="`+slotOf(unexported)+`"] nvme-tcp-export=no`)
	i.console("rds", `/disk remove [find slot="`+slotOf(removed)+`"]`)

	f.await(t, drift("node_gone"), "2")
	f.await(t, drift("in_use_unattached"), "1")
	f.await(t, drift("volume_gone"), "1")
	f.await(t, gauge, "4")         // all but the one whose VolumeAttachment is gone
	f.await(t, repairs("ok"), "1") // it counted until then, perhaps between two scrapes: the event below says so
	f.await(t, drift("export_lost"), "0")
	i.awaitExported(unexported)
	i.awaitDescribed(onGone.Spec.ClaimRef, "AttachmentDrift", "node_gone", vanishing)
	i.awaitDescribed(&corev1.ObjectReference{Kind: "PersistentVolume", Name: released.Name, UID: released.UID}, "AttachmentDrift", "node_gone", vanishing)
	i.awaitDescribed(byHand.Spec.ClaimRef, "AttachmentDrift", "in_use_unattached", node)
	i.awaitDescribed(nodeReference(node), "AttachmentDrift", "in_use_unattached", slotOf(byHand))
	i.awaitDescribed(removed.Spec.ClaimRef, "AttachmentDrift", "volume_gone", node)
	i.awaitDescribed(unexported.Spec.ClaimRef, "AttachmentDrift", "export_lost", node)
	i.awaitDescribed(unexported.Spec.ClaimRef, "ExportRepaired", slotOf(unexported))

	i.joinNode(vanishing) // another machine, for all that anybody knows
	i.awaitDescribed(nodeReference(vanishing), "AttachmentDrift", "node_gone", slotOf(onGone))
	f.await(t, drift("node_gone"), "2")

	i.detach(attached[onGone])
	i.detach(attached[released])
	i.inUse(node)
	i.console("rds", item)
	for _, kind := range []string{"node_gone", "in_use_unattached", "volume_gone", "export_lost"} {
		f.await(t, drift(kind), "0")
	}
	f.await(t, gauge, "2")
	f.only(t, repairs("ok"), "0", "1")
	f.only(t, repairs("error"), "0")
	f.only(t, drift("export_lost"), "0", "1")
}

func nodeReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Node", Name: name, UID: types.UID(name)}
}

// release deletes a volume's claim, and keeps the volume.
func (i *installation) release(v *corev1.PersistentVolume) {
	i.t.Helper()
	retain := []byte(`{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
	_, err := plane.Admin.CoreV1().PersistentVolumes().Patch(i.t.Context(), v.Name, types.MergePatchType, retain, metav1.PatchOptions{})
	i.must(err)
	i.t.Cleanup(func() {
		if err := ignoreGone(plane.Admin.CoreV1().PersistentVolumes().Delete(background(), v.Name, metav1.DeleteOptions{})); err != nil {
			i.t.Error(err)
		}
	})
	i.must(plane.Admin.CoreV1().PersistentVolumeClaims(space).Delete(i.t.Context(), v.Spec.ClaimRef.Name, metav1.DeleteOptions{}))
	seen.until(i.t, "volume "+v.Name+" is released", func() error {
		now, err := seen.volumes.Get(v.Name)
		if err == nil && now.Status.Phase != corev1.VolumeReleased {
			err = fmt.Errorf("it is %s", now.Status.Phase)
		}
		return err
	})
}

// diskItem is the command that makes a volume's disk item anew, of the file that is there, as the runbook has it.
func (i *installation) diskItem(v *corev1.PersistentVolume) string {
	i.t.Helper()
	slot := slotOf(v)
	of := func(property string) string {
		return i.ask("rds", fmt.Sprintf(`:put [/disk get [find slot="%s"] %s]`, slot, property))
	}
	return fmt.Sprintf(`/disk add type=file slot="%s" file-path="%s" mount-filesystem=no comment="%s" nvme-tcp-export=yes nvme-tcp-server-port=%s nvme-tcp-server-nqn="%s"`,
		slot, of("file-path"), strings.NewReplacer(`"`, `\"`, `$`, `\$`).Replace(of("comment")), of("nvme-tcp-server-port"), of("nvme-tcp-server-nqn"))
}

// awaitDescribed waits for an event of the driver among those that kubectl describe shows of an object: it asks the API
// server for them by the object's name, namespace, kind and UID; of a Node by its name in the place of the UID as well.
func (i *installation) awaitDescribed(of *corev1.ObjectReference, reason string, words ...string) {
	i.t.Helper()
	kind, uid := of.Kind, string(of.UID)
	if kind == "" {
		kind = "PersistentVolumeClaim"
	}
	events := plane.Admin.CoreV1().Events(of.Namespace)
	selector := events.GetFieldSelector(&of.Name, &of.Namespace, &kind, &uid).String()
	seen.until(i.t, fmt.Sprintf("%s is told on %s %s", reason, kind, of.Name), func() error {
		ctx, cancel := context.WithTimeout(i.t.Context(), patience)
		defer cancel()
		list, err := events.List(ctx, metav1.ListOptions{FieldSelector: selector})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Reason == reason && e.Source.Component == "rds-csi" && e.Type != "" && containsAll(e.Message, words) {
				return nil
			}
		}
		return fmt.Errorf("%w, only %d others by %s", errNotTold, len(list.Items), selector)
	})
}

var errNotTold = errors.New("it is not told")

func containsAll(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}
