//go:build kernel

package kernel

import (
	"os"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/crypto/ssh"
)

// oldSlot is the handle of a volume of the existing driver, and its slot: 40 characters.
const oldSlot = "pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11"

// A volume of the existing driver, with data on it, is mounted with a kernel as it is, grows and is deleted.
func TestVolumeOfTheExistingDriver(t *testing.T) {
	s := newScene(t, "", copyPool, map[string]string{"slot-over-32": "accept"})
	c, data := s.old()
	c.up()
	data.verify(t, c.directory)
	if on, _ := s.server.Device.Disk(oldSlot); on.MountFilesystem || !strings.Contains(on.Comment, clusterID) {
		t.Errorf("it is not put right: %+v", on)
	}
	size := fsBytes(t, c.directory)
	c.expand(2 * volumeSize)
	must(t, c.nodeExpand(2*volumeSize))
	if grown := fsBytes(t, c.directory); grown < size+volumeSize*9/10 {
		t.Errorf("its file system grew from %d to %d bytes", size, grown)
	}
	data.verify(t, c.directory)
	c.down()
	c.fsck()
	c.remove()
	if left := s.server.Device.Disks(); len(left) != 0 {
		t.Errorf("still on the rds: %v", left)
	}
}

// old makes a volume as the existing driver does, with a file system and files on it.
func (s *scene) old() (*claim, contents) {
	t := s.t
	t.Helper()
	nqn := "nqn.2000-02.com.mikrotik:" + oldSlot
	s.administrator(`/file add name="` + copyPool + `/metal-csi" type=directory`)
	s.administrator(`/disk add type=file file-path="/` + copyPool + `/metal-csi/` + oldSlot + `.img" file-size=128M slot="` + oldSlot + `"`)
	c := &claim{host: s.here(), s: s, mode: capability(oneWriter, "ext4"), volume: &csi.Volume{VolumeId: oldSlot, VolumeContext: map[string]string{
		"rdsAddress": "10.42.241.3", "nvmeAddress": rdsAddress, "nvmePort": "4420", "nqn": nqn, "volumePath": "/" + copyPool + "/metal-csi/" + oldSlot + ".img",
	}}}
	dir := t.TempDir()
	data := fill(t, dir, 1<<20, "a", "b")
	must(t, os.Chmod(dir, 0o755))
	command(t, "mkfs.ext4", "-q", "-F", "-d", dir, c.file())
	f, err := os.Open(c.file())
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	s.administrator(`/disk set "` + oldSlot + `" nvme-tcp-export=yes nvme-tcp-server-port=4420 nvme-tcp-server-nqn="` + nqn + `"`)
	c.staging, c.directory = mountPoint(t, "staging"), mountPoint(t, "target")
	return c, data
}

// administrator types a command at the console.
func (s *scene) administrator(command string) {
	s.t.Helper()
	client, err := ssh.Dial("tcp", s.server.Address, &ssh.ClientConfig{
		User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(s.server.AdminSigner)}, HostKeyCallback: ssh.FixedHostKey(s.server.HostKey),
	})
	must(s.t, err)
	defer func() { _ = client.Close() }()
	session, err := client.NewSession()
	must(s.t, err)
	out, err := session.CombinedOutput(command)
	if err != nil || len(out) != 0 {
		s.t.Errorf("%s: %v: %s", command, err, out)
	}
}
