package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podsLimit is for one list of a namespace's pods.
const podsLimit = 10 * time.Second

// Users tells who uses a volume on some node now: each KubeVirt virtual machine
// once, whose pods on two nodes are one user that migrates, and each pod that is
// no virtual machine's. Sorted.
//
// Pods are asked for when a second node is to get a volume, and are not watched:
// that is rare, and all pods of a cluster are much to keep for it. The list is a
// consistent read, so a pod that was bound to its node before is in it.
func (c *Client) Users(ctx context.Context, volume string) ([]string, error) {
	var users []string
	for _, claim := range c.Claims(volume) {
		if claim.Namespace == "" {
			continue
		}
		pods, err := c.pods(ctx, claim.Namespace)
		if err != nil {
			return nil, fmt.Errorf("who uses claim %s/%s of volume %s: %w", claim.Namespace, claim.Name, volume, err)
		}
		for i := range pods {
			if uses(&pods[i], claim.Name) {
				users = append(users, user(&pods[i], pods))
			}
		}
	}
	slices.Sort(users)
	return slices.Compact(users), nil
}

func (c *Client) pods(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, podsLimit)
	defer cancel()
	list, err := c.api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// uses: a pod that is not bound to a node has nothing yet, one that has ended has
// nothing any more; one that is being deleted may still write.
func uses(p *corev1.Pod, claim string) bool {
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return false
	}
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim ||
			v.Ephemeral != nil && p.Name+"-"+v.Name == claim
	})
}

// user is the virtual machine that a pod is of, or the pod. KubeVirt's virt-launcher
// is owned by its VirtualMachineInstance, which has the virtual machine's name; the
// pod that holds a hotplugged disk is owned by a virt-launcher.
func user(p *corev1.Pod, all []corev1.Pod) string {
	for _, owner := range p.OwnerReferences {
		switch {
		case owner.Kind == "VirtualMachineInstance" && strings.HasPrefix(owner.APIVersion, "kubevirt.io/"):
			return "virtual machine " + p.Namespace + "/" + owner.Name
		case owner.Kind == "Pod" && owner.UID != p.UID:
			i := slices.IndexFunc(all, func(other corev1.Pod) bool { return other.UID == owner.UID })
			if i >= 0 && all[i].OwnerReferences != nil && all[i].OwnerReferences[0].Kind != "Pod" {
				return user(&all[i], all)
			}
		}
	}
	return "pod " + p.Namespace + "/" + p.Name
}
