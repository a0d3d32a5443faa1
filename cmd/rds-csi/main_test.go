package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

// klog's flusher of its own buffers never ends; nothing is in them, since it is bridged.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// buffer may be written by the process and read by the test at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCommandLine(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	good := write(t, "config.yaml", "clusterID: homelab\n")
	keyless := write(t, "keyless.yaml", rdsConfig("clusterID: homelab", "127.0.0.1:1", "/nowhere/key", "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	for name, c := range map[string]struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		"nothing":            {nil, exitUsage, "", "usage:"},
		"unknown":            {[]string{"doctor"}, exitUsage, "", `"doctor" is not a command`},
		"version":            {[]string{"version"}, exitOK, "rds-csi " + version, ""},
		"help":               {[]string{"--help"}, exitOK, "usage:", ""},
		"flags of a role":    {[]string{"node", "-h"}, exitOK, "", "-node-id"},
		"no config":          {[]string{"controller", "--endpoint", "unix:///tmp/x"}, exitUsage, "", "--config is required"},
		"no endpoint":        {[]string{"controller", "--config", good}, exitUsage, "", "--endpoint is required"},
		"no node id":         {[]string{"node", "--config", good, "--endpoint", "unix:///tmp/x"}, exitUsage, "", "--node-id is required"},
		"a flag of another":  {[]string{"node", "--kubeconfig", "x"}, exitUsage, "", "kubeconfig"},
		"more than flags":    {[]string{"controller", "x"}, exitUsage, "", `unexpected argument "x"`},
		"log level":          {[]string{"controller", "--config", good, "--endpoint", "unix:///tmp/x", "--log-level", "5"}, exitUsage, "", "neither info nor debug"},
		"log format":         {[]string{"controller", "--config", good, "--endpoint", "unix:///tmp/x", "--log-format", "xml"}, exitUsage, "", "neither text nor json"},
		"no file":            {[]string{"controller", "--config", "/nowhere", "--endpoint", "unix:///tmp/x"}, exitUsage, "", "/nowhere"},
		"a faulty file":      {[]string{"controller", "--config", good, "--endpoint", "unix:///tmp/x"}, exitUsage, "", "needs at least one appliance"},
		"no key":             {[]string{"controller", "--config", keyless, "--endpoint", "unix:///tmp/x"}, exitUsage, "", "/nowhere/key"},
		"no such kubeconfig": {[]string{"controller", "--config", standaloneConfig(t, "clusterID: x"), "--endpoint", "unix:///tmp/x", "--kubeconfig", "/nowhere"}, exitUsage, "", "kubeconfig /nowhere"},
		"nobody to ask":      {[]string{"controller", "--config", standaloneConfig(t, ""), "--endpoint", "unix:///tmp/x"}, exitUsage, "", "set clusterID, or give --kubeconfig"},
		"a bad endpoint":     {[]string{"node", "--config", good, "--endpoint", "/tmp/x", "--node-id", "a"}, exitFault, "", "is not unix:///path"},
		"a bad address":      {[]string{"node", "--config", good, "--endpoint", "unix://" + filepath.Join(t.TempDir(), "s"), "--node-id", "a", "--metrics-address", "x"}, exitFault, "", "metrics address"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr buffer
			if code := run(t.Context(), c.args, &stdout, &stderr); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			if last := lines[len(lines)-1]; c.code != exitOK && !strings.HasPrefix(last, "rds-csi: ") {
				t.Errorf("the last line is %q", last)
			}
		})
	}
}

// rdsConfig is a configuration with one RDS.
func rdsConfig(head, address, key, pin string) string {
	return head + `
rds:
  - name: rds1
    address: ` + address + `
    user: csi
    privateKeyFile: ` + key + `
    hostKeyFingerprint: ` + pin + `
    nvme: { address: 127.0.0.1 }
    pool: { path: /storage-pool/k8s }
    ssh: { dialTimeout: 3s, keepAlive: 3s }
`
}

// standaloneConfig is a good configuration for an RDS that nobody started.
func standaloneConfig(t *testing.T, head string) string {
	server := simtest.Start(t, sim.Options{})
	server.Stop()
	return write(t, "config.yaml", rdsConfig(head, server.Address, server.ClientKeyFile, server.HostKeyFingerprint))
}

// process is a running rds-csi.
type process struct {
	csi.IdentityClient
	csi.ControllerClient
	csi.NodeClient
	t    *testing.T
	web  string
	log  *buffer
	stop context.CancelFunc
	code chan int
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, log: &buffer{}, code: make(chan int, 1)}
	endpoint := "unix://" + filepath.Join(t.TempDir(), "csi.sock")
	args = append(args, "--endpoint", endpoint, "--metrics-address", "127.0.0.1:0", "--log-format", "json")
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() { p.code <- run(ctx, args, io.Discard, p.log) }()
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		if code := <-p.code; code != exitOK {
			t.Errorf("ended with %d: %s", code, p.log.String())
		}
		http.DefaultClient.CloseIdleConnections()
	})
	p.IdentityClient, p.ControllerClient, p.NodeClient = csi.NewIdentityClient(conn), csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	p.until("it serves", func() bool { p.web = p.servedOn(); return p.web != "" })
	return p
}

