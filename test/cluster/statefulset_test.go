//go:build cluster

package main

import (
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A StatefulSet of ten: Kubernetes makes its claims and pods, places and attaches them. Scaled to nothing it keeps its
// volumes, scaled up again it has the same ones, and deleted it leaves nothing behind.
func TestStatefulSet(t *testing.T) {
	const ten = 10
	i := newInstallation(t)
	i.node("a")
	i.node("b")
	s := i.scrape()
	i.makeSet("set", ten)
	var first []string
	for k := range ten {
		first = append(first, i.bound(fmt.Sprintf("data-%s-set-%d", i.class, k)).Name)
	}
	i.awaitVolumesAttached(first)
	s.await(t, "10")

	i.scale("set", 0)
	s.await(t, "0")
	i.scale("set", ten)
	i.awaitVolumesAttached(first)
	s.await(t, "10")
	mark := s.mark()
	i.restart()
	s.await(t, "10")
	s.only(t, mark, "10")

	i.must(plane.Admin.AppsV1().StatefulSets(space).Delete(t.Context(), i.class+"-set", metav1.DeleteOptions{}))
	s.await(t, "0")
	seen.until(t, "its volumes are gone", func() error {
		for _, name := range first {
			if v, err := seen.volumes.Get(name); err == nil {
				return fmt.Errorf("%w: %s is %s", errStill, name, v.Status.Phase)
			}
		}
		return nil
	})
}

// makeSet makes one whose pods need no kubelet to go: they have no time to end in.
func (i *installation) makeSet(suffix string, replicas int32) {
	i.t.Helper()
	name, atOnce := i.class+"-"+suffix, int64(0)
	labelled := map[string]string{"set": name}
	claim := i.claimFor("data")
	_, err := plane.Admin.AppsV1().StatefulSets(space).Create(i.t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: name, Selector: &metav1.LabelSelector{MatchLabels: labelled},
			PodManagementPolicy: appsv1.ParallelPodManagement, // nobody says that a pod is ready
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{*claim},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labelled}, Spec: corev1.PodSpec{
				TerminationGracePeriodSeconds: &atOnce,
				Containers: []corev1.Container{{
					Name: "app", Image: "none", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
				}},
			}},
		},
	}, metav1.CreateOptions{})
	i.must(err)
	i.t.Cleanup(func() {
		i.must(ignoreGone(plane.Admin.AppsV1().StatefulSets(space).Delete(background(), name, metav1.DeleteOptions{})))
	})
}

func (i *installation) scale(suffix string, replicas int) {
	i.t.Helper()
	_, err := plane.Admin.AppsV1().StatefulSets(space).Patch(i.t.Context(), i.class+"-"+suffix, types.MergePatchType,
		fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{})
	i.must(err)
}

// awaitVolumesAttached waits until each is attached, wherever.
func (i *installation) awaitVolumesAttached(volumes []string) {
	i.t.Helper()
	seen.until(i.t, "all are attached", func() error {
		all, err := seen.attachments.List(everything())
		if err != nil {
			return err
		}
		var attached []string
		for _, a := range all {
			if name := *a.Spec.Source.PersistentVolumeName; a.Status.Attached && a.DeletionTimestamp == nil && slices.Contains(volumes, name) {
				attached = append(attached, name)
			}
		}
		if len(attached) != len(volumes) {
			return fmt.Errorf("%d of %d", len(attached), len(volumes))
		}
		return nil
	})
}
