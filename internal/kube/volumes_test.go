package kube_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/kube"
)

// shared makes a PersistentVolume with raw block that several nodes may have.
func (c *cluster) shared(name, handle, timeout string, modes ...corev1.PersistentVolumeAccessMode) *corev1.PersistentVolume {
	c.t.Helper()
	pv, err := c.api.CoreV1().PersistentVolumes().Create(c.t.Context(), sharedVolume(name, handle, timeout, modes...), metav1.CreateOptions{})
	c.must(err)
	synctest.Wait()
	return pv
}

func sharedVolume(name, handle, timeout string, modes ...corev1.PersistentVolumeAccessMode) *corev1.PersistentVolume {
	pv, block := persistentVolume(name, handle), corev1.PersistentVolumeBlock
	pv.Spec.VolumeMode, pv.Spec.AccessModes = &block, modes
	if len(modes) == 0 {
		pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	}
	pv.Spec.CSI.VolumeAttributes = map[string]string{"migrationTimeout": timeout}
	return pv
}

func (c *cluster) updateVolume(pv *corev1.PersistentVolume) {
	c.t.Helper()
	_, err := c.api.CoreV1().PersistentVolumes().Update(c.t.Context(), pv, metav1.UpdateOptions{})
	c.must(err)
	synctest.Wait()
}

// migrationTimeout reads the attribute as it is.
func migrationTimeout(attributes map[string]string) time.Duration {
	d, err := time.ParseDuration(attributes["migrationTimeout"])
	if err != nil {
		return 0
	}
	return d
}

func wantTerms(t *testing.T, l *attach.Ledger, mode attach.Mode, limit time.Duration) {
	t.Helper()
	synctest.Wait()
	for _, a := range l.Attachments() {
		if a.Mode != mode || a.MigrationTimeout != limit {
			t.Errorf("%s: mode %d, %s; want %d, %s", a.Name, a.Mode, a.MigrationTimeout, mode, limit)
		}
	}
	if len(l.Attachments()) == 0 {
		t.Error("no attachments")
	}
}

// Only raw block with ReadWriteMany may be on two nodes, and on any number what is
// for readers only, whatever a caller says.
func TestModeComesFromThePersistentVolume(t *testing.T) {
	filesystem := corev1.PersistentVolumeFilesystem
	for name, tt := range map[string]struct {
		change func(*corev1.PersistentVolume)
		want   attach.Mode
	}{
		"raw block, ReadWriteMany": {func(*corev1.PersistentVolume) {}, attach.MultiNode},
		"and ReadWriteOnce as well": {func(pv *corev1.PersistentVolume) {
			pv.Spec.AccessModes = append(pv.Spec.AccessModes, corev1.ReadWriteOnce)
		}, attach.MultiNode},
		"raw block, ReadWriteOnce": {func(pv *corev1.PersistentVolume) { pv.Spec.AccessModes[0] = corev1.ReadWriteOnce }, attach.SingleNode},
		"raw block, ReadOnlyMany":  {func(pv *corev1.PersistentVolume) { pv.Spec.AccessModes[0] = corev1.ReadOnlyMany }, attach.Readers},
		"file system, ReadOnlyMany": {func(pv *corev1.PersistentVolume) {
			pv.Spec.VolumeMode, pv.Spec.AccessModes[0] = nil, corev1.ReadOnlyMany
		}, attach.Readers},
		"ReadOnlyMany and ReadWriteOnce": {func(pv *corev1.PersistentVolume) {
			pv.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteOnce}
		}, attach.SingleNode},
		"raw block for readers and migrations": {func(pv *corev1.PersistentVolume) {
			pv.Spec.AccessModes = append(pv.Spec.AccessModes, corev1.ReadOnlyMany)
		}, attach.MultiNode},
		"file system, ReadWriteMany":     {func(pv *corev1.PersistentVolume) { pv.Spec.VolumeMode = &filesystem }, attach.SingleNode},
		"no mode said, ReadWriteMany":    {func(pv *corev1.PersistentVolume) { pv.Spec.VolumeMode = nil }, attach.SingleNode},
		"raw block, no access mode said": {func(pv *corev1.PersistentVolume) { pv.Spec.AccessModes = nil }, attach.SingleNode},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				pv := sharedVolume("pv-1", "v1", "1m")
				tt.change(pv)
				_, err := c.api.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{})
				c.must(err)
				c.grantedTo("pv-1", "a", tt.want)
				c.attachment("pv-1", "b", false)
				l, stop := c.run()
				defer stop()
				holder := map[attach.Mode]string{attach.SingleNode: "a", attach.Readers: "a"}[tt.want]
				wantTerms(t, l, tt.want, time.Minute)
				wantConflict(t, l, "rds1/v1", "b", holder)
				if _, err := l.Publish("rds1/v1", "b", attach.Readers, time.Now()); (err == nil) != (tt.want == attach.Readers) {
					t.Errorf("to read: %v", err)
				}
			})
		})
	}
}

