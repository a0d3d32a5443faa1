package reconcile

import (
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Stock is what this cluster has on one RDS.
type Stock struct {
	Volumes      int
	Bytes        int64
	Orphaned     int       // volumes that no PersistentVolume names, for longer than the grace time
	OrphansKnown bool      // not without Kubernetes, and not before its PersistentVolumes were listed
	Came         time.Time // when the list that it was made from came
}

// stock counts the items of a list that are this cluster's: those whose comment
// says so, and those of the existing driver, which have no comment, where a
// PersistentVolume of this cluster names them.
func stock(list Reading[[]appliance.Volume], claimed map[string]bool) Stock {
	s := Stock{Came: list.Came}
	for _, v := range list.Value {
		if v.Owner == appliance.OwnerOurs || v.Owner == appliance.OwnerNone && claimed[v.ID.Key()] {
			s.Volumes++
			s.Bytes += v.SizeBytes
		}
	}
	return s
}

// orphans are the volumes of this cluster that no PersistentVolume names. They may
// be garbage or the only copy of something: they are counted, never removed.
func orphans(list Reading[[]appliance.Volume], claimed map[string]bool) []Finding {
	var out []Finding
	for _, v := range list.Value {
		if v.Owner == appliance.OwnerOurs && !claimed[v.ID.Key()] {
			out = append(out, Finding{
				Kind: orphan, Volume: v.ID.Key(), Object: v.Name, Seen: list.Asked,
				Detail: "volume " + v.ID.String() + " (" + v.Name + ", made for claim " + v.Claim + ") has no PersistentVolume",
			})
		}
	}
	return out
}
