package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

const (
	degraded     = csi.VolumeHealthErrorType_DEGRADED
	inaccessible = csi.VolumeHealthErrorType_INACCESSIBLE
	dataLoss     = csi.VolumeHealthErrorType_DATA_LOSS
)

type healthEntry = csi.VolumeHealth_VolumeHealthEntry

func ill(status csi.VolumeHealthErrorType, reason, format string, args ...any) *healthEntry {
	return &healthEntry{Status: status, Reason: reason, Message: brief(fmt.Sprintf(format, args...))}
}

// Kubernetes takes no condition with a longer message (1.37), and with it refuses the status of the whole pod.
const longestMessage = 1024

// brief shortens a message in its middle, where an error of somebody else may stand: what to do stands at the end.
func brief(message string) string {
	const gap, end = " ... ", longestMessage / 2
	if len(message) > longestMessage {
		message = message[:longestMessage-len(gap)-end] + gap + message[len(message)-end:]
	}
	return strings.ToValidUTF8(message, "")
}

// NodeGetVolumeHealth answers what is wrong with a volume as this node sees it, each with what to do. How large the volume
// is to be a node does not know: it is told when it stages, and keeps nothing. So of a device that is too small it sees only
// that a file system is larger; the rest is the controller's to see, which has the PersistentVolume. It asks the
// kernel (sysfs, the mount table, the file system) and remembers nothing; it takes no lock, for the same reason as the
// statistics. A state that cannot be read is an error and not "healthy".
func (n *Node) NodeGetVolumeHealth(ctx context.Context, req *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	v, err := volumeOf(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, path := range []string{req.GetStagingTargetPath(), req.GetVolumePublishPath()} {
		if path == "" {
			continue
		}
		if err := checkPath("path", path); err != nil {
			return nil, err
		}
		paths = append(paths, filepath.Clean(path))
	}
	entries, err := n.health(ctx, v, paths)
	if err != nil {
		return nil, n.wrap(v, err)
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: &csi.VolumeHealth{VolumeId: v.handle, HealthStatuses: entries}}, nil
}

func (n *Node) health(ctx context.Context, v volume, paths []string) ([]*healthEntry, error) {
	ns, err := n.cfg.Initiator.Find(v.nqn)
	session := sessionHealth(v, err)
	if err != nil && session == nil {
		return nil, err
	}
	var entries []*healthEntry
	if session != nil {
		entries = append(entries, session)
	}
	if ns.Major == 0 && ns.Minor == 0 { // no device: whatever is mounted is dead
		if errors.Is(err, nvme.ErrNotConnected) {
			return n.unconnected(v, paths, entries)
		}
		return entries, nil
	}
	mounts, err := n.mountsOf(v, ns, paths)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if replaced := m.replaced(ns); replaced != nil {
			entries = append(entries, replaced)
		} else if m.Volume == "" && session == nil { // without a session the file system would not answer
			entries = append(entries, n.examine(ctx, v, ns, m)...)
		}
	}
	return distinct(entries), nil
}

// sessionHealth reads what Find said; nil for what says nothing of the session.
func sessionHealth(v volume, err error) *healthEntry {
	switch {
	case errors.Is(err, nvme.ErrNotLive):
		return ill(inaccessible, "SessionNotLive", "the node's NVMe/TCP session to %s is not live (%v): reads and writes wait until the RDS answers again. "+
			"Check that the RDS is up, that the node reaches its NVMe/TCP port, and that the volume is exported", v.nqn, err)
	case errors.Is(err, nvme.ErrNoPath), errors.Is(err, nvme.ErrNotConnected):
		return ill(inaccessible, "ConnectionLost", "the node's kernel has given up the connection to %s: reads and writes fail. "+
			"Check that the volume is exported, then delete the pods that use it on this node: the next one gets it connected anew", v.nqn)
	case errors.Is(err, nvme.ErrNoNamespace):
		return ill(inaccessible, "DeviceGone", "the RDS answers but shows no device for %s: its export is off or its disk is gone. "+
			"Look at the disk item on the RDS", v.nqn)
	case errors.Is(err, nvme.ErrIdentity):
		return ill(inaccessible, "DeviceAmbiguous", "the node cannot tell which device is the volume (%v): nothing is mounted from it. "+
			"Unstage the volume on this node", err)
	}
	return nil
}

