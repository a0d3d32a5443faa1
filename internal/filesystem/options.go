package filesystem

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions is a claim's list, sorted by who understands it.
type mountOptions struct {
	attributes int      // of the mount: MOUNT_ATTR_*
	filesystem []string // for the filesystem, as they came
}

func (m mountOptions) readOnly() bool { return m.attributes&unix.MOUNT_ATTR_RDONLY != 0 }

// denied reports options that would mount something else than the volume or
// reach another device: bind and propagation words, loop devices and their
// windows, external journals and logs. Everything else is the claim's choice
// (B24: programs on a volume could not run, discard and nouuid were refused).
func denied(key string) bool {
	switch key {
	case "bind", "rbind", "move", "remount",
		"shared", "rshared", "private", "rprivate", "slave", "rslave", "unbindable", "runbindable",
		"loop", "offset", "sizelimit",
		"source", "device", "journal", "journal_dev", "journal_path", "logdev", "rtdev":
		return true
	}
	// X-mount.* makes mount(8) create directories and change owners.
	return strings.HasPrefix(key, "x-mount.")
}

// ignored reports words for mount(8), /etc/fstab and systemd, which mean nothing
// to the kernel.
func ignored(key string) bool {
	switch key {
	case "", "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "comment":
		return true
	}
	return strings.HasPrefix(key, "x-")
}

// attribute is what the kernel keeps per mount: bits to clear, then bits to set.
type attribute struct{ clear, set int }

func attributeOf(key string) (attribute, bool) {
	a, ok := map[string]attribute{
		"ro":            {set: unix.MOUNT_ATTR_RDONLY},
		"rw":            {clear: unix.MOUNT_ATTR_RDONLY},
		"nosuid":        {set: unix.MOUNT_ATTR_NOSUID},
		"suid":          {clear: unix.MOUNT_ATTR_NOSUID},
		"nodev":         {set: unix.MOUNT_ATTR_NODEV},
		"dev":           {clear: unix.MOUNT_ATTR_NODEV},
		"noexec":        {set: unix.MOUNT_ATTR_NOEXEC},
		"exec":          {clear: unix.MOUNT_ATTR_NOEXEC},
		"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
		"symfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
		"nodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
		"diratime":      {clear: unix.MOUNT_ATTR_NODIRATIME},
		"noatime":       {clear: unix.MOUNT_ATTR__ATIME, set: unix.MOUNT_ATTR_NOATIME},
		"strictatime":   {clear: unix.MOUNT_ATTR__ATIME, set: unix.MOUNT_ATTR_STRICTATIME},
		"relatime":      {clear: unix.MOUNT_ATTR__ATIME},
		"atime":         {clear: unix.MOUNT_ATTR__ATIME},
		"norelatime":    {clear: unix.MOUNT_ATTR__ATIME},
		"nostrictatime": {clear: unix.MOUNT_ATTR__ATIME},
	}[key]
	return a, ok
}

// parseOptions takes a claim's list, in which an entry may hold several words.
func parseOptions(list []string) (mountOptions, error) {
	var m mountOptions
	for _, entry := range list {
		for _, word := range split(entry) {
			key, _, _ := strings.Cut(word, "=")
			lower := strings.ToLower(key)
			// 255 bytes is what the kernel takes as a value.
			bad := strings.ContainsFunc(word, func(r rune) bool { return r < ' ' || r == 0x7f })
			if denied(lower) || bad || len(word) > 255 {
				return m, fmt.Errorf("%w: %.64q", ErrOption, word)
			}
			if ignored(lower) {
				continue
			}
			m.add(key, word)
		}
	}
	return m, nil
}

func (m *mountOptions) add(key, word string) {
	a, ok := attributeOf(key)
	if !ok || key != word {
		m.filesystem = append(m.filesystem, word)
		return
	}
	m.attributes = m.attributes&^a.clear | a.set
	// ro is also the filesystem's: without it xfs and ext4 would write.
	if key == "ro" || key == "rw" {
		m.filesystem = slices.DeleteFunc(m.filesystem, func(o string) bool { return o == "ro" || o == "rw" })
		m.filesystem = append(m.filesystem, key)
	}
}

// twins lets an xfs be mounted beside another one of its UUID, as a clone is, and what was restored from a snapshot: the kernel
// refuses the second (EINVAL; the reason stands in its log only). That check is for one disk seen as two devices. Here a
// device was found by its NQN, an NQN with two of them is refused (nvme.ErrIdentity), and what is left mounted of a dead one
// cannot write. A UUID of its own for the copy would mean writing to it before its log is replayed.
func (m *mountOptions) twins() {
	if !slices.Contains(m.filesystem, "nouuid") {
		m.filesystem = append(m.filesystem, "nouuid")
	}
}

// split cuts at commas that are not quoted: an SELinux context holds commas and
// comes as context="system_u:object_r:container_file_t:s0:c1,c2". The quotes are
// for us, the kernel wants none.
func split(entry string) []string {
	var words []string
	var word strings.Builder
	quoted := false
	for _, r := range entry {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			words = append(words, strings.TrimSpace(word.String()))
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	return append(words, strings.TrimSpace(word.String()))
}

// attributes is what the kernel keeps for this mount, as the mount table words it:
// of the access time modes, strictatime is the one that it does not name.
func (m Mount) attributes() int {
	var has mountOptions
	for _, o := range m.Options {
		has.add(o, o)
	}
	if !slices.Contains(m.Options, "relatime") && !slices.Contains(m.Options, "noatime") {
		has.attributes |= unix.MOUNT_ATTR_STRICTATIME
	}
	return has.attributes
}

// attributeNames is for people.
func attributeNames(attributes int) []string {
	var names []string
	for _, name := range []string{"ro", "nosuid", "nodev", "noexec", "nosymfollow", "nodiratime", "noatime", "strictatime"} {
		if a, _ := attributeOf(name); attributes&a.set != 0 {
			names = append(names, name)
		}
	}
	return names
}
