package filesystem

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The claim's options are honoured, whatever they are, unless they would mount
// something else (B24: exec, discard and nouuid were refused, noexec forced).
func TestOptionsAreHonoured_B24(t *testing.T) {
	for _, tt := range []struct {
		list       []string
		attributes int
		filesystem []string
	}{
		{nil, 0, nil},
		{[]string{"defaults", "_netdev", "nofail", "x-systemd.automount", "", "comment=hello"}, 0, nil},
		{[]string{"exec", "discard", "nouuid"}, 0, []string{"discard", "nouuid"}},
		{[]string{"noexec,nosuid,nodev"}, unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, nil},
		{[]string{"noexec", "exec"}, 0, nil}, // the last word counts
		{[]string{"noatime", "relatime"}, 0, nil},
		{[]string{"strictatime", "noatime", "nodiratime"}, unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_NODIRATIME, nil},
		{[]string{"ro"}, unix.MOUNT_ATTR_RDONLY, []string{"ro"}},
		{[]string{"ro", "rw"}, 0, []string{"rw"}},
		{[]string{" errors=remount-ro , commit=30"}, 0, []string{"errors=remount-ro", "commit=30"}},
		{[]string{"norecovery", "sync", "lazytime", "logbsize=256k", "data=journal"}, 0, []string{"norecovery", "sync", "lazytime", "logbsize=256k", "data=journal"}},
		{[]string{`context="system_u:object_r:container_file_t:s0:c1,c2"`, "noatime"}, unix.MOUNT_ATTR_NOATIME, []string{"context=system_u:object_r:container_file_t:s0:c1,c2"}},
	} {
		got, err := parseOptions(tt.list)
		if err != nil || got.attributes != tt.attributes || !cmp.Equal(got.filesystem, tt.filesystem) {
			t.Errorf("%q: %+v %v", tt.list, got, err)
		}
	}
}

func TestOptionsThatMountSomethingElseAreRefused(t *testing.T) {
	for _, o := range []string{
		"bind", "rbind", "BIND", "move", "remount", "shared", "rshared", "private", "rprivate", "slave", "rslave", "unbindable", "runbindable",
		"loop", "loop=/dev/loop0", "offset=4096", "sizelimit=1", "source=/dev/sda", "device=/dev/sda",
		"journal_dev=0x801", "journal_path=/dev/sda1", "logdev=/dev/sda1", "rtdev=/dev/sda1", "X-mount.mkdir", "X-mount.owner=root",
		"noatime,bind", "noatime, loop", "a\nb", "a\x00b", "commit=" + strings.Repeat("1", 300),
	} {
		if got, err := parseOptions([]string{o}); !errors.Is(err, ErrOption) {
			t.Errorf("%q: %+v %v", o, got, err)
		}
	}
}

// What the mount table says of a mount is what was asked for.
func TestFlagsOfAMount(t *testing.T) {
	for options, want := range map[string]int{
		"ro,noexec,nosuid,nodev,noatime,nodiratime,nosymfollow": unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID |
			unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_NODIRATIME | unix.MOUNT_ATTR_NOSYMFOLLOW,
		"rw,relatime": 0,
		"rw":          unix.MOUNT_ATTR_STRICTATIME,
	} {
		if got := (Mount{Options: strings.Split(options, ",")}).attributes(); got != want {
			t.Errorf("%s: %q, want %q", options, attributeNames(got), attributeNames(want))
		}
	}
}

// Rule 23: the features are an old baseline by name, and nothing forces mkfs.
func TestMkfsArguments_Rule23(t *testing.T) {
	joined := strings.Join(ext4Args(), " ")
	if !strings.Contains(joined, "-O none,") || strings.Contains(joined, "orphan_file") || strings.Contains(joined, "metadata_csum_seed") {
		t.Errorf("ext4: %s", joined)
	}
	for version, want := range map[string]string{
		"mkfs.xfs version 4.20.0":       "-q -K -m crc=1,finobt=1,rmapbt=0,reflink=1 -i sparse=1 -n ftype=1",
		"mkfs.xfs version 5.10.0":       "-q -K -m crc=1,finobt=1,rmapbt=0,reflink=1,bigtime=0,inobtcount=0 -i sparse=1 -n ftype=1",
		"mkfs.xfs version 6.1.0":        "-q -K -m crc=1,finobt=1,rmapbt=0,reflink=1,bigtime=0,inobtcount=0 -i sparse=1,nrext64=0 -n ftype=1",
		"mkfs.xfs version 6.13.0":       "-q -K -m crc=1,finobt=1,rmapbt=0,reflink=1,bigtime=0,inobtcount=0 -i sparse=1,nrext64=0,exchange=0 -n ftype=1,parent=0",
		"something that cannot be read": "-q -K -m crc=1,finobt=1,rmapbt=0,reflink=1 -i sparse=1 -n ftype=1",
	} {
		if got := strings.Join(xfsArgs(version), " "); got != want {
			t.Errorf("%s:\n%s, want\n%s", version, got, want)
		}
	}
	for _, a := range append(ext4Args(), xfsArgs("mkfs.xfs version 6.1.0")...) {
		if a == "-F" || a == "-f" {
			t.Errorf("forced: %s", a)
		}
	}
}

func TestContentOfBlkidsAnswer(t *testing.T) {
	for _, tt := range []struct {
		output string
		want   Content
	}{
		// Verbatim from blkid 2.38.1 -p -o export.
		{"DEVNAME=a\nUUID=b4c6a9c7-adc2-4ecc-a4b9-1fe85a77f0da\nVERSION=1.0\nBLOCK_SIZE=1024\nTYPE=ext4\nUSAGE=filesystem", Content{Kind: FileSystem, FSType: "ext4"}},
		{"DEVNAME=g\nPTUUID=0b3dd9c5\nPTTYPE=gpt", Content{Kind: Foreign, Detail: "gpt partition table"}},
		{"DEVNAME=l\nVERSION=LVM2 001\nTYPE=LVM2_member\nUSAGE=raid", Content{Kind: Foreign, FSType: "LVM2_member", Detail: "LVM2_member (raid)"}},
	} {
		if diff := cmp.Diff(tt.want, content(tt.output)); diff != "" {
			t.Error(diff)
		}
	}
}