// unconnected tells a volume that is not on this node from one whose connection is gone from under a mount.
func (n *Node) unconnected(v volume, paths []string, entries []*healthEntry) ([]*healthEntry, error) {
	for _, path := range paths {
		_, mounted, err := n.cfg.Filesystem.Mounted(path)
		if err != nil || mounted {
			return entries, err
		}
	}
	places, err := n.cfg.Filesystem.BlockPlaces(v.nqn)
	if err != nil || len(places) > 0 {
		return entries, err
	}
	return nil, refuse(codes.NotFound, "it is not connected, staged or published here")
}

// placed is one mount and where it is.
type placed struct {
	filesystem.Mount
	path string
}

// mountsOf are the mounts that were named, and one that was not when none is.
func (n *Node) mountsOf(v volume, ns nvme.Namespace, paths []string) ([]placed, error) {
	if len(paths) == 0 {
		places, err := n.cfg.Mounts(ns.Major, ns.Minor)
		if err != nil {
			return nil, err
		}
		paths = places[:min(len(places), 1)]
	}
	var found []placed
	for _, path := range paths {
		m, mounted, err := n.cfg.Filesystem.Mounted(path)
		if err != nil {
			return nil, err
		}
		if mounted && (m.Volume == "" || m.Volume == v.nqn) {
			found = append(found, placed{m, path})
		}
	}
	return found, nil
}

// replaced tells a mount of a device that the volume is no more.
func (m placed) replaced(ns nvme.Namespace) *healthEntry {
	if m.Major == ns.Major && m.Minor == ns.Minor {
		return nil
	}
	return ill(inaccessible, "DeviceReplaced", "%s is of device %d:%d, which the volume was before it was connected anew as %d:%d: "+
		"reads and writes fail there. Delete the pods that use it on this node: the next one gets it", m.path, m.Major, m.Minor, ns.Major, ns.Minor)
}

func (n *Node) examine(ctx context.Context, v volume, ns nvme.Namespace, m placed) []*healthEntry {
	symptoms, err := n.cfg.Filesystem.Examine(ctx, deviceOf(ns), m.path)
	if err != nil {
		n.cfg.Logger.WarnContext(ctx, "the file system could not be examined", "volume", v.handle, "node", n.cfg.NodeID, "nqn", v.nqn, "path", m.path, "err", err)
		return []*healthEntry{ill(degraded, "NotExamined", "the file system at %s could not be examined: %v. The node plugin's log may say more", m.path, err)}
	}
	entries := make([]*healthEntry, 0, len(symptoms))
	for _, s := range symptoms {
		entries = append(entries, symptomHealth(s, m))
	}
	return entries
}

func symptomHealth(s filesystem.Symptom, m placed) *healthEntry {
	switch s.Ailment {
	case filesystem.LargerThanDevice:
		return ill(dataLoss, "DeviceTooSmall", "the volume's device is smaller than its file system: %s. What lies beyond is not there. "+
			"Stop the pods that use it and compare the size of the image on the RDS with that of the volume; do not run a repair", s.Detail)
	case filesystem.ShutDown:
		return ill(inaccessible, "FilesystemShutDown", "the %s at %s has stopped: %s. The node's kernel log names the error. "+
			"Delete the pods that use it on this node: it is mounted anew, and its log is replayed", m.FSType, m.path, s.Detail)
	case filesystem.TurnedReadOnly:
		return ill(inaccessible, "FilesystemReadOnly", "writes to the %s at %s fail: %s, which the node's kernel log names. "+
			"Delete the pods that use it on this node; if it happens again, check the file system", m.FSType, m.path, s.Detail)
	case filesystem.NotAnswering:
		return ill(inaccessible, "FilesystemNotAnswering", "the %s at %s does not answer: %s. "+
			"Check that the RDS answers", m.FSType, m.path, s.Detail)
	case filesystem.ErrorsRecorded:
		return ill(degraded, "FilesystemErrors", "the %s at %s is damaged in places: %s. Make a backup, then check it (e2fsck) while no pod uses it",
			m.FSType, m.path, s.Detail)
	case filesystem.SmallerThanDevice:
		return ill(degraded, "FilesystemNotGrown", "the %s at %s does not use all of the volume: %s. "+
			"Delete the pods that use it on this node: it grows when it is staged; if not, the node plugin's log says why", m.FSType, m.path, s.Detail)
	}
	return ill(degraded, "Unknown", "%s: %s", m.path, s.Detail)
}

