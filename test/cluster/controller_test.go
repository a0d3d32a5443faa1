//go:build cluster

package main

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
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

// A node that has its number of volumes gets the next one when another has left.
func TestNodeHasItsNumber(t *testing.T) {
	i := newInstallation(t, func(_ *installation, v values) {
		v["config"].(map[string]any)["node"] = map[string]any{"maxVolumes": 2}
	})
	node, volumes := i.node("node"), i.claims(3)
	held := i.attach(volumes[0], node)
	i.awaitAttached(held, i.attach(volumes[1], node))
	waiting := i.attach(volumes[2], node)
	i.awaitRefused(waiting, node, "node.maxVolumes")
	i.detach(held)
	i.awaitAttached(waiting)
}
