package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Ailment is something that is wrong with a mounted file system.
type Ailment int

// Ailments, from the worst.
const (
	LargerThanDevice  Ailment = iota + 1 // its end is beyond the device: what lies there is lost, or not there yet
	ShutDown                             // the kernel stopped it after an error: every access fails
	TurnedReadOnly                       // the kernel made it read-only after an error
	NotAnswering                         // it did not say its size in time
	ErrorsRecorded                       // ext4 noted errors in its superblock
	SmallerThanDevice                    // it did not grow with its device
)

// Symptom is an ailment and what shows it.
type Symptom struct {
	Ailment Ailment
	Detail  string
}

// Examine looks for what is wrong with the file system that is staged at target. It asks the kernel, not the data: the
// mount table, sysfs, and the superblock that the kernel keeps in memory.
func (f *Filesystem) Examine(ctx context.Context, dev Device, target string) ([]Symptom, error) {
	var found []Symptom
	err := f.look(ctx, dev, target, func(path string, m Mount) error {
		var err error
		found, err = f.examine(dev, path, m)
		return err
	})
	if errors.Is(err, ErrTimeout) {
		return []Symptom{{NotAnswering, err.Error()}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("examine %s at %s: %w", dev, target, err)
	}
	return found, nil
}

func (f *Filesystem) examine(dev Device, path string, m Mount) ([]Symptom, error) {
	found := m.symptoms()
	if slices.ContainsFunc(found, func(s Symptom) bool { return s.Ailment == ShutDown }) {
		return found, nil // it answers nothing any more
	}
	super, err := f.system.geometry(dev, path, m.FSType)
	if err != nil {
		// xfs before the mount table told that it was shut down: it answers EIO.
		return append(found, Symptom{ShutDown, fmt.Sprintf("it does not tell its size: %v", err)}), nil
	}
	if m.FSType == "ext4" {
		noted, err := f.noted(dev, m, super, found)
		if err != nil {
			return nil, err
		}
		found = append(found, noted...)
	}
	switch gap := dev.SizeBytes - super.bytes(); {
	case gap < 0:
		found = append(found, Symptom{LargerThanDevice, fmt.Sprintf("it has %d bytes, its device %d", super.bytes(), dev.SizeBytes)})
	case gap > slack(m.FSType):
		found = append(found, Symptom{SmallerThanDevice, fmt.Sprintf("it has %d bytes, its device %d", super.bytes(), dev.SizeBytes)})
	}
	return found, nil
}

// noted reads what ext4 wrote down. Since Linux 6.12 the mount table no longer shows that it refuses writes after an
// error (it shows it again, as emergency_ro, some versions later): an error since it was mounted, and the option to stop
// at errors, mean that it does.
func (f *Filesystem) noted(dev Device, m Mount, super geometry, found []Symptom) ([]Symptom, error) {
	e, err := f.system.recorded(dev)
	if err != nil {
		return nil, fmt.Errorf("%w: errors noted by ext4: %w", ErrUnreadable, err)
	}
	if e.count == 0 {
		return nil, nil
	}
	sum := Symptom{ErrorsRecorded, fmt.Sprintf("%d errors are noted in its superblock", e.count)}
	if e.last <= super.mounted { // both in seconds: an error of the first one is taken for older
		return []Symptom{sum}, nil
	}
	sum.Detail += ", the last one since it was mounted, so writes may fail"
	if slices.Contains(m.SuperOptions, "errors=remount-ro") && len(found) == 0 {
		return []Symptom{{TurnedReadOnly, "the kernel refuses writes after an error"}, sum}, nil
	}
	return []Symptom{sum}, nil
}

// symptoms are those that the mount table shows. A mount that was made read-only has the flag itself; when only its
// superblock has it, the kernel did that.
func (m Mount) symptoms() []Symptom {
	var found []Symptom
	switch {
	case slices.Contains(m.SuperOptions, "shutdown"):
		found = append(found, Symptom{ShutDown, "the kernel has shut it down after an error"})
	case slices.Contains(m.SuperOptions, "emergency_ro"),
		slices.Contains(m.SuperOptions, "ro") && !slices.Contains(m.Options, "ro"):
		found = append(found, Symptom{TurnedReadOnly, "the kernel has made it read-only after an error"})
	}
	return found
}

// noted are the errors of a mounted ext4.
type noted struct{ count, last int64 } // last: seconds of 1970

// ext4Errors asks sysfs, where a mounted ext4 has a directory by the name of its device.
func ext4Errors(dev Device) (n noted, err error) {
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", dev.Major, dev.Minor))
	if err != nil {
		return n, err
	}
	for name, to := range map[string]*int64{"errors_count": &n.count, "last_error_time": &n.last} {
		text, err := os.ReadFile(filepath.Join("/sys/fs/ext4", filepath.Base(link), name))
		if errors.Is(err, fs.ErrNotExist) {
			return noted{}, nil // it was unmounted meanwhile
		}
		if err == nil {
			*to, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
