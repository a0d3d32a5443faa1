package kube

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// Claims lists the PersistentVolumes with that canonical handle, by name, from
// memory.
func (c *Client) Claims(volume string) []Claim {
	v := c.volumes
	v.mu.RLock()
	defer v.mu.RUnlock()
	list := make([]Claim, 0, len(v.byHandle[volume]))
	for _, name := range v.byHandle[volume] {
		list = append(list, v.byName[name].claim)
	}
	return list
}

// PersistentVolumes lists the canonical handles of this driver's
// PersistentVolumes, sorted, each once, from memory. They are not known before
// the first list.
func (c *Client) PersistentVolumes() (handles []string, known bool) {
	v := c.volumes
	v.mu.RLock()
	handles = slices.Collect(maps.Keys(v.byHandle))
	known = v.known
	v.mu.RUnlock()
	slices.Sort(handles)
	return handles, known
}

// Promised answers how many bytes the PersistentVolume with that canonical
// handle has by its own word, from memory; of several the most. Zero: there is
// none, or it does not say.
func (c *Client) Promised(volume string) int64 {
	v := c.volumes
	v.mu.RLock()
	defer v.mu.RUnlock()
	var most int64
	for _, name := range v.byHandle[volume] {
		most = max(most, v.byName[name].bytes)
	}
	return most
}

// persistent is what is kept of a PersistentVolume of ours.
type persistent struct {
	handle string
	mode   attach.Mode
	limit  time.Duration // of a migration
	bytes  int64         // its capacity
	claim  Claim
}

// volumes is an index of the PersistentVolumes of this driver. Their authority
// is the API server: replace rebuilds it in one call.
type volumes struct {
	mu       sync.RWMutex
	known    bool
	byName   map[string]persistent
	byHandle map[string][]string // names, sorted
}

func newVolumes() *volumes {
	return &volumes{byName: map[string]persistent{}, byHandle: map[string][]string{}}
}

func (v *volumes) replace(all []persistent) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known, v.byName, v.byHandle = true, make(map[string]persistent, len(all)), make(map[string][]string, len(all))
	for _, p := range all {
		v.put(p)
	}
}

// set answers what was kept before; zero when there was nothing.
func (v *volumes) set(p persistent) (before persistent) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before = v.remove(p.claim.PV)
	v.put(p)
	return before
}

func (v *volumes) drop(name string) (before persistent) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.remove(name)
}

func (v *volumes) put(p persistent) {
	names := v.byHandle[p.handle]
	i, _ := slices.BinarySearch(names, p.claim.PV)
	v.byName[p.claim.PV] = p
	v.byHandle[p.handle] = slices.Insert(names, i, p.claim.PV)
}

func (v *volumes) remove(name string) persistent {
	p, ok := v.byName[name]
	if !ok {
		return p
	}
	delete(v.byName, name)
	rest := slices.DeleteFunc(v.byHandle[p.handle], func(n string) bool { return n == name })
	if len(rest) == 0 {
		delete(v.byHandle, p.handle)
		return p
	}
	v.byHandle[p.handle] = rest
	return p
}

// handle is the canonical handle behind the name of a PersistentVolume.
func (v *volumes) handle(name string) (handle string, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	p, ok := v.byName[name]
	return p.handle, ok
}

// terms are the access mode and the time for a migration of a volume that was
// attached by the PersistentVolume of that name: when several have the handle,
// the strictest of each; when that one is not known, the strictest there is.
func (v *volumes) terms(name, handle string) (mode attach.Mode, limit time.Duration) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if p, ok := v.byName[name]; !ok || p.handle != handle {
		return attach.SingleNode, 0
	}
	mode, limit = v.byName[name].mode, attach.MostMigrationTimeout
	for _, n := range v.byHandle[handle] {
		mode, limit = mode.And(v.byName[n].mode), min(limit, v.byName[n].limit)
	}
	return mode, limit
}

// strip keeps of a PersistentVolume what is needed, if it is ours.
func (f *feed) strip(pv *corev1.PersistentVolume) (p persistent, ours bool) {
	handle, ours := f.handle(&pv.Spec)
	if !ours {
		return p, false
	}
	p = persistent{
		handle: handle, mode: accessMode(&pv.Spec), bytes: pv.Spec.Capacity.Storage().Value(),
		limit: cmp.Or(f.timeout(pv.Spec.CSI.VolumeAttributes), attach.DefaultMigrationTimeout),
		claim: Claim{PV: pv.Name, PVUID: string(pv.UID)},
	}
	if ref := pv.Spec.ClaimRef; ref != nil {
		p.claim.Namespace, p.claim.Name, p.claim.UID = ref.Namespace, ref.Name, string(ref.UID)
		p.claim.Deleted = pv.Status.Phase == corev1.VolumeReleased || pv.Status.Phase == corev1.VolumeFailed
	}
	return p, true
}

// accessMode: two nodes may have raw block that is ReadWriteMany, and any number
// what is ReadOnlyMany and nothing else: external-attacher and kubelet then say
// MULTI_NODE_READER_ONLY, whichever access mode they go by.
func accessMode(spec *corev1.PersistentVolumeSpec) attach.Mode {
	block := spec.VolumeMode != nil && *spec.VolumeMode == corev1.PersistentVolumeBlock
	others := func(m corev1.PersistentVolumeAccessMode) bool { return m != corev1.ReadOnlyMany }
	switch {
	case block && slices.Contains(spec.AccessModes, corev1.ReadWriteMany):
		return attach.MultiNode
	case len(spec.AccessModes) > 0 && !slices.ContainsFunc(spec.AccessModes, others):
		return attach.Readers
	default:
		return attach.SingleNode
	}
}

// unresolvedPrefix stands before the name of a PersistentVolume whose handle was
// never seen. No handle begins so: the colon is not in their grammar.
const unresolvedPrefix = "persistentvolume:"

// Unresolved says whether a volume of the ledger stands for a PersistentVolume
// whose handle is not known, and for which.
func Unresolved(volume string) (pv string, yes bool) {
	return strings.CutPrefix(volume, unresolvedPrefix)
}
