package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const whole = `
driverName: rds.csi.srvlab.io
clusterID: homelab
rds:
  - name: rds1
    default: true
    address: 10.42.241.3:22
    user: csi
    privateKeyFile: /etc/rds-csi/id_ed25519
    knownHostsFile: /etc/rds-csi/known_hosts
    nvme: { address: 10.42.68.1, port: 4421 }
    pool: { path: /storage-pool/k8s }
    ssh: { maxChannels: 8, serializeOpen: true, dialTimeout: 5s, commandTimeout: 1m, keepAlive: 3 }
  - name: rds2
    address: rds2.example
    user: csi
    passwordFile: /etc/rds-csi/password
    hostKeyFingerprint: SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
    nvme: { address: "fd00::1" }
    pool: { path: /storage-pool/k8s }
topology:
  - { rds: rds2, nodes: [ worker-1, "rack-b-*" ] }
node: { ctrlLossTimeout: 10m, reconnectDelay: 3s, keepAlive: 6, maxVolumes: 64 }
reconcile: { interval: 30s, grace: 90 }
metrics: { volumeSeries: 20 }
`

func seconds(n int) Duration { return Duration{Duration: time.Duration(n) * time.Second} }

func TestWholeFileIsRead(t *testing.T) {
	got, err := Parse([]byte(whole), Controller)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		DriverName: "rds.csi.srvlab.io",
		ClusterID:  "homelab",
		RDS: []RDS{{
			Name: "rds1", Default: true, Address: "10.42.241.3:22", User: "csi",
			PrivateKeyFile: "/etc/rds-csi/id_ed25519", KnownHostsFile: "/etc/rds-csi/known_hosts",
			NVMe: NVMe{Address: "10.42.68.1", Port: 4421}, Pool: Pool{Path: "/storage-pool/k8s"},
			SSH: SSH{MaxChannels: 8, SerializeOpen: true, DialTimeout: seconds(5), CommandTimeout: seconds(60), KeepAlive: seconds(3)},
		}, {
			Name: "rds2", Address: "rds2.example:22", User: "csi",
			PasswordFile: "/etc/rds-csi/password", HostKeyFingerprint: "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
			NVMe: NVMe{Address: "fd00::1", Port: 4420}, Pool: Pool{Path: "/storage-pool/k8s"},
		}},
		Topology:  []Reach{{RDS: "rds2", Nodes: []string{"worker-1", "rack-b-*"}}},
		Node:      NodeConfig{CtrlLossTimeout: seconds(600), ReconnectDelay: seconds(3), KeepAlive: seconds(6), MaxVolumes: 64},
		Reconcile: Reconcile{Interval: seconds(30), Grace: seconds(90)},
		Metrics:   Metrics{VolumeSeries: 20},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Duration{})); diff != "" {
		t.Error(diff)
	}
	if got.DefaultRDS() != "rds1" {
		t.Errorf("default RDS is %q", got.DefaultRDS())
	}
}

// minimal is what a controller cannot do without.
const minimal = `
rds:
  - name: rds1
    address: 10.0.0.1:22
    user: csi
    privateKeyFile: k
    knownHostsFile: h
    nvme: { address: 10.0.0.1 }
    pool: { path: /p }
`

func TestDefaults(t *testing.T) {
	got, err := Parse([]byte(minimal), Controller)
	if err != nil {
		t.Fatal(err)
	}
	if got.DriverName != "rds.csi.srvlab.io" || got.ClusterID != "" || got.RDS[0].NVMe.Port != 4420 {
		t.Errorf("unexpected defaults: %+v", got)
	}
	if !got.RDS[0].Default {
		t.Error("a single RDS is not the default one")
	}
	want := NodeConfig{CtrlLossTimeout: seconds(-1), ReconnectDelay: seconds(2), KeepAlive: seconds(5)}
	if diff := cmp.Diff(want, got.Node, cmpopts.IgnoreUnexported(Duration{})); diff != "" {
		t.Error(diff)
	}
	if got.Reconcile.Interval.Duration != time.Minute || got.Reconcile.Grace.Duration != 2*time.Minute || got.Metrics.VolumeSeries != 0 {
		t.Errorf("unexpected defaults: %+v, %+v", got.Reconcile, got.Metrics)
	}
}

