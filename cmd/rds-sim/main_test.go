package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"sigs.k8s.io/yaml"

	"github.com/rds-csi/rds-csi/internal/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// driverFile is the configuration as a driver reads it.
type driverFile struct {
	ClusterID string `json:"clusterID"`
	RDS       []struct {
		Name           string `json:"name"`
		Default        bool   `json:"default"`
		Address        string `json:"address"`
		User           string `json:"user"`
		PrivateKeyFile string `json:"privateKeyFile"`
		KnownHostsFile string `json:"knownHostsFile"`
		NVMe           struct {
			Address string `json:"address"`
			Port    int    `json:"port"`
		} `json:"nvme"`
		Pool struct {
			Path string `json:"path"`
		} `json:"pool"`
	} `json:"rds"`
}

// program is a run of rds-sim.
type program struct {
	stop   func() error
	stdout string // what it printed before it was ready
	stderr *bytes.Buffer
}

// begin starts the program and returns when it has printed the configuration. Its arguments must let it do so.
func begin(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	p := &program{stderr: &bytes.Buffer{}}
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"--ssh-address", "127.0.0.1:0"}, args...), in, p.stderr)
		_ = in.CloseWithError(io.EOF)
		ended <- err
	}()
	stopped := false
	p.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() { _ = p.stop() })
	buffer := make([]byte, 4096)
	n, err := out.Read(buffer) // it is written in one piece
	if err != nil {
		t.Fatalf("no configuration: %v, %v", err, p.stop())
	}
	p.stdout = string(buffer[:n])
	return p
}

func parse(t *testing.T, text string) driverFile {
	t.Helper()
	var f driverFile
	if err := yaml.UnmarshalStrict([]byte(text), &f); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if len(f.RDS) != 1 {
		t.Fatalf("not one RDS in\n%s", text)
	}
	return f
}

