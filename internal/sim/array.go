package sim

import (
	"fmt"
	"slices"
)

// array is how the RAID below a pool is, where it is not well.
type array struct {
	state  string
	failed []int // its members, by their roles
}

// SetPoolState changes what the array of a pool says of itself, as the device words it, and which of its members failed, by
// their roles, 0 to 3. Seen on a device were "clean" and "clean, sync:repair, resync = ..." and members "0:in_sync" [R]. That a
// failed member has its flag is documented [V]; its raid-member-state, and what the array says then, is not known [U]: "faulty"
// is Linux' word. False when there is no such pool or member.
func (d *Device) SetPoolState(slot, state string, failed ...int) bool {
	_, ok := d.storage.pool(slot)
	if !ok || slices.ContainsFunc(failed, func(role int) bool { return role < 0 || role >= drivesPerPool }) {
		return false
	}
	d.storage.mu.Lock()
	defer d.storage.mu.Unlock()
	d.storage.arrays[slot] = array{state, slices.Clone(failed)}
	return true
}

// array is what the RAID below a pool is like.
func (s *storage) array(slot string) array {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.arrays[slot]; ok {
		return a
	}
	return array{state: "clean"}
}

// member are the properties of a drive as the member of an array, and its flags.
func (a array) member(slot string, role int) (flags string, fields []field) {
	failed, state := slices.Contains(a.failed, role), "in_sync"
	flags = "Br"
	if failed {
		flags, state = "Bfr", "faulty"
	}
	return flags, []field{
		{name: "raid-master", value: slot},
		{name: "raid-role", value: int64(role)},
		{name: "raid-member-failed", value: failed},
		{name: "raid-member-state", value: fmt.Sprintf("%d:%s", role, state), shape: quoted},
	}
}
