package kube

import (
	"log/slog"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// unresolvedPrefix stands before the name of a PersistentVolume whose handle was
// never seen. No handle begins so: the colon is not in their grammar.
const unresolvedPrefix = "persistentvolume:"

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
	byContext func(map[string]string) (string, bool)
	logger    *slog.Logger
	ledger    Ledger
	synced    func()

	mu         sync.Mutex
	handles    map[string]string // PersistentVolume -> handle; ours only, nil before the first list
	wishes     map[string]wish   // VolumeAttachment -> wish; ours only, nil before the first list
	complete   bool              // both lists came, the ledger was replaced
	unresolved map[string]bool   // UIDs that were reported
}

func newFeed(cfg Config, ledger Ledger, synced func()) *feed {
	if synced == nil {
		synced = func() {}
	}
	return &feed{
		driver: cfg.DriverName, normalize: cfg.Normalize, byContext: cfg.Resolve, logger: cfg.Logger,
		ledger: ledger, synced: synced, unresolved: map[string]bool{},
	}
}

// setVolume: a PersistentVolume was added or changed.
func (f *feed) setVolume(pv *corev1.PersistentVolume) {
	handle, ours := f.handle(&pv.Spec)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !ours || f.handles[pv.Name] == handle {
		return
	}
	f.handles[pv.Name] = handle
	for name, w := range f.wishes {
		if w.pv == pv.Name {
			w.Volume = handle
			f.wishes[name] = w
			f.upsert(w)
		}
	}
}

// dropVolume: a PersistentVolume is gone. Its VolumeAttachments keep the handle:
// the volume behind it is as attached as before.
func (f *feed) dropVolume(pv *corev1.PersistentVolume) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.handles, pv.Name)
}

// replaceVolumes: all PersistentVolumes were listed.
func (f *feed) replaceVolumes(list []*corev1.PersistentVolume) {
	handles := make(map[string]string, len(list))
	for _, pv := range list {
		if handle, ours := f.handle(&pv.Spec); ours {
			handles[pv.Name] = handle
		}
	}
	f.mu.Lock()
	f.handles = handles
	for name, w := range f.wishes {
		w.Volume = f.resolve(w, w.Volume)
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
	if old, ok := f.wishes[va.Name]; ok && old.UID != w.UID {
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
		w.AttachError = va.Status.AttachError.Message
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
	if handle, ok := f.byContext(va.Status.AttachmentMetadata); ok {
		w.resolved = f.normalize(handle)
	}
	w.Volume = f.resolve(w, known)
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
	handle, ok := f.handles[w.pv]
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
