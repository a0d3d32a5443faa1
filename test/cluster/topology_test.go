//go:build cluster

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// twoRDSs: a small one that nodes a* reach, which is the default, and a large one that nodes b* reach. Volumes are made
// where their first pod is to run.
func twoRDSs(i *installation, v values) {
	small := i.in("small.yaml")
	i.must(os.WriteFile(small, []byte("pools: [{slot: storage-pool, filesystem: btrfs, size: 1G}]\n"), 0o600))
	config := v["config"].(map[string]any)
	one, other := i.startSimulator("small", "--config", small), i.startSimulator("large")
	one["default"] = true
	config["rds"] = []any{one, other}
	config["topology"] = []any{
		map[string]any{"rds": "small", "nodes": []any{i.class + "-a*"}},
		map[string]any{"rds": "large", "nodes": []any{i.class + "-b*"}},
	}
	class := storageClass(i.class, nil)
	class["volumeBindingMode"] = storagev1.VolumeBindingWaitForFirstConsumer
	v["storageClasses"] = []any{class}
}

// Two RDSs of which each node reaches one: a volume is made where its pod can use it, a pod goes where its volume is, or
// where there is room for it, and an RDS that is silent holds up nobody else's.
func TestTopology(t *testing.T) {
	i := newInstallation(t, twoRDSs)
	a, b := i.nodeWithPlugin("a"), i.nodeWithPlugin("b")
	i.awaitCapacity(map[string]string{"small": "large"})

	here, there := i.podWithClaim("here", a), i.podWithClaim("there", b)
	i.onRDS(here, "small")
	i.onRDS(there, "large")
	held := i.awaitAttachmentOf(there, b)
	i.awaitAttached(i.awaitAttachmentOf(here, a), held)

	big := i.podWithClaim("big", "", larger("2Gi")) // the small one has less in all
	i.onRDS(big, "large")
	i.awaitAttached(i.awaitAttachmentOf(big, b))

	i.makePod("astray", here.Spec.ClaimRef.Name, func(p *corev1.PodSpec) { p.NodeSelector = map[string]string{corev1.LabelHostname: b} })
	i.awaitUnschedulable("astray", "node affinity")
	i.killPod("there")
	i.awaitGone(held)
	i.awaitRefused(i.attach(there, a), a, "does not reach rds large") // whoever asks all the same

	i.must(i.simulators["small"].Pause())
	i.onRDS(i.podWithClaim("meanwhile", b), "large")
	i.must(i.simulators["small"].Resume())

	i.dropNode(a)
	i.dropNode(b)
	seen.until(t, "no capacity is published for nodes that are gone", func() error {
		left, err := seen.capacities.CSIStorageCapacities(i.namespace).List(everything())
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%w: %d", errStill, len(left))
		}
		return err
	})
}

// nodeWithPlugin is a node as its kubelet makes it known: with what the real node plugin tells, with the chart's
// configuration for nodes.
func (i *installation) nodeWithPlugin(suffix string) string {
	i.t.Helper()
	name := i.class + "-" + suffix
	i.must(os.WriteFile(i.in("node.yaml"), []byte(i.chart.nodeConfig), 0o600))
	socket := "unix://" + i.in(suffix+".sock")
	p := i.launch("node-"+suffix, filepath.Join(built, "rds-csi"), "node", "--config="+i.in("node.yaml"), "--endpoint="+socket,
		"--metrics-address=127.0.0.1:0", "--node-id="+name)
	connection, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	i.must(err)
	defer func() { _ = connection.Close() }()
	var info *csi.NodeGetInfoResponse
	i.poll("the node plugin answers", p, func(ctx context.Context) error {
		info, err = csi.NewNodeClient(connection).NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
		return err
	})
	topology := info.GetAccessibleTopology().GetSegments()
	if len(topology) == 0 || info.GetNodeId() != name {
		i.t.Fatalf("the plugin of node %s tells %v", name, info)
	}
	i.makeNode(name, topology)
	i.register(name, slices.Collect(maps.Keys(topology)))
	return name
}

// podWithClaim makes a pod with a claim of its own, on a node or anywhere, and waits for the claim's volume.
func (i *installation) podWithClaim(suffix, node string, with ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolume {
	i.t.Helper()
	claim := i.makeClaim(i.class+"-"+suffix, with...).Name
	i.makePod(suffix, claim, func(p *corev1.PodSpec) {
		if node != "" {
			p.NodeSelector = map[string]string{corev1.LabelHostname: node}
		}
	})
	return i.bound(claim)
}

// onRDS asserts where a volume is, and that Kubernetes knows from where it can be used.
func (i *installation) onRDS(volume *corev1.PersistentVolume, rds string) {
	i.t.Helper()
	if handle := volume.Spec.CSI.VolumeHandle; !strings.HasPrefix(handle, rds+"/") {
		i.t.Errorf("volume %s is %s, not on %s", volume.Spec.ClaimRef.Name, handle, rds)
	}
	if affinity := fmt.Sprint(volume.Spec.NodeAffinity); !strings.Contains(affinity, i.driver+"/reaches-"+rds) {
		i.t.Errorf("volume %s is said to be usable on %s", volume.Spec.ClaimRef.Name, affinity)
	}
}

// awaitCapacity waits until the provisioner has published how much room there is where, and it is less on the one RDS
// than on the other.
func (i *installation) awaitCapacity(less map[string]string) {
	i.t.Helper()
	seen.until(i.t, "capacities are published", func() error {
		objects, err := seen.capacities.CSIStorageCapacities(i.namespace).List(everything())
		room := map[string]int64{}
		for _, c := range objects {
			for key, reached := range c.NodeTopology.MatchLabels {
				if rds, ok := strings.CutPrefix(key, i.driver+"/reaches-"); ok && reached == "true" && c.StorageClassName == i.class && c.Capacity != nil {
					room[rds] = c.Capacity.Value()
				}
			}
			if len(c.OwnerReferences) != 1 || c.OwnerReferences[0].Kind != "Deployment" {
				err = fmt.Errorf("they belong to %v", c.OwnerReferences)
			}
		}
		for one, other := range less {
			if room[one] <= 0 || room[one] >= room[other] {
				err = errors.Join(err, fmt.Errorf("room is %v", room))
			}
		}
		return err
	})
}

// awaitUnschedulable waits for the scheduler's word that a pod can run nowhere, and why.
func (i *installation) awaitUnschedulable(suffix, why string) {
	i.t.Helper()
	seen.until(i.t, "the scheduler finds no node", func() error {
		pod, err := seen.pods.Pods(space).Get(i.class + "-" + suffix)
		if err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && strings.Contains(c.Message, why) {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %v", pod.Status.Conditions)
	})
}
