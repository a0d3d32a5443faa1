package sim

import (
	"errors"
	"slices"
)

var errNoExport = errors.New("failure: could not export")

// target is what hosts see of an item: one subsystem with namespace 1.
type target struct {
	nqn, serial, uuid string
	file              string // on this machine
	port              int
	host              string // the only host NQN let in; "" is anyone
}

// exporter makes items reachable. Calls come one at a time.
type exporter interface {
	// export makes targets reachable, all of them at nearly the same moment: a host that comes back between two of
	// them and does not find its own gives up for good. What is returned are the NQNs that failed; nothing of those
	// is left.
	export(list ...target) map[string]error
	// withdraw takes targets away, connections and all. What is not there is withdrawn.
	withdraw(nqns ...string) error
	// grown makes a target as large as its file, and tells connected hosts if they are to know.
	grown(nqn string, notify bool) error
	// connections names those that hosts have, as far as this machine can know. A name is never given again.
	connections(nqn string) []string
}

// tableOnly is a device without a target: exports are entries of the disk table.
type tableOnly struct{}

func (tableOnly) export(...target) map[string]error { return nil }
func (tableOnly) withdraw(...string) error          { return nil }
func (tableOnly) grown(string, bool) error          { return nil }
func (tableOnly) connections(string) []string       { return nil }

// raise exports an item if it is to be exported. mu is held.
func (d *Device) raise(dk *disk) error {
	t, wanted, err := d.target(dk)
	if !wanted || err != nil {
		return err
	}
	if err := d.exports.export(t)[t.nqn]; err != nil {
		d.log.Error("an export could not be made", "slot", dk.Slot, "error", err)
		return errNoExport
	}
	dk.up = true
	return nil
}

// raiseAll exports what is to be exported after a start. What fails stays in the table, as an export that nobody
// answers for.
func (d *Device) raiseAll() {
	var list []target
	for _, dk := range d.flash.Disks {
		t, wanted, err := d.target(dk)
		if err != nil {
			d.log.Error("an export could not be made", "slot", dk.Slot, "error", err)
		}
		if wanted && err == nil {
			dk.up = true
			list = append(list, t)
		}
	}
	for nqn, err := range d.exports.export(list...) {
		for _, dk := range d.flash.Disks {
			if dk.up && d.nqn(dk) == nqn {
				d.log.Error("an export could not be made", "slot", dk.Slot, "error", err)
				dk.up = false
			}
		}
	}
}

// target decides whether an item is to be exported now, and as what.
func (d *Device) target(dk *disk) (t target, wanted bool, err error) {
	if !dk.Export || dk.Disabled || dk.up {
		return target{}, false, nil
	}
	taken := slices.ContainsFunc(d.flash.Disks, func(one *disk) bool {
		return one != dk && one.up && d.nqn(one) == d.nqn(dk)
	})
	if taken {
		return target{}, true, errNQNTaken // [U], but two subsystems of one name cannot be
	}
	if err := d.catchUp(dk); err != nil {
		return target{}, true, err
	}
	if dk.Serial == "" || d.quirks.is(quirkIdentifiers, change) {
		dk.Serial, dk.UUID = newSerial(), newUUID()
	}
	return target{
		nqn: d.nqn(dk), serial: dk.Serial, uuid: dk.UUID, file: d.storage.host(dk.Path),
		port: int(dk.Port), host: dk.AllowHost,
	}, true, nil
}

// lower takes exports away. What remains in the kernel is logged: the device itself never says so. mu is held.
func (d *Device) lower(list ...*disk) {
	var nqns []string
	var down []*disk
	for _, dk := range list {
		if dk.up {
			nqns = append(nqns, d.nqn(dk))
			down = append(down, dk)
			dk.up, dk.sitting = false, nil
		}
	}
	if err := d.exports.withdraw(nqns...); err != nil {
		d.log.Error("exports could not be taken away", "error", err)
	}
	for _, dk := range down { // nobody is left to hide growth from
		if err := d.catchUp(dk); err != nil {
			d.log.Error("growth could not be shown", "slot", dk.Slot, "error", err)
		}
	}
}

func (d *Device) connected(dk *disk) bool {
	return len(d.connections(dk)) > 0
}
