package appliance

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"time"
)

// Snapshot is a point in time of one volume, as the RDS described it in the reply to the command that returned it.
//
// On a Btrfs pool it is a read-only subvolume that shares its blocks with the volume. Everywhere else it is a full copy of the
// image, made by the RDS in the background. Either outlives the volume that it was taken of.
type Snapshot struct {
	ID           ID
	SourceVolume ID
	Name         string    // the CSI name, where the RDS keeps it: not of a subvolume
	SizeBytes    int64     // of the image: a volume made from it is at least so large
	Created      time.Time // when the copy began, or the subvolume was made
	// Ready is said of what is proven: a subvolume is there at once or not at all, a copy is done when the RDS has recorded that
	// its command ended well and the copy is as large as the volume was.
	Ready bool
	// Progress of a copy, from 0 to 1, as far as the size of its file tells; 1 when Ready.
	Progress float64
	Path     Path // of its image
}

// SnapshotRequest asks for a snapshot.
type SnapshotRequest struct {
	Name   string // the CSI name; the id is derived from it
	Source string // slot of the volume
	// Attached says that some node has the volume or may get it, which the RDS cannot know. Then a pool that has to copy refuses
	// with ErrAttached, and a copy under way is given up: it would be of no single point in time.
	Attached bool
}

// The form of a snapshot's id: snap-<cluster>-<name>, both digests. The cluster is in it because a subvolume has no comment
// that could say whose it is.
const (
	snapshotPrefix = "snap-"
	clusterDigits  = 8
	snapshotDigits = 26
)

// SnapshotIDFor derives the id from what the snapshot is called, so that a repeated create meets its own work.
func SnapshotIDFor(clusterID, csiName string) string {
	return snapshotsOf(clusterID) + digest(clusterID+"/snapshot/"+csiName, snapshotDigits)
}

// snapshotsOf is what the ids of all snapshots of a cluster begin with.
func snapshotsOf(clusterID string) string {
	return snapshotPrefix + digest(clusterID, clusterDigits) + "-"
}

// ValidSnapshotID says whether s has the form of a snapshot's id, of whatever cluster.
func ValidSnapshotID(s string) bool {
	digits, found := strings.CutPrefix(s, snapshotPrefix)
	cluster, name, two := strings.Cut(digits, "-")
	return found && two && len(cluster) == clusterDigits && len(name) == snapshotDigits &&
		strings.Trim(cluster+name, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// digest is the beginning of a hash, in letters and digits that a slot may have.
func digest(s string, digits int) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:digits]
}