// servedOn reads the port from the log: the kernel chose it.
func (p *process) servedOn() string {
	for _, line := range strings.Split(p.log.String(), "\n") {
		var entry struct{ Msg, Metrics string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "serving" {
			return "http://" + entry.Metrics
		}
	}
	return ""
}

func (p *process) until(what string, done func() bool) {
	p.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("not within 20 s: %s: %s", what, p.log.String())
		}
	}
}

func (p *process) get(path string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.web+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	reply, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return reply.StatusCode, string(body)
}

// ready asks both ways and fails when they differ.
func (p *process) ready() (bool, string) {
	p.t.Helper()
	code, text := p.get("/readyz")
	reply, err := p.Probe(p.t.Context(), &csi.ProbeRequest{})
	if err != nil {
		p.t.Fatal(err)
	}
	again, _ := p.get("/readyz")
	if code == again && reply.GetReady().GetValue() != (code == http.StatusOK) {
		p.t.Errorf("Probe says %v, /readyz %d: %s", reply.GetReady().GetValue(), code, text)
	}
	return code == http.StatusOK, text
}

const gauge = "rds_csi_nvme_connections_active"

func (p *process) create(name string) error {
	_, err := p.CreateVolume(p.t.Context(), &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: 64 << 20},
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		}},
	})
	return err
}

// B21: the controller serves before the RDS answers, says so, and is ready by itself once it does.
func TestControllerServesBeforeTheRDSAnswers_B21(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	server := simtest.Start(t, sim.Options{})
	gate := newGate(t, server.Address)
	config := write(t, "config.yaml", rdsConfig("clusterID: homelab", gate.address, server.ClientKeyFile, server.HostKeyFingerprint))
	p := start(t, "controller", "--config", config)
	if !strings.Contains(p.log.String(), "running without Kubernetes") {
		t.Errorf("it does not say that it runs without Kubernetes: %s", p.log.String())
	}
	if code, _ := p.get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz answers %d: an RDS that is away is no reason to restart", code)
	}
	if ok, text := p.ready(); ok || !strings.Contains(text, "rds1") {
		t.Errorf("ready: %v, %s", ok, text)
	}
	if err := p.create("pvc-1"); status.Code(err) != codes.Unavailable {
		t.Errorf("a volume without an RDS: %v", err)
	}
	gate.open.Store(true)
	p.until("ready", func() bool { ok, _ := p.ready(); return ok })
	if err := p.create("pvc-1"); err != nil {
		t.Error(err)
	}
	_, scraped := p.get("/metrics")
	for _, name := range []string{"rds_csi_rds_connection_state{address=\"" + gate.address + "\"} 1", "rds_csi_operations_total{", "rds_csi_rds_commands_total{"} {
		if !strings.Contains(scraped, name) {
			t.Errorf("%s is missing from the metrics", name)
		}
	}
	if strings.Contains(scraped, gauge) {
		t.Errorf("%s is offered without Kubernetes", gauge)
	}
}

// gate is an address that refuses until it is opened.
type gate struct {
	address string
	open    atomic.Bool
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{address: listener.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = listener.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { g.pass(ctx, near, target) })
		}
	})
	return g
}

func (g *gate) pass(ctx context.Context, near net.Conn, target string) {
	defer func() { _ = near.Close() }()
	if !g.open.Load() {
		return
	}
	far, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { _ = near.Close(); _ = far.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(far, near); _ = far.Close() })
	wg.Go(func() { _, _ = io.Copy(near, far); _ = near.Close() })
	wg.Wait()
}

// api is as much of an API server as the controller asks of: lists in which little changes, and what it was sent.
type api struct {
	kubeconfig string
	up         atomic.Bool
	lists      map[string]string      // by path
	changes    map[string]chan string // watch events by path; where there is no channel nothing changes
	sent       buffer                 // bodies of what was created or changed
}