// grantedTo makes a VolumeAttachment that is attached, and keeps as what it was granted.
func (c *cluster) grantedTo(pv, node string, mode attach.Mode) {
	c.t.Helper()
	va := c.newAttachment(pv, node)
	va.Status.Attached, va.Status.AttachmentMetadata = true, map[string]string{"granted": attach.GrantOf(mode).String()}
	c.create(va)
}

// Somebody changes a PersistentVolume from one writer to many while it is attached. What was granted counts, before the
// eyes of this process and for the next one.
func TestAccessModesOfAnAttachedVolumeAreChanged(t *testing.T) {
	for many, mode := range map[corev1.PersistentVolumeAccessMode]attach.Mode{
		corev1.ReadOnlyMany: attach.Readers, corev1.ReadWriteMany: attach.MultiNode,
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			pv := c.shared("pv-1", "v1", "1m", corev1.ReadWriteOnce)
			c.grantedTo("pv-1", "a", attach.SingleNode)
			l, stop := c.run()
			pv.Spec.AccessModes[0] = many
			c.updateVolume(pv)
			c.attachment("pv-1", "b", false)
			isRefused := func() {
				t.Helper()
				wantTerms(t, l, mode, time.Minute)
				var conflict *attach.ConflictError
				if _, err := l.Publish("rds1/v1", "b", mode, time.Now()); !errors.As(err, &conflict) || conflict.Holder != "a" {
					t.Errorf("beside one writer, %s: %v", many, err)
				}
			}
			isRefused()
			stop()
			l, stop = c.run()
			defer stop()
			isRefused()
			c.deleteAttachment("csi-pv-1-a")
			synctest.Wait()
			if _, err := l.Publish("rds1/v1", "b", mode, time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
}

// The attacher that fails again, and says no more than before, tells that it has received no yes.
func TestTimeOfAnAttachErrorReachesTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.volume("pv-1", "rds1/v1")
		va := c.newAttachment("pv-1", "a")
		va.CreationTimestamp = metav1.NewTime(va.CreationTimestamp.Add(time.Hour)) // younger, so in nobody's way by its age
		va.Status.AttachError = &storagev1.VolumeError{Message: "no CSINode", Time: metav1.NewTime(time.Now().Add(-time.Minute))}
		va = c.create(va)
		c.attachment("pv-1", "b", false)
		l, stop := c.run()
		defer stop()
		if _, err := l.Publish("rds1/v1", "b", attach.SingleNode, time.Now()); !errors.Is(err, attach.ErrUnknown) {
			t.Errorf("beside what may have been granted before: %v", err)
		}
		va.Status.AttachError.Time = metav1.NewTime(time.Now())
		c.update(va)
		synctest.Wait()
		if _, err := l.Publish("rds1/v1", "b", attach.SingleNode, time.Now()); err != nil {
			t.Error(err)
		}
	})
}

// A PersistentVolume that is gone proves nothing: one node. A new process would say
// the same.
func TestModeWithoutThePersistentVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		for _, node := range []string{"a", "b"} {
			va := c.newAttachment("pv-1", node)
			va.Status.Attached, va.Status.AttachmentMetadata = true, map[string]string{"nqn": "nqn.2000-02.com.mikrotik:v1"}
			c.create(va)
		}
		c.shared("pv-1", "rds1/v1", "")
		l, stop := c.run()
		wantTerms(t, l, attach.MultiNode, attach.DefaultMigrationTimeout)
		if got := l.Migrations(); len(got) != 1 || got[0].From != "a" || got[0].To != "b" || got[0].Deadline != got[0].Began.Add(5*time.Minute) {
			t.Errorf("migrations: %v", got)
		}
		c.deleteVolume("pv-1")
		wantTerms(t, l, attach.SingleNode, 0)
		if got := l.Migrations(); len(got) != 0 {
			t.Errorf("migrations of what nobody knows: %v", got)
		}
		stop()
		l, stop = c.run()
		defer stop()
		wantNodes(t, l, "rds1/v1", "a", "b")
		wantTerms(t, l, attach.SingleNode, 0)
		c.shared("pv-1", "rds1/v1", "2m")
		wantTerms(t, l, attach.MultiNode, 2*time.Minute)
		c.deleteVolume("pv-1")
		c.shared("pv-2", "rds1/v1", "2m") // that is another's word
		wantTerms(t, l, attach.SingleNode, 0)
	})
}