// distinct: one message for each status and reason, as the specification wants it; staging path and target are one file
// system, and show the same.
func distinct(entries []*healthEntry) []*healthEntry {
	var kept []*healthEntry
	for _, e := range entries {
		if !slices.ContainsFunc(kept, func(k *healthEntry) bool { return k.GetStatus() == e.GetStatus() && k.GetReason() == e.GetReason() }) {
			kept = append(kept, e)
		}
	}
	return kept
}

// NodeGetStorageHealth answers which RDSs this node does not reach. What it has sessions to is what it knows: a node
// without volumes has nothing to tell.
func (n *Node) NodeGetStorageHealth(context.Context, *csi.NodeGetStorageHealthRequest) (*csi.NodeGetStorageHealthResponse, error) {
	sessions, err := n.cfg.Initiator.Sessions()
	if errors.Is(err, nvme.ErrUnsupported) {
		return storageHealth(csi.StorageHealthErrorType_STORAGE_UNREACHABLE, "NVMeTCPMissing",
			[]string{fmt.Sprintf("node %s cannot connect to any RDS: %v", n.cfg.NodeID, err)}), nil
	}
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.cfg.NodeID, err)
	}
	away, shaky := n.unreached(sessions)
	reply := storageHealth(csi.StorageHealthErrorType_STORAGE_UNREACHABLE, "RDSUnreachable", away)
	reply.BackendHealth = append(reply.BackendHealth, storageHealth(csi.StorageHealthErrorType_STORAGE_DEGRADED, "SessionsNotLive", shaky).GetBackendHealth()...)
	return reply, nil
}

// unreached tells, by target, where no session is live and where some are not.
func (n *Node) unreached(sessions []nvme.Session) (away, shaky []string) {
	all, down := map[string]int{}, map[string]int{}
	for _, s := range sessions {
		all[s.Target]++
		if !s.Live() {
			down[s.Target]++
		}
	}
	for _, target := range slices.Sorted(maps.Keys(down)) {
		if down[target] == all[target] {
			away = append(away, fmt.Sprintf("none of the %d NVMe/TCP sessions to %s is live: check that the RDS is up and that node %s reaches it",
				all[target], target, n.cfg.NodeID))
		} else {
			shaky = append(shaky, fmt.Sprintf("%d of the %d NVMe/TCP sessions of node %s to %s are not live: check the exports of their volumes, whose own health names them",
				down[target], all[target], n.cfg.NodeID, target))
		}
	}
	return away, shaky
}

// storageHealth is one entry for all that have one reason, as the specification wants it; none for nobody.
func storageHealth(status csi.StorageHealthErrorType, reason string, messages []string) *csi.NodeGetStorageHealthResponse {
	if len(messages) == 0 {
		return &csi.NodeGetStorageHealthResponse{}
	}
	return &csi.NodeGetStorageHealthResponse{BackendHealth: []*csi.NodeGetStorageHealthResponse_StorageBackendHealth{
		{Status: status, Reason: reason, Message: brief(strings.Join(messages, "; "))},
	}}
}