// ask logs in with what the configuration says and nothing else.
func ask(t *testing.T, f driverFile, user, keyFile, command string) string {
	t.Helper()
	rds := f.RDS[0]
	key, err := readKey(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pin, err := knownhosts.New(rds.KnownHostsFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", rds.Address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: pin,
		HostKeyAlgorithms: []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoED25519},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Output(command)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestThePrintedConfigurationWorksAsItIs(t *testing.T) {
	data := t.TempDir()
	p := begin(t, "--data", data, "--nvme-address", "10.42.68.1", "--nvme-port", "4421", "--version", "7.23")
	f := parse(t, p.stdout)
	rds := f.RDS[0]
	if f.ClusterID == "" || !rds.Default || rds.User != "csi" || rds.NVMe.Address != "10.42.68.1" || rds.NVMe.Port != 4421 ||
		rds.Pool.Path != "/storage-pool/k8s" || !filepath.IsAbs(rds.PrivateKeyFile) || !filepath.IsAbs(rds.KnownHostsFile) {
		t.Errorf("the configuration is %+v", f)
	}
	saved, err := os.ReadFile(filepath.Join(data, "driver.yaml"))
	if diff := cmp.Diff(p.stdout, string(saved)); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if got := ask(t, f, "csi", rds.PrivateKeyFile, `:put [/system resource get version]`); got != "7.23 (stable)\r\n" {
		t.Errorf("as csi: %q", got)
	}
	if got := ask(t, f, "admin", filepath.Join(data, "keys", "admin"), `/system identity set name=kept`); got != "" {
		t.Errorf("as admin: %q", got)
	}
	if err := p.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if got := p.stderr.String(); !strings.Contains(got, "exports are ") {
		t.Errorf("it does not say whether exports are real: %s", got)
	}
	again := parse(t, begin(t, "--data", data).stdout) // same keys, same device
	if got := ask(t, again, "csi", rds.PrivateKeyFile, `:put [/system identity get name]`); got != "kept\r\n" {
		t.Errorf("after a restart: %q", got)
	}
}

func TestKeysThatWereGivenAreUsed(t *testing.T) {
	dir := t.TempDir()
	mine, err := findOrMakeKey(filepath.Join(dir, "mine"))
	if err != nil {
		t.Fatal(err)
	}
	host, err := findOrMakeKey(filepath.Join(dir, "host"))
	if err != nil {
		t.Fatal(err)
	}
	s := settings{Data: t.TempDir(), AuthorizedKeys: filepath.Join(dir, "mine.pub"), HostKey: filepath.Join(dir, "host")}
	k, err := prepareKeys(s)
	if err != nil {
		t.Fatal(err)
	}
	if k.csiFile != "" || len(k.csi) != 1 || !bytes.Equal(k.csi[0].Marshal(), mine.PublicKey().Marshal()) ||
		!bytes.Equal(k.host.PublicKey().Marshal(), host.PublicKey().Marshal()) {
		t.Errorf("%+v", k)
	}
	for name, text := range map[string]string{"empty": "", "broken": "ssh-ed25519 nonsense\n"} {
		s.AuthorizedKeys = filepath.Join(dir, name)
		if err := os.WriteFile(s.AuthorizedKeys, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := prepareKeys(s); err == nil {
			t.Errorf("an %s file of keys was taken", name)
		}
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sim.yaml")
	text := `
sshAddress: 127.0.0.1:1
data: /nowhere
version: "7.21"
nvmePort: 4430
quirks: {shrink: accept, slot-over-32: accept}
faults: ["full:1"]
pools: [{slot: p, filesystem: xfs, size: 2T}]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := settingsFrom([]string{"--config", file, "--data", "/data", "--version", "7.24", "--quirk", "shrink=refuse",
		"--fault", "silence"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if s.SSHAddress != "127.0.0.1:1" || s.Data != "/data" || s.Version != "7.24" || s.NVMePort != 4430 {
		t.Errorf("%+v", s)
	}
	if diff := cmp.Diff(map[string]string{"shrink": "refuse", "slot-over-32": "accept"}, s.Quirks); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"full:1", "silence"}, s.Faults); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]sim.Pool{{Slot: "p", Filesystem: "xfs", SizeBytes: 2 << 40}}, s.pools); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sim.yaml")
	if err := os.WriteFile(file, []byte("shhAddress: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	for want, args := range map[string][]string{
		"--data is required":         {},
		`unknown field "shhAddress"`: {"--data", data, "--config", file},
		"unexpected argument":        {"--data", data, "extra"},
		"want NAME=VALUE":            {"--data", data, "--quirk", "shrink"},
		"unknown quirk":              {"--data", data, "--quirk", "shrunk=yes", "--ssh-address", "127.0.0.1:0"},
		"unknown kind":               {"--data", data, "--fault", "drop", "--ssh-address", "127.0.0.1:0"},
		"want a RouterOS 7":          {"--data", data, "--version", "6.49", "--ssh-address", "127.0.0.1:0"},
		"not a TCP port":             {"--data", data, "--nvme-port", "70000"},
		"listen for SSH":             {"--data", data, "--ssh-address", "nonsense"},
	} {
		err := run(t.Context(), args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

func TestHelpListsQuirksAndFaults(t *testing.T) {
	var help bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, io.Discard, &help); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	for _, q := range sim.Quirks() {
		if !strings.Contains(help.String(), "  "+q.Name+" ") {
			t.Errorf("no word of the quirk %s", q.Name)
		}
	}
	for _, k := range sim.FaultKinds() {
		if !strings.Contains(help.String(), "  "+k[0]) {
			t.Errorf("no word of the fault %s", k[0])
		}
	}
	for _, name := range []string{"ssh-address", "data", "authorized-keys", "host-key", "nvme-address", "nvme-port", "config",
		"version", "quirk", "fault"} {
		if !strings.Contains(help.String(), "-"+name) {
			t.Errorf("no word of --%s", name)
		}
	}
}