// Of two PersistentVolumes with one handle the stricter counts, from whichever the
// volume is attached.
func TestTwoPersistentVolumesOfOneVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.shared("new", "rds1/v1", "1m")
		c.attachment("new", "a", true)
		l, stop := c.run()
		defer stop()
		wantTerms(t, l, attach.MultiNode, time.Minute)
		strict := c.shared("old", "v1", "30s", corev1.ReadWriteOnce)
		wantTerms(t, l, attach.SingleNode, 30*time.Second)
		strict.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		c.updateVolume(strict)
		wantTerms(t, l, attach.MultiNode, 30*time.Second)
		c.end(gone())
		<-time.After(time.Minute)
		wantTerms(t, l, attach.MultiNode, 30*time.Second)
		strict.Spec.CSI.VolumeAttributes = nil
		c.updateVolume(strict)
		wantTerms(t, l, attach.MultiNode, time.Minute)
		c.deleteVolume("old")
		c.shared("long", "v1", "1h")
		wantTerms(t, l, attach.MultiNode, time.Minute)
		c.shared("readers", "v1", "1h", corev1.ReadOnlyMany) // readers beside a writer, and a writer beside readers
		wantTerms(t, l, attach.SingleNode, time.Minute)
	})
}

// The claims behind a handle, and the handles, from memory.
func TestClaimsAndPersistentVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		client := c.client()
		if got, known := client.PersistentVolumes(); known || len(got) != 0 || len(client.Claims("rds1/v1")) != 0 {
			t.Errorf("PersistentVolumes = %v, known %t, before anything was read", got, known)
		}
		bound := persistentVolume("pv-1", "v1")
		bound.UID = "uid-1"
		bound.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "shop", Name: "data", UID: "uid-c"}
		_, err := c.api.CoreV1().PersistentVolumes().Create(t.Context(), bound, metav1.CreateOptions{})
		c.must(err)
		c.volume("pv-0", "rds1/v1")
		c.volume("pv-2", "rds2/v1")
		foreign := persistentVolume("pv-x", "rds1/v1")
		foreign.Spec.CSI.Driver = "other.csi.example.com"
		_, err = c.api.CoreV1().PersistentVolumes().Create(t.Context(), foreign, metav1.CreateOptions{})
		c.must(err)
		stop := c.runClient(client, attach.NewLedger(attach.Options{}))
		defer stop()
		claims := func(want ...kube.Claim) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, client.Claims("rds1/v1")); diff != "" {
				t.Errorf("Claims (-want +got):\n%s", diff)
			}
		}
		free, its := kube.Claim{PV: "pv-0"}, kube.Claim{PV: "pv-1", PVUID: "uid-1", Namespace: "shop", Name: "data", UID: "uid-c"}
		claims(free, its)
		if diff := cmp.Diff([]string{"rds1/v1", "rds2/v1"}, handles(t, client)); diff != "" {
			t.Errorf("PersistentVolumes (-want +got):\n%s", diff)
		}
		late := persistentVolume("pv-0", "rds1/v1")
		late.UID, late.Spec.ClaimRef = types.UID("uid-0"), &corev1.ObjectReference{Namespace: "shop", Name: "late"}
		c.updateVolume(late) // bound since
		claims(kube.Claim{PV: "pv-0", PVUID: "uid-0", Namespace: "shop", Name: "late"}, its)
		c.deleteVolume("pv-0")
		claims(its)
		released := bound.DeepCopy()
		released.Status.Phase = corev1.VolumeReleased
		c.updateVolume(released)
		its.Deleted = true
		claims(its)
		c.end(gone())
		c.deleteVolume("pv-2")
		<-time.After(time.Minute)
		claims(its)
		if diff := cmp.Diff([]string{"rds1/v1"}, handles(t, client)); diff != "" {
			t.Errorf("PersistentVolumes after a relist (-want +got):\n%s", diff)
		}
	})
}

// What a PersistentVolume promises is what it says now; of two with one disk each is to be right.
func TestPromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		client := c.client()
		if got := client.Promised("rds1/v1"); got != 0 {
			t.Errorf("%d bytes, before anything was read", got)
		}
		c.volume("silent", "rds1/v2")
		stop := c.runClient(client, attach.NewLedger(attach.Options{}))
		defer stop()
		is := func(want int64) {
			t.Helper()
			synctest.Wait()
			if got := client.Promised("rds1/v1"); got != want {
				t.Errorf("%d bytes, want %d", got, want)
			}
		}
		is(0)
		sized := func(name, handle, size string) *corev1.PersistentVolume {
			pv := persistentVolume(name, handle)
			pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
			return pv
		}
		for _, pv := range []*corev1.PersistentVolume{sized("pv-1", "v1", "10Gi"), sized("pv-2", "rds1/v1", "4G"), sized("pv-3", "rds1/v3", "1Ti")} {
			_, err := c.api.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{})
			c.must(err)
		}
		is(10 << 30)
		c.updateVolume(sized("pv-1", "v1", "12Gi")) // external-resizer
		is(12 << 30)
		c.deleteVolume("pv-1")
		is(4e9)
		if got := client.Promised("rds1/v2"); got != 0 {
			t.Errorf("%d bytes of one that says nothing", got)
		}
	})
}

func handles(t *testing.T, client *kube.Client) []string {
	t.Helper()
	got, known := client.PersistentVolumes()
	if !known {
		t.Error("the PersistentVolumes are not known")
	}
	return got
}
