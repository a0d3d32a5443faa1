package appliance

import (
	"fmt"
	"strings"
)

// ID names one volume: the RDS it lies on, and its slot there.
type ID struct {
	RDS, Slot string
	// bare remembers that the handle had no RDS in it, as those of the existing driver: a handle is immutable in
	// Kubernetes, so it must print as it came.
	bare bool
}

const (
	maxSlot = 63
	maxName = 63
	// nqnPrefix is what the existing driver's volumes carry, and what RouterOS uses for its own iSCSI names [R].
	nqnPrefix = "nqn.2000-02.com.mikrotik:"
)

// ParseID reads a volume handle: "<rds>/<slot>", or a bare "<slot>" on the default RDS.
func ParseID(handle, defaultRDS string) (ID, error) {
	rds, slot, qualified := strings.Cut(handle, "/")
	if !qualified {
		rds, slot = defaultRDS, handle
	}
	if !validRDSName(rds) || !ValidSlot(slot) {
		return ID{}, fmt.Errorf("volume handle %.160q: %w: want <rds>/<slot> or <slot>, a slot being 1 to %d of a-z, 0-9 and inner hyphens", handle, ErrInvalid, maxSlot)
	}
	return ID{RDS: rds, Slot: slot, bare: !qualified}, nil
}

// String is the volume handle; one that came bare prints bare again.
func (id ID) String() string {
	if id.bare {
		return id.Slot
	}
	return id.Key()
}

// Known is the ID as it prints in Kubernetes, where only slots were known: a volume of the existing driver, which lies on the
// default RDS, has a bare handle.
func (id ID) Known(defaultRDS string) ID {
	id.bare = id.RDS == defaultRDS && adoptableSlot(id.Slot)
	return id
}

// Key is the same for every way to write the handle: what locks and maps are keyed by.
func (id ID) Key() string { return id.RDS + "/" + id.Slot }

// SlotFor derives the slot from what the volume is called, so that a repeated create meets its own work.
// 30 characters: one report says that RouterOS 7.24 takes no more than 32 [S]. 130 bits of the digest.
func SlotFor(clusterID, csiName string) string {
	return slotPrefix + digest(clusterID+"/"+csiName, slotDigits)
}

// NQNFor is the subsystem name under which a slot is exported.
func NQNFor(slot string) string { return nqnPrefix + slot }

const (
	slotPrefix = "pvc-"
	slotDigits = 26
)

// ValidSlot says whether s may be a slot: the characters are those proven on hardware [R].
func ValidSlot(s string) bool {
	return len(s) >= 1 && len(s) <= maxSlot && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// validRDSName keeps names out of handles that would make them ambiguous.
func validRDSName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
	return len(s) >= 1 && len(s) <= maxName && !strings.ContainsAny(s[:1], "-._") && strings.Trim(s, letters) == ""
}

// adoptableSlot says whether a slot has the form that the existing driver gives its volumes: pvc-<uuid>, 40 characters.
func adoptableSlot(slot string) bool {
	digits, found := strings.CutPrefix(slot, slotPrefix)
	parts := strings.Split(digits, "-")
	if !found || len(parts) != 5 {
		return false
	}
	for i, n := range []int{8, 4, 4, 4, 12} {
		if len(parts[i]) != n || strings.Trim(parts[i], "0123456789abcdef") != "" {
			return false
		}
	}
	return true
}

// derivedSlot says whether a slot has the form that SlotFor gives.
func derivedSlot(slot string) bool {
	digits, found := strings.CutPrefix(slot, slotPrefix)
	return found && len(digits) == slotDigits && strings.Trim(digits, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
