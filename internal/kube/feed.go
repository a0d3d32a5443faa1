package kube

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// wish is what is kept of a VolumeAttachment. Its volume handle comes from the
// PersistentVolume, which may become known later, or be gone already.
type wish struct {
	attach.Attachment
	pv       string // empty: the handle stands in the VolumeAttachment itself
	resolved string // the handle by its own metadata, for when the PersistentVolume is gone; may be empty
}

// feed joins the two watches. Events of one watch come in order; between the
// two there is no order, so a wish is resolved when either side changes.
type feed struct {
	driver    string
	normalize func(string) string
	published func(map[string]string) (handle, nodeUID string, granted attach.Grant)
	timeout   func(map[string]string) time.Duration
	logger    *slog.Logger
	ledger    AttachmentLedger
	synced    func()
	volumes   *volumes

	mu           sync.Mutex
	volumesKnown bool            // PersistentVolumes were listed
	wishes       map[string]wish // VolumeAttachment -> wish; ours only, nil before the first list
	complete     bool            // both lists came, the ledger was replaced
	unresolved   map[string]bool // UIDs that were reported
}

func newFeed(cfg Config, index *volumes, ledger AttachmentLedger, synced func()) *feed {
	return &feed{
		driver: cfg.DriverName, normalize: cfg.Normalize, published: cfg.Published, timeout: cfg.MigrationTimeout, logger: cfg.Logger,
		ledger: ledger, synced: synced, volumes: index, unresolved: map[string]bool{},
	}
}

// setVolume: a PersistentVolume was added or changed.
func (f *feed) setVolume(pv *corev1.PersistentVolume) {
	p, ours := f.strip(pv)
	if !ours {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.volumes.set(p)
	if before.handle != p.handle || before.mode != p.mode || before.limit != p.limit {
		f.resolveAll(pv.Name, before.handle, p.handle)
	}
}

// dropVolume: a PersistentVolume is gone. Its VolumeAttachments keep the handle:
// the volume behind it is as attached as before.
func (f *feed) dropVolume(pv *corev1.PersistentVolume) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if before := f.volumes.drop(pv.Name); before.handle != "" {
		f.resolveAll(pv.Name, before.handle, before.handle)
	}
}

// resolveAll looks again at what a PersistentVolume concerns: the wishes for it,
// and those for its handles, by whichever name.
func (f *feed) resolveAll(pv, before, after string) {
	for name, w := range f.wishes {
		if w.pv != pv && w.Volume != before && w.Volume != after {
			continue
		}
		old := w
		w.Volume = f.resolve(w, w.Volume)
		w.Mode, w.MigrationTimeout = f.volumes.terms(w.pv, w.Volume)
		if w != old {
			f.wishes[name] = w
			f.upsert(w)
		}
	}
}

// replaceVolumes: all PersistentVolumes were listed.
func (f *feed) replaceVolumes(list []*corev1.PersistentVolume) {
	all := make([]persistent, 0, len(list))
	for _, pv := range list {
		if p, ours := f.strip(pv); ours {
			all = append(all, p)
		}
	}
	f.mu.Lock()
	f.volumes.replace(all)
	f.volumesKnown = true
	for name, w := range f.wishes {
		w.Volume = f.resolve(w, w.Volume)
		w.Mode, w.MigrationTimeout = f.volumes.terms(w.pv, w.Volume)
		f.wishes[name] = w
	}
	first := f.replaceLedger()
	f.mu.Unlock()
	if first {
		f.synced()
	}
}

// setAttachment: a VolumeAttachment was added or changed.
func (f *feed) setAttachment(va *storagev1.VolumeAttachment) {
	if va.Spec.Attacher != f.driver {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.wish(va, f.wishes)
	old, ok := f.wishes[va.Name]
	if ok && old == w {
		return // nothing of it concerns the ledger
	}
	if ok && old.UID != w.UID {
		f.remove(old.UID) // its name came back before we saw it go
	}
	f.wishes[va.Name] = w
	f.upsert(w)
}

// dropAttachment: a VolumeAttachment is gone.
func (f *feed) dropAttachment(va *storagev1.VolumeAttachment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w, ok := f.wishes[va.Name]; ok && w.UID == string(va.UID) {
		delete(f.wishes, va.Name)
		f.remove(w.UID)
	}
}

// replaceAttachments: all VolumeAttachments were listed.
func (f *feed) replaceAttachments(list []*storagev1.VolumeAttachment) {
	f.mu.Lock()
	old := f.wishes
	f.wishes = make(map[string]wish, len(list))
	for _, va := range list {
		if va.Spec.Attacher == f.driver {
			f.wishes[va.Name] = f.wish(va, old)
		}
	}
	first := f.replaceLedger()
	f.mu.Unlock()
	if first {
		f.synced()
	}
}

// wish strips a VolumeAttachment down to what the ledger needs. A handle that
// was known for it before stays when its PersistentVolume is gone since.
func (f *feed) wish(va *storagev1.VolumeAttachment, before map[string]wish) wish {
	w := wish{Attachment: attach.Attachment{
		UID: string(va.UID), Name: va.Name, Node: va.Spec.NodeName,
		Attached: va.Status.Attached, Deleting: va.DeletionTimestamp != nil, Created: va.CreationTimestamp.Time,
	}}
	if va.Status.AttachError != nil {
		w.AttachError, w.AttachErrorAt = va.Status.AttachError.Message, va.Status.AttachError.Time.Time
	}
	source := va.Spec.Source
	if source.InlineVolumeSpec != nil {
		if handle, ours := f.handle(source.InlineVolumeSpec); ours {
			w.Volume = handle
			return w
		}
	}
	if source.PersistentVolumeName != nil {
		w.pv = *source.PersistentVolumeName
	}
	known := ""
	if old, ok := before[va.Name]; ok && old.UID == w.UID {
		known = old.Volume
	}
	var handle string
	if handle, w.NodeUID, w.Granted = f.published(va.Status.AttachmentMetadata); handle != "" {
		w.resolved = f.normalize(handle)
	}
	w.Volume = f.resolve(w, known)
	w.Mode, w.MigrationTimeout = f.volumes.terms(w.pv, w.Volume)
	return w
}

// handle is the canonical handle of a volume of ours.
func (f *feed) handle(spec *corev1.PersistentVolumeSpec) (handle string, ours bool) {
	if spec.CSI == nil || spec.CSI.Driver != f.driver {
		return "", false
	}
	return f.normalize(spec.CSI.VolumeHandle), true
}

// resolve finds the handle behind a wish: as its PersistentVolume says now, else
// as it was known, else as its own metadata says, so that a volume whose
// PersistentVolume went stays protected when this process is not the one that saw
// it. Else a stand-in, so that the attachment is counted and not dropped.
func (f *feed) resolve(w wish, known string) string {
	handle, ok := f.volumes.handle(w.pv)
	switch {
	case ok:
		return handle
	case known != "" && !strings.HasPrefix(known, unresolvedPrefix):
		return known
	case w.resolved != "":
		return w.resolved
	default:
		return unresolvedPrefix + w.pv
	}
}
