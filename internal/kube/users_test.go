package kube_test

import (
	"slices"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// pod is bound to a node and uses claim disk.
func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vms", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{NodeName: "a", Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"},
		}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func ownedBy(apiVersion, kind, name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: name, UID: types.UID("uid-" + name)}}
	}
}

// launcher is KubeVirt's pod of a virtual machine.
func launcher(name, vm string) *corev1.Pod {
	return pod(name, ownedBy("kubevirt.io/v1", "VirtualMachineInstance", vm))
}

func TestUsers(t *testing.T) {
	for name, tt := range map[string]struct {
		pods []*corev1.Pod
		want []string
	}{
		"nobody":                       {nil, nil},
		"one that migrates":            {[]*corev1.Pod{launcher("l1", "vm1"), launcher("l2", "vm1")}, []string{"virtual machine vms/vm1"}},
		"two virtual machines":         {[]*corev1.Pod{launcher("l1", "vm1"), launcher("l2", "vm2")}, []string{"virtual machine vms/vm1", "virtual machine vms/vm2"}},
		"a pod beside it":              {[]*corev1.Pod{launcher("l1", "vm1"), pod("p")}, []string{"pod vms/p", "virtual machine vms/vm1"}},
		"two pods of one Deployment":   {[]*corev1.Pod{pod("p1", ownedBy("apps/v1", "ReplicaSet", "r")), pod("p2", ownedBy("apps/v1", "ReplicaSet", "r"))}, []string{"pod vms/p1", "pod vms/p2"}},
		"something of the same kind":   {[]*corev1.Pod{pod("p1", ownedBy("example.com/v1", "VirtualMachineInstance", "vm1")), launcher("l2", "vm1")}, []string{"pod vms/p1", "virtual machine vms/vm1"}},
		"a hotplugged disk":            {[]*corev1.Pod{launcher("l1", "vm1"), pod("hp", ownedBy("v1", "Pod", "l1"))}, []string{"virtual machine vms/vm1"}},
		"a disk plugged into nothing":  {[]*corev1.Pod{pod("hp", ownedBy("v1", "Pod", "gone"))}, []string{"pod vms/hp"}},
		"a pod that is owned by a pod": {[]*corev1.Pod{pod("a", ownedBy("v1", "Pod", "b")), pod("b", ownedBy("v1", "Pod", "a"))}, []string{"pod vms/a", "pod vms/b"}},
		"another claim":                {[]*corev1.Pod{pod("p", func(p *corev1.Pod) { p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "other" })}, nil},
		"another namespace":            {[]*corev1.Pod{pod("p", func(p *corev1.Pod) { p.Namespace = "other" })}, nil},
		"not on a node yet":            {[]*corev1.Pod{pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "" })}, nil},
		"ended":                        {[]*corev1.Pod{pod("p", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })}, nil},
		"being deleted":                {[]*corev1.Pod{pod("p", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} })}, []string{"pod vms/p"}},
		"an ephemeral claim": {[]*corev1.Pod{pod("di", func(p *corev1.Pod) {
			p.Name = "d"
			p.Spec.Volumes[0] = corev1.Volume{Name: "isk", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}
		})}, []string{"pod vms/d"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.claimed("pv-1", "rds1/v1", "disk")
				c.claimed("pv-2", "v1", "d-isk") // the same volume under its other handle
				for _, p := range tt.pods {
					_, err := c.api.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{})
					c.must(err)
				}
				client := c.client()
				stop := c.runClient(client, attach.NewLedger(attach.Options{}))
				defer stop()
				got, err := client.Users(t.Context(), "rds1/v1")
				if err != nil || !slices.Equal(got, tt.want) {
					t.Errorf("%v, %v; want %v", got, err, tt.want)
				}
			})
		})
	}
}

func (c *cluster) claimed(pv, handle, claim string) {
	c.t.Helper()
	object := sharedVolume(pv, handle, "1m")
	object.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "vms", Name: claim, UID: types.UID("uid-" + claim)}
	_, err := c.api.CoreV1().PersistentVolumes().Create(c.t.Context(), object, metav1.CreateOptions{})
	c.must(err)
}

// Who cannot be asked for is not nobody.
func TestUsersWhileTheAPIServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.claimed("pv-1", "rds1/v1", "disk")
		client := c.client()
		stop := c.runClient(client, attach.NewLedger(attach.Options{}))
		defer stop()
		c.mu.Lock()
		c.broken = "pods"
		c.mu.Unlock()
		if got, err := client.Users(t.Context(), "rds1/v1"); err == nil {
			t.Errorf("%v", got)
		}
	})
}
