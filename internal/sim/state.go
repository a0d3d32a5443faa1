package sim

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// firstFileID leaves the ids below it to drives and pools.
const firstFileID = 0x20

// flash is what the device remembers through a power loss, beside the files of its pools.
type flash struct {
	Identity string  `json:"identity"`
	NextID   int64   `json:"nextID"`
	Disks    []*disk `json:"disks"`

	Subvolumes []*subvolume `json:"subvolumes,omitempty"`
}

// disk is an item of type=file.
type disk struct {
	ID              int64  `json:"id"`
	Slot            string `json:"slot"`
	Comment         string `json:"comment,omitempty"`
	Path            string `json:"path"` // without a leading slash
	Size            int64  `json:"size"`
	Offset          int64  `json:"offset,omitempty"`
	Disabled        bool   `json:"disabled,omitempty"`
	MountFilesystem bool   `json:"mountFilesystem"`
	MountReadOnly   bool   `json:"mountReadOnly,omitempty"`
	Export          bool   `json:"export,omitempty"`
	ServerSet       bool   `json:"serverSet,omitempty"` // some nvme-tcp-server-* has been set: print shows them
	Port            int64  `json:"port"`
	NQN             string `json:"nqn,omitempty"` // as set; "" is the default name
	AllowHost       string `json:"allowHost,omitempty"`
	Password        string `json:"password,omitempty"`
	Serial          string `json:"serial,omitempty"`
	UUID            string `json:"uuid,omitempty"`

	fs      string // recognised when the device last looked, "" is none
	mounted bool
	up      bool // exported right now
	hosts   int  // connections that a test pretends

	sitting []string // the connections that growth waits for; then the file is smaller than Size
}

func (d *Device) flashFile() string { return filepath.Join(d.dir, "device.json") }

// load reads the flash; a device that has none is new.
func (d *Device) load() error {
	fixed := len(d.hardware()) + len(d.storage.pools)
	d.flash = flash{Identity: d.identity, NextID: max(firstFileID, int64(fixed)+1)}
	data, err := os.ReadFile(d.flashFile())
	if errors.Is(err, fs.ErrNotExist) {
		return d.save()
	}
	if err != nil {
		return fmt.Errorf("read the flash: %w", err)
	}
	if err := json.Unmarshal(data, &d.flash); err != nil {
		return fmt.Errorf("read the flash %s: %w", d.flashFile(), err)
	}
	return nil
}

// save writes the flash so that a kill at any instruction leaves the old or the new one.
func (d *Device) save() error {
	if err := writeAtomically(d.flashFile(), d.flash); err != nil {
		return fmt.Errorf("failure: could not write the configuration: %w", err)
	}
	return nil
}

// writeAtomically replaces a file in one step. It does not sync: what it guards against is the end of this process,
// not of the machine.
func writeAtomically(name string, v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	next := name + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, name)
}

// newSerial is one of nvmet's: 16 hex digits [R].
func newSerial() string { return hex.EncodeToString(randomBytes(8)) }

func newUUID() string {
	b := randomBytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
