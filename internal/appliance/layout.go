package appliance

import (
	"strings"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// A volume lies in its directory in one of two ways. On a Btrfs pool it is a subvolume of its own that holds one image,
//
//	<directory>/<slot>/volume.img
//
// since a subvolume is what Btrfs takes snapshots of. Everywhere else, and for volumes that were there before, it is a file:
//
//	<directory>/<slot>.img
const imageName = "volume.img"

// flat is the image of a volume that is a file in dir.
func flat(dir Path, slot string) (Path, error) { return dir.Join(slot + ".img") }

// within is the image of a volume that is a subvolume in dir.
func within(dir Path, slot string) (Path, error) { return dir.Join(slot + "/" + imageName) }

// home is the directory that a volume's image lies in, its subvolume left out; zero if the image is not called after the slot.
func (p Path) home(slot string) Path {
	switch {
	case p.Base() == slot+".img":
		return p.Dir()
	case p.Base() == imageName && p.Dir().Base() == slot:
		return p.Dir().Dir()
	default:
		return Path{}
	}
}

// below is a path without its mount point: what Btrfs calls the full name of a subvolume.
func (p Path) below() string { return strings.TrimPrefix(p.rel, p.MountPoint()+"/") }

// makeSubvolumes makes the missing ones of several directories, the outermost first. A name like a path puts a subvolume into
// another one [V]; whether it may lie in a plain directory, which somebody has made before, is not known [U]. $l is the label
// of the file system.
func makeSubvolumes(dirs []Path) routeros.Value {
	made := routeros.Part("")
	for _, dir := range dirs {
		made = routeros.Part(`??; `, made, unlessThere(dir, routeros.Part(`/disk/btrfs/subvolume add fs=$l name=?`, routeros.Text(dir.below()))))
	}
	return made
}

// unlessThere makes a directory that is missing. Volumes share directories: another script may make this one between the look
// and the making, and then it is there as wanted.
func unlessThere(dir Path, making routeros.Value) routeros.Value {
	missing := routeros.Part(`[:len [/file find where name=?]]=0`, routeros.Text(dir.File()))
	return routeros.Part(`:if (?) do={:onerror e in={?} do={:if (?) do={:error $e}}}`, missing, making, missing)
}

// subvolumeOrSay runs what makes a subvolume, and makes an error of ours of whatever the device says to it.
func subvolumeOrSay(making routeros.Value) routeros.Value {
	return routeros.Part(`:onerror e in={?} do={:error (? . " " . $e)}`, making, routeros.Text(saySubvolume))
}
