package kube

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// What it costs to feed a ledger. Time is for `go test -bench`; what a test can
// hold is how often something is called and how much is allocated.

func costConfig() Config {
	return Config{
		DriverName: "rds.csi.srvlab.io", Logger: slog.New(slog.DiscardHandler),
		Normalize:        func(handle string) string { return "rds1/" + strings.TrimPrefix(handle, "rds1/") },
		Published:        func(m map[string]string) (string, string, attach.Grant) { return m["volume"], m["nodeUID"], 0 },
		MigrationTimeout: func(map[string]string) time.Duration { return 0 },
	}
}

func handleOf(i int) string { return fmt.Sprintf("rds1/pvc-%027d", i) }

func manyVolumes(n int) []*corev1.PersistentVolume {
	list := make([]*corev1.PersistentVolume, n)
	for i := range list {
		list[i] = &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pv-%d", i), UID: types.UID(fmt.Sprintf("pv-uid-%d", i))},
			Spec: corev1.PersistentVolumeSpec{
				ClaimRef:               &corev1.ObjectReference{Namespace: "default", Name: fmt.Sprintf("claim-%d", i), UID: "uid"},
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "rds.csi.srvlab.io", VolumeHandle: handleOf(i)}},
			},
		}
	}
	return list
}

func manyAttachments(n int) []*storagev1.VolumeAttachment {
	list := make([]*storagev1.VolumeAttachment, n)
	for i := range list {
		pv := fmt.Sprintf("pv-%d", i)
		list[i] = &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("csi-%064d", i), UID: types.UID(fmt.Sprintf("va-uid-%d", i)), CreationTimestamp: metav1.NewTime(time.Unix(int64(i), 0))},
			Spec:       storagev1.VolumeAttachmentSpec{Attacher: "rds.csi.srvlab.io", NodeName: fmt.Sprintf("node-%d", i%100), Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv}},
			Status:     storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"volume": handleOf(i), "nodeUID": "uid"}},
		}
	}
	return list
}

// manyNodes are 100 nodes that have the n volumes in use.
func manyNodes(n int) []*corev1.Node {
	list := make([]*corev1.Node, 100)
	for i := range list {
		list[i] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i), UID: types.UID(fmt.Sprintf("node-uid-%d", i))}}
	}
	for i := range n {
		status := &list[i%100].Status
		status.VolumesInUse = append(status.VolumesInUse, corev1.UniqueVolumeName("kubernetes.io/csi/rds.csi.srvlab.io^"+handleOf(i)))
	}
	return list
}

type fixture struct {
	f *feed
	n *nodes
}

func newFixture(ledger *attach.Ledger) fixture {
	cfg := costConfig()
	return fixture{newFeed(cfg, newVolumes(), ledger, func() {}), newNodes(cfg, ledger, func() {})}
}

func (x fixture) fill(pvs []*corev1.PersistentVolume, vas []*storagev1.VolumeAttachment, nodes []*corev1.Node) {
	x.f.replaceVolumes(pvs)
	x.n.replace(nodes)
	x.f.replaceAttachments(vas)
}

// undisturbed is a ledger that must not be asked.
type undisturbed struct{ t *testing.T }

func (u undisturbed) Replace([]attach.Attachment) { u.t.Error("Replace") }
func (u undisturbed) Upsert(attach.Attachment)    { u.t.Error("Upsert") }
func (u undisturbed) Remove(string)               { u.t.Error("Remove") }
func (u undisturbed) ReplaceNodes([]attach.Node)  { u.t.Error("ReplaceNodes") }
func (u undisturbed) UpsertNode(attach.Node)      { u.t.Error("UpsertNode") }
func (u undisturbed) RemoveNode(string)           { u.t.Error("RemoveNode") }
func (u undisturbed) Doubt()                      { u.t.Error("Doubt") }

// A kubelet writes its Node every few minutes, and with every change of a pod's
// volumes: that must neither take the ledger's lock nor make anything.
func TestUnchangedNodeCostsNothing(t *testing.T) {
	x := newFixture(attach.NewLedger(attach.Options{}))
	nodes := manyNodes(10_000)
	x.fill(manyVolumes(1), manyAttachments(1), nodes)
	x.n.ledger = undisturbed{t}
	heartbeat := nodes[7].DeepCopy()
	heartbeat.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}}
	if got := testing.AllocsPerRun(100, func() { x.n.set(heartbeat) }); got != 0 {
		t.Errorf("an unchanged Node allocates %v times", got)
	}
}

// An update of a VolumeAttachment that changes nothing of ours (annotations,
// managedFields, a finalizer) ends in the feed.
func TestUnchangedAttachmentEndsInTheFeed(t *testing.T) {
	x := newFixture(attach.NewLedger(attach.Options{}))
	vas := manyAttachments(3)
	x.fill(manyVolumes(3), vas, nil)
	x.f.ledger = undisturbed{t}
	noted := vas[1].DeepCopy()
	noted.Annotations, noted.Finalizers = map[string]string{"a": "b"}, []string{"external-attacher/rds-csi"}
	x.f.setAttachment(noted)
	x.f.setVolume(manyVolumes(3)[1])
}

// BenchmarkRebuild10000 is what a restart costs after the API server has answered:
// 10,000 PersistentVolumes and VolumeAttachments, 100 Nodes that have them in use.
func BenchmarkRebuild10000(b *testing.B) {
	pvs, vas, nodes := manyVolumes(10_000), manyAttachments(10_000), manyNodes(10_000)
	b.ReportAllocs()
	for b.Loop() {
		newFixture(attach.NewLedger(attach.Options{})).fill(pvs, vas, nodes)
	}
}

// BenchmarkMemory10000 is what stays in memory of them.
func BenchmarkMemory10000(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := newFixture(attach.NewLedger(attach.Options{}))
		x.fill(manyVolumes(10_000), manyAttachments(10_000), manyNodes(10_000))
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(x)
	}
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/(1<<20), "MiB")
}

// BenchmarkAttach10000 is one attach and detach beside 10,000 others.
func BenchmarkAttach10000(b *testing.B) {
	x, vas := newFixture(attach.NewLedger(attach.Options{})), manyAttachments(10_001)
	x.fill(manyVolumes(10_001), vas[:10_000], manyNodes(10_000))
	b.ReportAllocs()
	for b.Loop() {
		x.f.setAttachment(vas[10_000])
		x.f.dropAttachment(vas[10_000])
	}
}

// BenchmarkNewVolume10000 is a PersistentVolume that is made beside 10,000 others.
func BenchmarkNewVolume10000(b *testing.B) {
	x, pvs := newFixture(attach.NewLedger(attach.Options{})), manyVolumes(10_001)
	x.fill(pvs[:10_000], manyAttachments(10_000), manyNodes(10_000))
	b.ReportAllocs()
	for b.Loop() {
		x.f.setVolume(pvs[10_000])
		x.f.dropVolume(pvs[10_000])
	}
}

// BenchmarkHeartbeat is a Node that says nothing new, with 100 volumes in use.
func BenchmarkHeartbeat(b *testing.B) {
	x, nodes := newFixture(attach.NewLedger(attach.Options{})), manyNodes(10_000)
	x.fill(nil, nil, nodes)
	b.ReportAllocs()
	for b.Loop() {
		x.n.set(nodes[7])
	}
}
