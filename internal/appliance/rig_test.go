package appliance_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/appliance/appliancetest"
	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const gib = 1 << 30

// rig is an RDS as the driver has it, over real SSH, and the simulated device at the other end.
type rig struct {
	*appliance.RDS
	server *simtest.Server
	device *device
}

// start boots a device with some switches set, and connects.
func start(t *testing.T, quirks map[string]string) rig {
	t.Helper()
	return startVersion(t, "", quirks)
}

func startVersion(t *testing.T, version string, quirks map[string]string) rig {
	t.Helper()
	return boot(t, version, "btrfs", quirks)
}

// startOn is a device whose pool has another file system.
func startOn(t *testing.T, filesystem string, quirks map[string]string) rig {
	t.Helper()
	return boot(t, "", filesystem, quirks)
}

func boot(t *testing.T, version, filesystem string, quirks map[string]string) rig {
	t.Helper()
	set := map[string]string{"reboot-time": "10ms"}
	maps.Copy(set, quirks)
	key := newKey(t)
	users := []sim.User{
		sim.CSIUser(key.PublicKey()), sim.AdminUser(key.PublicKey()),
		{Name: "modest", Policies: []string{"ssh", "read", "write"}, Keys: []ssh.PublicKey{key.PublicKey()}},
		{Name: "reader", Policies: []string{"ssh", "read"}, Keys: []ssh.PublicKey{key.PublicKey()}},
	}
	server := simtest.Start(t, sim.Options{Version: version, Quirks: set, Users: users, Pools: []sim.Pool{
		{Slot: "storage-pool", Filesystem: filesystem, SizeBytes: appliancetest.PoolBytes},
		{Slot: "raid10", Filesystem: "xfs", SizeBytes: appliancetest.PoolBytes},
		{Slot: "raid1", Filesystem: "btrfs", SizeBytes: appliancetest.PoolBytes},
	}})
	r := rig{server: server, device: &device{server: server, key: key, quirks: set}}
	r.RDS = r.as(t, "csi")
	return r
}

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// as connects to the device as somebody.
func (r rig) as(t *testing.T, user string) *appliance.RDS {
	t.Helper()
	return over(t, r.client(t, user))
}

func over(t *testing.T, runner appliance.Runner) *appliance.RDS {
	t.Helper()
	rds, err := appliance.NewRDS(appliancetest.Settings(t), runner)
	if err != nil {
		t.Fatal(err)
	}
	return rds
}

