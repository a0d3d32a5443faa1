package kube_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"go.uber.org/goleak"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/kube"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const driver = "rds.csi.srvlab.io"

// cluster is a fake API server. Its watches can be cut, and it can be down.
type cluster struct {
	t    *testing.T
	api  *fake.Clientset
	logs *logs

	mu      sync.Mutex
	err     error  // what every list and watch answers
	broken  string // the resource that cannot be listed
	watches []opened
	lists   []metav1.ListOptions
	clock   int
}

// opened is a watch that somebody has.
type opened struct {
	*watch.RaceFreeFakeWatcher
	resource string
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, api: fake.NewSimpleClientset(), logs: &logs{}}
	c.api.PrependReactor("list", "*", c.onList)
	c.api.PrependWatchReactor("*", c.onWatch)
	return c
}

func (c *cluster) onList(action k8stesting.Action) (bool, runtime.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := action.(k8stesting.ListActionImpl); ok {
		c.lists = append(c.lists, a.ListOptions)
	}
	if c.err == nil && c.broken == action.GetResource().Resource {
		return true, nil, errors.New("forbidden")
	}
	return c.err != nil, nil, c.err
}

func (c *cluster) onWatch(action k8stesting.Action) (bool, watch.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return true, nil, c.err
	}
	o := action.(k8stesting.WatchActionImpl).ListOptions
	w, err := c.api.Tracker().Watch(action.GetResource(), action.GetNamespace(), o)
	c.watches = append(c.watches, opened{w.(*watch.RaceFreeFakeWatcher), action.GetResource().Resource})
	return true, w, err
}

// down makes the API server answer err; nil brings it back.
func (c *cluster) down(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// forbid makes one resource unreadable; an empty name makes all readable.
func (c *cluster) forbid(resource string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = resource
}

// end ends all open watches: cut off, or with an answer first.
func (c *cluster) end(with *metav1.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watches {
		if with != nil {
			w.Error(with)
		}
		w.Stop()
	}
	c.watches = nil
}

// bookmark tells the watches of a resource that nothing has happened.
func (c *cluster) bookmark(resource string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watches {
		if w.resource == resource {
			w.Action(watch.Bookmark, &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "9"}})
		}
	}
}

func gone() *metav1.Status {
	return &metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old resource version"}
}

func (c *cluster) client() *kube.Client {
	return kube.NewFor(c.api, kube.Config{
		DriverName: driver, Normalize: normalize, Published: published, MigrationTimeout: migrationTimeout, Logger: slog.New(c.logs),
	})
}

// published reads the slot out of the metadata, bare as it is.
func published(metadata map[string]string) (handle, nodeUID string, granted attach.Grant) {
	handle, _ = strings.CutPrefix(metadata["nqn"], "nqn.2000-02.com.mikrotik:")
	granted, _ = attach.ParseGrant(metadata["granted"])
	return handle, metadata["nodeUID"], granted
}

// normalize writes a bare slot as one of the default RDS.
func normalize(handle string) string {
	if strings.Contains(handle, "/") {
		return handle
	}
	return "rds1/" + handle
}

// run starts a controller's share: a new ledger, fed until stop.
func (c *cluster) run() (l *attach.Ledger, stop func()) {
	l = attach.NewLedger(attach.Options{})
	return l, c.runClient(c.client(), l)
}

// fed is a ledger that says whether it was fed.
type fed interface {
	kube.Ledger
	Known() bool
}

func (c *cluster) runClient(client *kube.Client, l fed) (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	ended := make(chan error, 1)
	synced := 0
	go func() { ended <- client.RunAttachments(ctx, l, func() { synced++ }) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			c.t.Errorf("RunAttachments = %v", err)
		}
		if l.Known() != (synced == 1) || synced > 1 {
			c.t.Errorf("synced was called %d times, the ledger is known: %t", synced, l.Known())
		}
	}
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// volume makes a PersistentVolume of ours.
func (c *cluster) volume(name, handle string) {
	c.t.Helper()
	_, err := c.api.CoreV1().PersistentVolumes().Create(c.t.Context(), persistentVolume(name, handle), metav1.CreateOptions{})
	c.must(err)
}

func persistentVolume(name, handle string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle},
		}},
	}
}

// attachment makes a VolumeAttachment of ours, a minute after the one before.
func (c *cluster) attachment(pv, node string, attached bool) *storagev1.VolumeAttachment {
	c.t.Helper()
	va := c.newAttachment(pv, node)
	va.Status.Attached = attached
	return c.create(va)
}

func (c *cluster) newAttachment(pv, node string) *storagev1.VolumeAttachment {
	c.clock++
	return &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{
			Name: "csi-" + pv + "-" + node, UID: types.UID("uid-" + strconv.Itoa(c.clock)),
			CreationTimestamp: metav1.NewTime(time.Date(2026, 11, 1, 0, c.clock, 0, 0, time.UTC)),
		},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: driver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv},
		},
	}
}

func (c *cluster) create(va *storagev1.VolumeAttachment) *storagev1.VolumeAttachment {
	c.t.Helper()
	va, err := c.api.StorageV1().VolumeAttachments().Create(c.t.Context(), va, metav1.CreateOptions{})
	c.must(err)
	return va
}

func (c *cluster) update(va *storagev1.VolumeAttachment) {
	c.t.Helper()
	_, err := c.api.StorageV1().VolumeAttachments().Update(c.t.Context(), va, metav1.UpdateOptions{})
	c.must(err)
}

func (c *cluster) deleteAttachment(name string) {
	c.t.Helper()
	c.must(c.api.StorageV1().VolumeAttachments().Delete(c.t.Context(), name, metav1.DeleteOptions{}))
}

func (c *cluster) deleteVolume(name string) {
	c.t.Helper()
	c.must(c.api.CoreV1().PersistentVolumes().Delete(c.t.Context(), name, metav1.DeleteOptions{}))
}

// three are three volumes, each attached once.
func (c *cluster) three() {
	c.t.Helper()
	for i, node := range []string{"a", "a", "b"} {
		n := strconv.Itoa(i + 1)
		c.volume("pv-"+n, "rds1/v"+n)
		c.attachment("pv-"+n, node, true)
	}
}

func wantCount(t *testing.T, l *attach.Ledger, want int) {
	t.Helper()
	synctest.Wait()
	if n, known := l.Volumes(); n != want || !known {
		t.Errorf("Volumes() = %d, known %t; want %d", n, known, want)
	}
}

func wantUnknown(t *testing.T, l *attach.Ledger) {
	t.Helper()
	synctest.Wait()
	if n, known := l.Volumes(); known {
		t.Errorf("Volumes() = %d, known; nothing was read yet", n)
	}
}

func wantNodes(t *testing.T, l *attach.Ledger, volume string, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := l.Nodes(volume); !slices.Equal(got, want) {
		t.Errorf("Nodes(%s) = %v, want %v", volume, got, want)
	}
}

// logs keeps what is logged at info and above.
type logs struct {
	mu    sync.Mutex
	lines []string
}

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logs) WithGroup(string) slog.Handler            { return l }
func (l *logs) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Level >= slog.LevelInfo {
		line := r.Level.String() + " " + r.Message
		r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
		l.lines = append(l.lines, line)
	}
	return nil
}

// count is the number of lines with the text in them.
func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}
