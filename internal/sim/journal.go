package sim

import (
	"slices"
	"sync"
)

// journalLimit bounds the memory that a long-lived device spends on its past.
const journalLimit = 10000

// Counters count what the device has seen since it was made.
type Counters struct{ Connections, Channels, Commands int }

// journal is what a test asks a device about.
type journal struct {
	mu       sync.Mutex
	counters Counters
	scripts  []string
}

func (j *journal) connection() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counters.Connections++
}

func (j *journal) channel() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counters.Channels++
}

func (j *journal) command(script string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counters.Commands++
	if len(j.scripts) == journalLimit {
		j.scripts = slices.Delete(j.scripts, 0, journalLimit/2)
	}
	j.scripts = append(j.scripts, script)
}

// Commands are the scripts received by exec, oldest first: the last few thousand of them.
func (d *Device) Commands() []string {
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	return slices.Clone(d.journal.scripts)
}

// Counters returns the counts so far.
func (d *Device) Counters() Counters {
	d.journal.mu.Lock()
	defer d.journal.mu.Unlock()
	return d.journal.counters
}

// Disk is an item of type=file as the device has it.
type Disk struct {
	ID, Slot, Comment        string
	FilePath                 string // with a leading slash
	HostFile                 string // the backing file on this machine
	FileSize                 int64
	MountFilesystem, Mounted bool
	Export                   bool // what the table says
	Up                       bool // whether it is exported at this moment
	Port                     int
	NQN, AllowHostName       string
	Serial, UUID             string
}

// Disk finds an item of type=file by its slot.
func (d *Device) Disk(slot string) (Disk, bool) {
	all := d.Disks()
	i := slices.IndexFunc(all, func(one Disk) bool { return one.Slot == slot })
	if i < 0 {
		return Disk{}, false
	}
	return all[i], true
}

// Disks returns all items of type=file.
func (d *Device) Disks() []Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]Disk, 0, len(d.flash.Disks))
	for _, dk := range d.flash.Disks {
		list = append(list, Disk{
			ID: string(itemID(dk.ID)), Slot: dk.Slot, Comment: dk.Comment, FilePath: "/" + dk.Path,
			HostFile: d.storage.host(dk.Path), FileSize: dk.Size, MountFilesystem: dk.MountFilesystem,
			Mounted: dk.mounted, Export: dk.Export, Up: dk.up, Port: int(dk.Port), NQN: d.nqn(dk),
			AllowHostName: dk.AllowHost, Serial: dk.Serial, UUID: dk.UUID,
		})
	}
	return list
}

// File tells whether a path of /disk or /file exists, and where it is on this machine.
func (d *Device) File(name string) (hostFile string, ok bool) {
	clean, err := cleanPath(name)
	if err != nil {
		return "", false
	}
	_, ok = d.storage.stat(clean)
	return d.storage.host(clean), ok
}

// PretendHosts makes an item look as if so many hosts were connected to it, where there is no real target.
func (d *Device) PretendHosts(slot string, hosts int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.flash.Disks, func(dk *disk) bool { return dk.Slot == slot })
	if i < 0 {
		return false
	}
	d.flash.Disks[i].hosts = hosts
	d.showGrowth(d.flash.Disks[i])
	return true
}