func (r rig) client(t *testing.T, user string) *routeros.Client {
	t.Helper()
	host, err := routeros.Fingerprint(r.server.HostKeyFingerprint)
	if err != nil {
		t.Fatal(err)
	}
	client, err := routeros.New(routeros.Config{
		Name: "rds1", Address: r.server.Address, User: user, Signers: []ssh.Signer{r.device.key}, HostKey: host,
		CommandTimeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	client.Start(t.Context())
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func (r rig) inject(t *testing.T, spec string) {
	t.Helper()
	if err := r.server.Device.Inject(spec); err != nil {
		t.Fatal(err)
	}
}

// commands counts the scripts that something costs.
func (r rig) commands(do func()) int {
	before := len(r.server.Device.Commands())
	do()
	return len(r.server.Device.Commands()) - before
}

// device is the back door to the simulator: its console for disks, its directory for files.
type device struct {
	server *simtest.Server
	key    ssh.Signer // of every user
	quirks map[string]string
}

// PutDisk implements appliancetest.Device. The switches are put where everything can be made, since somebody once made it.
func (d *device) PutDisk(t testing.TB, disk appliancetest.Disk) {
	t.Helper()
	for name, value := range map[string]string{"slot-over-32": "accept", "existing-file": "reuse"} {
		d.setQuirk(t, name, value)
		defer d.setQuirk(t, name, d.asStarted(name))
	}
	d.console(t, fmt.Sprintf(`/disk remove [find slot=%q]`, disk.Slot))
	host := d.host(disk.Path)
	if _, err := os.Stat(host); err != nil {
		d.write(t, disk.Path, nil)
	}
	if err := os.Truncate(host, disk.SizeBytes); err != nil {
		t.Fatal(err)
	}
	if disk.Mounted {
		d.format(t, host)
	}
	comment := ""
	if disk.Cluster != "" {
		comment = "rds-csi/1 cluster=" + disk.Cluster + " name=" + disk.Name
	}
	if disk.GrownTo > 0 {
		comment += fmt.Sprintf(" grown=%d", disk.GrownTo)
	}
	d.console(t, fmt.Sprintf(`/disk add type=file slot=%q file-path=%q file-size=%d comment=%q mount-filesystem=%s nvme-tcp-export=%s nvme-tcp-server-port=%d nvme-tcp-server-nqn=%q`,
		disk.Slot, disk.Path, disk.SizeBytes, comment, yesNo(disk.MountFilesystem), yesNo(disk.Exported), disk.Port, disk.NQN))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// format leaves what an RDS recognises as ext4.
func (d *device) format(t testing.TB, host string) {
	t.Helper()
	f, err := os.OpenFile(host, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt([]byte{0x53, 0xef}, 0x438); err != nil {
		t.Fatal(err)
	}
}

func (d *device) setQuirk(t testing.TB, name, value string) {
	t.Helper()
	if err := d.server.Device.SetQuirk(name, value); err != nil {
		t.Fatal(err)
	}
}

func (d *device) asStarted(name string) string {
	if value, set := d.quirks[name]; set {
		return value
	}
	all := sim.Quirks()
	return all[slices.IndexFunc(all, func(q sim.Quirk) bool { return q.Name == name })].Default
}

// console runs a command as the administrator, over a connection of its own and without the driver's client.
func (d *device) console(t testing.TB, command string) {
	t.Helper()
	if out := d.ask(t, command); out != "" {
		t.Fatalf("%s: %s", command, out)
	}
}

func (d *device) ask(t testing.TB, command string) string {
	t.Helper()
	conn, err := ssh.Dial("tcp", d.server.Address, &ssh.ClientConfig{
		User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(d.key)}, HostKeyCallback: ssh.FixedHostKey(d.server.HostKey),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	session, err := conn.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.CombinedOutput(command)
	if err != nil {
		t.Fatalf("%s: %s, %v", command, out, err)
	}
	return string(out)
}

func (d *device) host(path string) string {
	return filepath.Join(d.server.Dir, "files", filepath.FromSlash(path))
}

func (d *device) write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(d.host(path)), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.host(path), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// PutFile implements appliancetest.Device.
func (d *device) PutFile(t testing.TB, path string) { d.write(t, path, []byte("old data")) }

// Disks implements appliancetest.Device.
func (d *device) Disks(t testing.TB) map[string]appliancetest.Disk {
	t.Helper()
	disks := map[string]appliancetest.Disk{}
	for _, on := range d.server.Device.Disks() {
		if _, twice := disks[on.Slot]; twice {
			t.Errorf("two items in slot %s", on.Slot)
		}
		disk := appliancetest.Disk{
			Slot: on.Slot, Path: on.FilePath, SizeBytes: on.FileSize, NQN: on.NQN, Port: on.Port, Exported: on.Export,
			MountFilesystem: on.MountFilesystem, Mounted: on.Mounted,
		}
		// Read here without the code under test: this is what it has to write.
		for _, word := range strings.Fields(on.Comment) {
			key, value, _ := strings.Cut(word, "=")
			text, err := url.PathUnescape(value)
			if err != nil {
				t.Errorf("comment %q: %v", on.Comment, err)
			}
			switch key {
			case "cluster":
				disk.Cluster = text
			case "name":
				disk.Name = text
			case "claim":
				disk.Claim = text
			case "from":
				disk.From = text
			case "grown":
				if disk.GrownTo, err = strconv.ParseInt(text, 10, 64); err != nil {
					t.Errorf("comment %q: %v", on.Comment, err)
				}
			}
		}
		disks[on.Slot] = disk
	}
	return disks
}

// Files implements appliancetest.Device.
func (d *device) Files(t testing.TB) []string {
	t.Helper()
	var files []string
	root := filepath.Join(d.server.Dir, "files")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// HoldCopies implements appliancetest.Device.
func (d *device) HoldCopies(testing.TB) (release func()) { return d.server.Device.HoldCopies() }

// PutSensors implements appliancetest.Device.
func (d *device) PutSensors(_ testing.TB, sensors ...appliance.Sensor) {
	units := map[string]string{appliance.KindTemperature: "C", appliance.KindFan: "RPM", appliance.KindPower: "W"}
	list := make([]sim.Sensor, 0, len(sensors))
	for _, s := range sensors {
		value := s.Text
		if s.Kind != appliance.KindState {
			value = strconv.FormatFloat(s.Value, 'f', -1, 64)
		}
		list = append(list, sim.Sensor{Name: s.Name, Value: value, Type: units[s.Kind]})
	}
	d.server.Device.SetSensors(list...)
}

// PutTraffic implements appliancetest.Device.
func (d *device) PutTraffic(_ testing.TB, traffic ...appliance.Traffic) {
	bySlot := map[string]sim.Traffic{}
	for _, t := range traffic {
		bySlot[t.Slot] = sim.Traffic{
			ReadOpsPerSecond: int64(t.ReadOps), WriteOpsPerSecond: int64(t.WriteOps),
			ReadBitsPerSecond: int64(t.ReadBytes * 8), WriteBitsPerSecond: int64(t.WriteBytes * 8),
			InFlight: int64(t.InFlight), Active: t.Active, Wait: t.Wait,
		}
	}
	d.server.Device.SetTraffic(bySlot)
}

// scribble writes into an image without changing its size, as a node would; holds finds it again.
func (d *device) scribble(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(d.host(path), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func (d *device) holds(path, text string) bool {
	f, err := os.Open(d.host(path))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, len(text))
	n, err := f.Read(head)
	return err == nil && string(head[:n]) == text
}

// flatDisk is a volume of ours that is a plain file.
func flatDisk(slot string) appliancetest.Disk {
	return appliancetest.Disk{
		Slot: slot, Cluster: "homelab", Name: "pvc-1", Path: "/storage-pool/k8s/" + slot + ".img", SizeBytes: gib,
		NQN: appliance.NQNFor(slot), Port: 4420, Exported: true,
	}
}

func path(t testing.TB, s string) appliance.Path {
	t.Helper()
	p, err := appliance.ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