func TestNeverGiveUpIsWrittenInSeveralWays(t *testing.T) {
	for _, text := range []string{"-1", `"-1"`, "-1s", "-5m"} {
		got, err := Parse([]byte("node: { ctrlLossTimeout: "+text+" }"), Node)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got.Node.CtrlLossTimeout.Duration >= 0 {
			t.Errorf("%s was read as %s", text, got.Node.CtrlLossTimeout)
		}
	}
}

// One faulty file, and every fault in one answer, each with its path.
func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	text := `
driverName: Not A Name
clusterID: "a b"
typo: 1
rds:
  - name: rds1
    default: true
    address: "10.0.0.1:ssh"
    user: csi
    privateKeyFile: k
    knownHostsFile: h
    hostKeyFingerprint: SHA256:x
    nvme: { addr: 10.0.0.1, port: 70000 }
    pool: { path: /p/../q }
    ssh: { maxChannels: 100, dialTimeout: soon }
  - name: rds1
    default: true
    user: 12
    Address: 10.0.0.1
    hostKeyFingerprint: md5:aa
topology:
  - { rds: rds9, nodes: [ a, "[" ] }
  - { rds: rds9, nodes: [] }
  - { node: a }
node:
  ctrlLossTimeout: 1500ms
  reconnectDelay: 0
  keepAlive: [1]
  maxVolumes: -1
reconcile: { interval: 0, grace: soon, every: 1m }
metrics: { volumeSeries: -1 }
`
	_, err := Parse([]byte(text), Controller)
	if err == nil {
		t.Fatal("no fault found")
	}
	lines := strings.Split(err.Error(), "\n")
	for _, path := range []string{
		"driverName:", "clusterID:", "typo: unknown key", "rds: exactly one",
		"rds[0].address:", "rds[0].hostKeyFingerprint: cannot stand beside", "rds[0].nvme.addr: unknown key",
		"rds[0].nvme.address:", "rds[0].nvme.port:", "rds[0].pool.path:", "rds[0].ssh.maxChannels:", "rds[0].ssh.dialTimeout:",
		"rds[1].name: \"rds1\" is the name of rds[0]", "rds[1].user: must be text", "rds[1].Address: unknown key",
		"rds[1].privateKeyFile: is required", "rds[1].hostKeyFingerprint: must look like", "rds[1].nvme.address:", "rds[1].pool.path:",
		"topology[0].rds: \"rds9\" is the name of no rds", "topology[0].nodes[1]:", "topology[1].rds: \"rds9\" stands in topology[0]",
		"topology[1].nodes: needs", "topology[2].node: unknown key", "topology[2].rds: is required",
		"node.ctrlLossTimeout:", "node.reconnectDelay:", "node.keepAlive:", "node.maxVolumes:",
		"reconcile.interval: 0s is outside", "reconcile.grace:", "reconcile.every: unknown key", "metrics.volumeSeries:",
	} {
		n := 0
		for _, line := range lines {
			if strings.HasPrefix(line, path) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d faults begin with %q", n, path)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestFaultsOfTheWholeDocument(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":          {"", "rds: needs at least one appliance"},
		"not yaml":       {"a: [", "not readable as YAML"},
		"given twice":    {"clusterID: a\nclusterID: b\n", "not readable as YAML"},
		"no default":     {strings.Replace(whole, "default: true", "default: false", 1), "exactly one appliance must have default: true, 0 have"},
		"list for rds":   {"rds: {}", "rds: must be a list"},
		"no host key":    {strings.Replace(minimal, "knownHostsFile: h", "", 1), "the host key is always pinned"},
		"a name to dial": {strings.Replace(minimal, "address: 10.0.0.1 }", "address: rds.example }", 1), "is not an IP address"},
		"scalar":         {"just text", "must be a section with keys"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse([]byte(c.text), Controller); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// The node plugin holds no key of an RDS: a file without that section, or with half of one, does not stop it. A key
// nobody knows still does, since it may be a mistyped one of the node's own.
func TestNodeNeedsNoRDS(t *testing.T) {
	for _, text := range []string{"", "clusterID: homelab", "rds: [{name: rds1}]", minimal} {
		if _, err := Parse([]byte(text), Node); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"nodes: {}", "node: { reconnectDelay: 1500ms }"} {
		if _, err := Parse([]byte(text), Node); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if _, err := Load(file, Node); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(file, []byte("nodes: {}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, Node); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("faulty file: %v", err)
	}
	if err := os.WriteFile(file, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, Controller); err != nil {
		t.Error(err)
	}
}
