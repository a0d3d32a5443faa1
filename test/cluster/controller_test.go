//go:build cluster

package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Sixteen pods, placed by the real scheduler, attached by the real attach/detach controller through external-attacher:
// the gauge is right through a kill, and down to nothing when the kubelets have unmounted and the pods are gone.
func TestPods(t *testing.T) {
	i := newInstallation(t)
	nodes := []string{i.node("a"), i.node("b"), i.node("c"), i.node("d")}
	volumes := i.claims(sixteen)
	s := i.scrape()
	byNode := map[string][]*corev1.PersistentVolume{}
	var made []string
	for k, v := range volumes {
		node := nodes[k%len(nodes)]
		i.makePod(fmt.Sprint(k), v.Spec.ClaimRef.Name, func(p *corev1.PodSpec) {
			p.NodeSelector = map[string]string{corev1.LabelHostname: node}
		})
		byNode[node] = append(byNode[node], v)
	}
	for node, here := range byNode {
		for _, v := range here {
			made = append(made, i.awaitAttachmentOf(v, node))
		}
		i.inUse(node, here...)
	}
	i.awaitAttached(made...)
	s.await(t, "16")
	mark := s.mark()
	i.restart()
	s.await(t, "16")
	s.only(t, mark, "16")
	seen.until(t, "the nodes' status says what is attached", func() error {
		for node, here := range byNode {
			n, err := seen.nodes.Get(node)
			if err == nil && len(n.Status.VolumesAttached) != len(here) {
				err = fmt.Errorf("node %s: %v", node, n.Status.VolumesAttached)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})

	mark = s.mark()
	for k := range volumes {
		i.killPod(fmt.Sprint(k))
	}
	s.awaitMore(t, 20)
	s.only(t, mark, "16") // nothing is detached while the kubelets say that it is mounted
	for node := range byNode {
		i.inUse(node)
	}
	i.awaitGone(made...)
	s.await(t, "0")
	if err := descends(s.from(mark)); err != nil {
		t.Error(err)
	}
}

// descends says whether numbers only went down.
func descends(record []stretch) error {
	last := sixteen
	for _, stretch := range record {
		var n int
		if _, err := fmt.Sscan(stretch.said, &n); err != nil {
			return fmt.Errorf("%v: %w", stretch, err)
		}
		if n > last {
			return fmt.Errorf("%w: %v", errors.New("the number rose"), record)
		}
		last = n
	}
	return nil
}

// A node gets as many volumes as its CSINode says, also when more are asked for at once, before any is confirmed. Who waits gets
// in when another has left, or when the number has risen.
func TestNodeHasItsNumber(t *testing.T) {
	const number, more = 4, 3
	i := newInstallation(t)
	node := i.node("node")
	i.holds(node, number)
	var all []string
	for _, v := range i.claims(number + more) {
		all = append(all, i.attach(v, node))
	}
	held := i.awaitNumber(node, number, all)
	i.detach(held[0])
	i.awaitGone(held[0])
	all = slices.DeleteFunc(all, func(name string) bool { return name == held[0] })
	i.awaitNumber(node, number, all)
	i.holds(node, number+more)
	i.awaitAttached(all...)
}

// holds writes how many volumes a node can hold where its kubelet does.
func (i *installation) holds(node string, volumes int32) {
	i.t.Helper()
	nodes := plane.Admin.StorageV1().CSINodes()
	n, err := nodes.Get(i.t.Context(), node, metav1.GetOptions{})
	i.must(err)
	n.Spec.Drivers[0].Allocatable = &storagev1.VolumeNodeResources{Count: &volumes}
	_, err = nodes.Update(i.t.Context(), n, metav1.UpdateOptions{})
	i.must(err)
}

// awaitNumber waits until that many are attached to the node and the others are refused because of its number. More never are.
func (i *installation) awaitNumber(node string, number int, all []string) (attached []string) {
	i.t.Helper()
	seen.until(i.t, fmt.Sprintf("node %s has its %d", node, number), func() error {
		attached = nil
		var waiting error
		for _, name := range all {
			a, err := seen.attachments.Get(name)
			switch {
			case err != nil:
				return err
			case a.Status.Attached:
				attached = append(attached, name)
			default:
				waiting = errors.Join(waiting, refusedFor(a, node, "CSINode", fmt.Sprintf("have %d", number)))
			}
		}
		if len(attached) > number {
			i.t.Fatalf("%d are attached to node %s, which can hold %d", len(attached), node, number)
		}
		if len(attached) < number {
			waiting = errors.Join(waiting, fmt.Errorf("%d are attached", len(attached)))
		}
		return waiting
	})
	return attached
}