// newAPI has one Node, and one volume of which its PersistentVolume and its VolumeAttachment tell that node-a has it.
func newAPI(t *testing.T, handle string) *api {
	t.Helper()
	a := &api{lists: map[string]string{
		"/apis/storage.k8s.io/v1/volumeattachments": `{"kind":"VolumeAttachmentList","apiVersion":"storage.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[
			{"metadata":{"name":"csi-1","uid":"u1","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"attacher":"rds.csi.srvlab.io","nodeName":"node-a","source":{"persistentVolumeName":"pv-1"}},"status":{"attached":true}}]}`,
		"/api/v1/persistentvolumes": `{"kind":"PersistentVolumeList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[
			{"metadata":{"name":"pv-1","uid":"p1","resourceVersion":"1"},"spec":{"claimRef":{"namespace":"default","name":"data","uid":"c1"},"csi":{"driver":"rds.csi.srvlab.io","volumeHandle":"` + handle + `"}}}]}`,
		"/api/v1/nodes": `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"node-a","uid":"n1","resourceVersion":"1"}}]}`,
		"/apis/storage.k8s.io/v1/csinodes": `{"kind":"CSINodeList","apiVersion":"storage.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[
			{"metadata":{"name":"node-a","resourceVersion":"1"},"spec":{"drivers":[{"name":"rds.csi.srvlab.io","nodeID":"node-a","topologyKeys":null,"allocatable":{"count":100}}]}}]}`,
		"/api/v1/namespaces/kube-system": `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"6f1c2a9e-0000-4000-8000-000000000001"}}`,
	}}
	server := httptest.NewServer(a)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	a.kubeconfig = write(t, "kubeconfig", `{"apiVersion":"v1","kind":"Config","clusters":[{"name":"c","cluster":{"server":"`+server.URL+`"}}],
		"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{}}],"current-context":"c"}`)
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	body, known := a.lists[r.URL.Path]
	switch {
	case !a.up.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Method != http.MethodGet:
		_, _ = io.Copy(&a.sent, r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"kind":"Event","apiVersion":"v1","metadata":{"name":"e","namespace":"default"}}`)
	case !known:
		w.WriteHeader(http.StatusNotFound)
	case r.URL.Query().Get("sendInitialEvents") != "":
		w.WriteHeader(http.StatusUnprocessableEntity) // an API server without streaming lists
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r)
	default:
		_, _ = io.WriteString(w, body)
	}
}

func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	for {
		w.(http.Flusher).Flush()
		select {
		case event := <-a.changes[r.URL.Path]:
			_, _ = io.WriteString(w, event+"\n")
		case <-r.Context().Done():
			return
		}
	}
}

// The API server is down when the controller starts: it serves, and neither makes nor attaches a volume on a guess.
func TestControllerServesBeforeTheAPIServerAnswers(t *testing.T) {
	server := simtest.Start(t, sim.Options{})
	config := write(t, "config.yaml", rdsConfig("", server.Address, server.ClientKeyFile, server.HostKeyFingerprint))
	kubernetes := newAPI(t, "pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11")
	p := start(t, "controller", "--config", config, "--kubeconfig", kubernetes.kubeconfig)
	p.until("the RDS is connected", func() bool {
		_, scraped := p.get("/metrics")
		return strings.Contains(scraped, `rds_csi_rds_connection_state{address="`+server.Address+`"} 1`)
	})
	if ok, text := p.ready(); ok || !strings.Contains(text, "identity") || !strings.Contains(text, "attachments are not known") {
		t.Errorf("ready: %v, %s", ok, text)
	}
	if err := p.create("pvc-1"); status.Code(err) != codes.Unavailable {
		t.Errorf("a volume of an unknown cluster: %v", err)
	}
	if _, scraped := p.get("/metrics"); strings.Contains(scraped, gauge+" ") {
		t.Error("unknown is shown as a number")
	}
	kubernetes.up.Store(true)
	p.until("ready", func() bool { ok, _ := p.ready(); return ok })
	if _, scraped := p.get("/metrics"); !strings.Contains(scraped, gauge+" 1") {
		t.Error("the one attached volume is not counted")
	}
	if err := p.create("pvc-1"); err != nil {
		t.Error(err)
	}
	disks := server.Device.Disks()
	if len(disks) != 1 || !strings.Contains(disks[0].Comment, "cluster=6f1c2a9e-0000-4000-8000-000000000001 ") {
		t.Errorf("the volume does not carry the UID of kube-system: %+v", disks)
	}
	_, err := p.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "rds1/pvc-0c9a5ee5-6a3c-4a7a-9a53-1d1f5b5f0a11"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "node-a") {
		t.Errorf("a volume whose attachment Kubernetes knows: %v", err)
	}
}

// The node role needs neither an RDS nor its key; what it lacks it says.
func TestNodeNeedsNoRDS(t *testing.T) {
	p := start(t, "node", "--config", write(t, "config.yaml", "clusterID: homelab\n"), "--node-id", "node-a")
	info, err := p.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || info.GetNodeId() != "node-a" {
		t.Errorf("%v, %v", info, err)
	}
	if code, _ := p.get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz answers %d", code)
	}
	_, err = os.Stat(fabrics)
	if ok, text := p.ready(); ok != (nodeReady(t.Context()) == nil) || err != nil && !strings.Contains(text, "load the kernel module nvme-tcp") {
		t.Errorf("ready: %v, %s", ok, text)
	}
	_, scraped := p.get("/metrics")
	if strings.Contains(scraped, gauge) {
		t.Errorf("%s is offered by a node", gauge)
	}
	_, err = p.CreateVolume(t.Context(), &csi.CreateVolumeRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("the controller service on a node: %v", err)
	}
}

// A program missing from an image shows before the first claim needs it (reference lesson D25).
func TestNodeSaysWhichProgramIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := nodeReady(t.Context())
	for _, program := range []string{"mkfs.ext4", "mkfs.xfs", "blkid"} {
		if err == nil || !strings.Contains(err.Error(), program) {
			t.Errorf("%s is not named by %v", program, err)
		}
	}
}
