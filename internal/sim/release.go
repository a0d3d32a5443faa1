package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// release is a RouterOS version, as far as it decides anything.
type release struct {
	text  string
	minor int // of RouterOS 7
}

// parseRelease reads "7.24", "7.24.4" or "7.25beta2".
func parseRelease(s string) (release, error) {
	major, rest, ok := strings.Cut(s, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	minor := rest
	if end >= 0 {
		minor = rest[:end]
	}
	x, err := strconv.Atoi(major)
	y, err2 := strconv.Atoi(minor)
	if !ok || err != nil || err2 != nil || x != 7 {
		return release{}, fmt.Errorf("version %q: want a RouterOS 7 release such as 7.21, 7.23 or 7.24.4", s)
	}
	return release{text: s, minor: y}, nil
}

// since tells whether this is 7.minor or later.
func (r release) since(minor int) bool { return r.minor >= minor }

// dialect is what differs in the language.
func (r release) dialect(errorLocation bool) console.Dialect {
	return console.Dialect{RuntimeParameterErrors: r.since(23), ErrorLocation: errorLocation}
}

// diskArguments are those of /disk/add by version, after the device's own command tree [T]. Arguments for other types
// than file are known but do nothing.
func (r release) diskArguments() []string {
	args := strings.Fields(`comment copy-from crypted-backend disabled encryption-key media-interface media-sharing
		nfs-sharing nvme-tcp-address nvme-tcp-export nvme-tcp-host-name nvme-tcp-password nvme-tcp-port
		nvme-tcp-server-allow-host-name nvme-tcp-server-password nvme-tcp-server-port parent partition-number
		partition-offset partition-size raid-chunk-size raid-device-count raid-master raid-max-component-size
		raid-role raid-type ramdisk-size slot smb-address smb-export smb-password smb-share smb-sharing smb-user
		sshfs-address sshfs-password sshfs-path sshfs-port sshfs-user tmpfs-max-size type iscsi-address iscsi-export
		iscsi-port nfs-address nfs-share self-encryption-password`)
	if r.since(17) {
		args = append(args, "file-path", "file-size", "file-offset", "mount-filesystem", "mount-read-only",
			"mount-point-template", "swap")
	}
	if r.since(18) {
		args = append(args, "compress")
	}
	if r.since(21) {
		args = append(args, "nvme-tcp-server-nqn", "nvme-tcp-nqn", "iscsi-server-iqn", "iscsi-server-port")
	} else {
		args = append(args, "nvme-tcp-name")
	}
	slices.Sort(args)
	return args
}

func (r release) diskVerbs() map[string][]string {
	add := r.diskArguments()
	verbs := map[string][]string{
		"add":             add,
		"set":             append(slices.Clone(add), "numbers"),
		"remove":          {"numbers"},
		"enable":          {"numbers"},
		"disable":         {"numbers"},
		"comment":         {"numbers", "comment"},
		"monitor-traffic": {"numbers", "once", "duration", "interval", "as-value", "proplist"},
		"print":           {"stats", "stats-detail", "oid"},
	}
	if r.since(21) {
		verbs["print"] = append(verbs["print"], "show-sensitive")
	}
	return verbs
}

func (r release) fileVerbs() map[string][]string {
	verbs := map[string][]string{"print": {}, "remove": {"numbers"}, "set": {"numbers", "contents"}}
	if r.since(20) {
		verbs["add"] = []string{"contents", "name", "type"}
	} else {
		verbs["add"] = []string{"copy-from", "contents", "name", "type"}
	}
	if r.since(23) {
		verbs["copy"] = []string{"numbers", "name"} // [V]
	}
	return verbs
}
