package attach

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// DefaultMigrationTimeout is how long a migration may take unless its
// PersistentVolume says otherwise, and MostMigrationTimeout the longest that one
// may say.
const (
	DefaultMigrationTimeout = 5 * time.Minute
	MostMigrationTimeout    = time.Hour
)

// Migration is a volume that is attached to two nodes at once. An admission alone
// is none: a restart forgets it, and a number must not change because of that.
// Without Kubernetes admissions are all there is, and count.
type Migration struct {
	Volume   string
	From, To string    // To has the younger VolumeAttachment
	Began    time.Time // when that was made: the API server's word, which no restart changes
	Deadline time.Time
}

// Migrations lists what migrates now, by volume.
func (l *Ledger) Migrations() []Migration {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Migration, 0, len(l.moving))
	for handle := range l.moving {
		list = append(list, look(l.volumes, handle).migration(handle))
	}
	slices.SortFunc(list, func(a, b Migration) int { return strings.Compare(a.Volume, b.Volume) })
	return list
}

// Changed is signalled when the set of migrations may have changed: once for any
// number of changes since it was last received from.
func (l *Ledger) Changed() <-chan struct{} { return l.changed }

func (l *Ledger) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// stake is a node that has the volume, and since when.
type stake struct {
	node  string
	since time.Time
	uid   string
}

// before orders VolumeAttachments by age; those of one second by UID, so that
// every process orders them alike.
func (s stake) before(other stake) int {
	return cmp.Or(s.since.Compare(other.since), strings.Compare(s.uid, other.uid), strings.Compare(s.node, other.node))
}

func (h held) stake() stake { return stake{h.Node, h.Created, h.UID} }

// stakes are the nodes that have the volume, the oldest first, each once.
func (v *volume) stakes() []stake {
	var out []stake
	for _, h := range v.held {
		if h.Attached {
			out = append(out, h.stake())
		}
	}
	for _, i := range v.intents {
		if len(v.held) == 0 {
			out = append(out, stake{i.node, i.since, ""})
		}
	}
	slices.SortFunc(out, func(a, b stake) int { return b.before(a) }) // the youngest speaks for its node
	seen := map[string]bool{}
	out = slices.DeleteFunc(out, func(s stake) bool { again := seen[s.node]; seen[s.node] = true; return again })
	slices.Reverse(out)
	return out
}

// moves says whether the volume migrates.
func (v *volume) moves() bool {
	return len(v.held)+len(v.intents) > 1 && v.agree(MultiNode) == MultiNode && len(v.stakes()) > 1
}

func (v *volume) migration(handle string) Migration {
	s := v.stakes()
	from, to := s[len(s)-2], s[len(s)-1]
	return Migration{Volume: handle, From: from.node, To: to.node, Began: to.since, Deadline: to.since.Add(v.migrationTimeout())}
}

// migrationTimeout is the shortest that a VolumeAttachment of the volume brings.
func (v *volume) migrationTimeout() time.Duration {
	least := time.Duration(0)
	for _, h := range v.held {
		if t := cmp.Or(h.MigrationTimeout, DefaultMigrationTimeout); least == 0 || t < least {
			least = t
		}
	}
	return cmp.Or(least, DefaultMigrationTimeout)
}

// expired refuses the node of own as the second one of a migration whose time is
// over. It looks at VolumeAttachments alone, so that a restart changes nothing.
func (v *volume) expired(own held, now time.Time) *MigrationExpiredError {
	for _, h := range v.held {
		if h.Node == own.Node || own.Attached || !h.Attached && h.stake().before(own.stake()) > 0 {
			continue
		}
		began := own.Created
		if h.Created.After(began) {
			began = h.Created
		}
		if limit := v.migrationTimeout(); now.After(began.Add(limit)) {
			return &MigrationExpiredError{Node: own.Node, Other: h.Node, Began: began, Limit: limit}
		}
	}
	return nil
}
