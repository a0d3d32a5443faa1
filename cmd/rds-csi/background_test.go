package main

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
)

// administer runs a command on the device as its administrator would, without the driver.
func administer(t *testing.T, server *simtest.Server, command string) {
	t.Helper()
	conn, err := ssh.Dial("tcp", server.Address, &ssh.ClientConfig{
		User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(server.AdminSigner)}, HostKeyCallback: ssh.FixedHostKey(server.HostKey),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	session, err := conn.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := session.CombinedOutput(command); err != nil || len(out) != 0 {
		t.Fatalf("%s: %s, %v", command, out, err)
	}
}

// value is one sample of a scrape.
func (p *process) value(name string) (v float64, there bool) {
	p.t.Helper()
	_, scraped := p.get("/metrics")
	return sample(p.t, scraped, name)
}

func sample(t *testing.T, scraped, name string) (v float64, there bool) {
	t.Helper()
	for line := range strings.Lines(scraped) {
		if text, found := strings.CutPrefix(line, name+" "); found {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v, true
		}
	}
	return 0, false
}

func (p *process) shows(name string, want float64) bool {
	p.t.Helper()
	v, there := p.value(name)
	return there && v == want
}

// shownOf are the samples of an RDS in some families.
func (p *process) shownOf(rds string, families []string) (samples []string) {
	p.t.Helper()
	_, scraped := p.get("/metrics")
	for line := range strings.Lines(scraped) {
		name, labels, _ := strings.Cut(line, "{")
		if slices.Contains(families, name) && strings.Contains(labels, `rds="`+rds+`"`) {
			samples = append(samples, line)
		}
	}
	return samples
}

const everySecond = "\nreconcile: { interval: 1s, grace: 2s }\nmetrics: { volumeSeries: 1 }\n"

// Somebody, or a reboot, takes the export of an attached volume away: it comes back once, and the claim, the metric and the log tell of it.
func TestLostExportComesBack(t *testing.T) {
	server := simtest.Start(t, sim.Options{})
	slot := appliance.SlotFor("homelab", "pvc-1")
	kubernetes := newAPI(t, "rds1/"+slot)
	config := rdsConfig("clusterID: homelab", server.Address, server.ClientKeyFile, server.HostKeyFingerprint) + everySecond
	p := start(t, "controller", "--config", write(t, "config.yaml", config), "--kubeconfig", kubernetes.kubeconfig)
	p.until("the volume is made", func() bool { return p.create("pvc-1") == nil })
	if _, there := p.value(`rds_csi_attachment_drift{kind="export_lost"}`); there {
		t.Error("drift has a number before Kubernetes was read")
	}
	kubernetes.up.Store(true)
	const drift, repaired = `rds_csi_attachment_drift{kind="export_lost"}`, `rds_csi_repairs_total{kind="export_lost",result="ok"}`
	p.until("all is known, and well", func() bool { return p.shows(drift, 0) && p.shows(`rds_csi_volumes{rds="rds1"}`, 1) })
	if !p.shows(`rds_csi_volume_attachments{node="node-a"}`, 1) || !p.shows(repaired, 0) {
		t.Error("node-a has no volume, or it was repaired")
	}

	administer(t, server, `/disk set [find slot="`+slot+`"] nvme-tcp-export=no`)
	p.until("it counts as lost", func() bool {
		disk, _ := server.Device.Disk(slot)
		return disk.Export || p.shows(drift, 1)
	})
	p.until("it is exported again", func() bool { disk, _ := server.Device.Disk(slot); return disk.Export })
	p.until("that is seen", func() bool { return p.shows(drift, 0) && p.shows(repaired, 1) })
	p.until("the claim hears of both", func() bool {
		sent := kubernetes.sent.String()
		return strings.Contains(sent, "AttachmentDrift") && strings.Contains(sent, "export_lost: volume") && strings.Contains(sent, "ExportRepaired")
	})
	looks := len(server.Device.Commands())
	p.until("some more looks", func() bool { return len(server.Device.Commands()) > looks+12 })
	if !p.shows(repaired, 1) {
		t.Error("it was repaired more than once")
	}
	if !strings.Contains(p.log.String(), `"attachment drift"`) {
		t.Error("the log does not tell")
	}
}

// One look at an RDS is four commands, each once, whatever is shown of it; and everything the device measures is shown.
func TestOneLookIsFourCommands(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	server := simtest.Start(t, sim.Options{})
	config := rdsConfig("clusterID: homelab", server.Address, server.ClientKeyFile, server.HostKeyFingerprint) + everySecond
	p := start(t, "controller", "--config", write(t, "config.yaml", config))
	questions := []string{"disk_list", "pool_get", "health_get", "disk_traffic"}
	asked := func() []float64 {
		_, scraped := p.get("/metrics")
		var n []float64
		for _, q := range questions {
			v, _ := sample(t, scraped, fmt.Sprintf(`rds_csi_rds_commands_total{command=%q,status="ok"}`, q))
			n = append(n, v)
		}
		return n
	}
	p.until("a few looks", func() bool { return asked()[0] >= 4 })
	// A scrape may come between the first and the last question of a look.
	if n := asked(); slices.Max(n)-slices.Min(n) > 1 {
		t.Errorf("%q were asked %v times", questions, n)
	}
	var scraped string
	shown := []string{
		`rds_csi_volumes{rds="rds1"} 0`, `rds_csi_pool_size_bytes{pool="storage-pool",rds="rds1"}`, `rds_disk_read_ops_per_second{rds="rds1",slot="storage-pool"}`,
		`rds_hardware_temperature_celsius{rds="rds1"`, `rds_csi_state_last_success_timestamp_seconds{source="rds/rds1/traffic"}`,
	}
	p.until("all is shown in one scrape", func() bool {
		_, scraped = p.get("/metrics")
		return !slices.ContainsFunc(shown, func(name string) bool { return !strings.Contains(scraped, name) })
	})
	for _, name := range []string{"rds_csi_attachment_drift", "rds_csi_volumes_orphaned", "rds_csi_migrations_active", "rds_csi_leader"} {
		if strings.Contains(scraped, name) {
			t.Errorf("%s is shown without Kubernetes", name)
		}
	}
}

// B33: an RDS falls silent. What is known of it goes absent, what is known of the other does not, scrapes ask nobody and wait for nobody.
func TestSilentRDS_B33(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	well, silent := simtest.Start(t, sim.Options{}), simtest.Start(t, sim.Options{})
	config := strings.Replace(rdsConfig("clusterID: homelab", well.Address, well.ClientKeyFile, well.HostKeyFingerprint), "name: rds1", "name: rds1\n    default: true", 1) +
		strings.ReplaceAll(strings.TrimPrefix(rdsConfig("", silent.Address, silent.ClientKeyFile, silent.HostKeyFingerprint), "\nrds:"), "rds1", "rds2") + everySecond
	p := start(t, "controller", "--config", write(t, "config.yaml", config))
	const one, two = `rds_csi_volumes{rds="rds1"}`, `rds_csi_volumes{rds="rds2"}`
	p.until("both are known", func() bool { return p.shows(one, 0) && p.shows(two, 0) })
	if err := silent.Device.Inject("silence"); err != nil {
		t.Fatal(err)
	}
	families := []string{"rds_csi_volumes", "rds_csi_pool_free_bytes", "rds_disk_read_ops_per_second", "rds_hardware_temperature_celsius"}
	p.until("rds2 is absent", func() bool { return len(p.shownOf("rds2", families)) == 0 })
	// A look that takes long on a busy machine makes any RDS absent for a moment.
	p.until("all of rds1 is shown", func() bool { return len(p.shownOf("rds1", families)) >= len(families) })
	const last = `rds_csi_state_last_success_timestamp_seconds{source="rds/rds1/volumes"}`
	at, _ := p.value(last)
	p.until("rds1 is looked at as before", func() bool { now, _ := p.value(last); return now >= at+3 })
	p.until("what is known of rds1 is shown", func() bool { return p.shows(one, 0) })
	before := len(silent.Device.Commands())
	for range 100 {
		began := time.Now()
		if code, _ := p.get("/metrics"); code != http.StatusOK {
			t.Fatalf("a scrape answers %d", code)
		}
		// A command waits 30 seconds, a dial three.
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a scrape took %s", took)
		}
	}
	if n := len(silent.Device.Commands()) - before; n > 10 {
		t.Errorf("100 scrapes went with %d commands to the silent rds", n)
	}
	silent.Device.ClearFaults()
	p.until("rds2 is known again", func() bool { return p.shows(two, 0) })
}

// startStandby starts a controller while another replica holds the Lease.
func startStandby(t *testing.T, server *simtest.Server) *process {
	t.Helper()
	kubernetes := newAPI(t, "rds1/"+appliance.SlotFor("homelab", "pvc-1"))
	kubernetes.lists["/apis/coordination.k8s.io/v1/namespaces/storage/leases/rds.csi.srvlab.io-controller"] = fmt.Sprintf(
		`{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"rds.csi.srvlab.io-controller","namespace":"storage","resourceVersion":"1"},
		"spec":{"holderIdentity":"controller-b","leaseDurationSeconds":3600,"acquireTime":%q,"renewTime":%[1]q}}`, time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"))
	kubernetes.up.Store(true)
	config := rdsConfig("clusterID: homelab", server.Address, server.ClientKeyFile, server.HostKeyFingerprint) + everySecond
	return start(t, "controller", "--config", write(t, "config.yaml", config), "--kubeconfig", kubernetes.kubeconfig,
		"--leader-election", "--leader-election-namespace", "storage", "--leader-election-identity", "controller-a")
}

// While another replica holds the Lease this one is ready, decides nothing, and shows nothing of the cluster.
func TestStandby(t *testing.T) {
	p := startStandby(t, simtest.Start(t, sim.Options{}))
	p.until("ready as a standby", func() bool {
		code, text := p.get("/readyz")
		return code == http.StatusOK && strings.Contains(text, "ok: standby, controller-b leads")
	})
	if probe, err := p.Probe(t.Context(), &csi.ProbeRequest{}); err != nil || probe.GetReady().GetValue() {
		t.Errorf("the sidecars beside a standby are let in: %v, %v", probe, err)
	}
	if err := p.create("pvc-1"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "controller-b") {
		t.Errorf("a standby makes a volume: %v", err)
	}
	if list, err := p.ListVolumes(t.Context(), &csi.ListVolumesRequest{}); err != nil {
		t.Errorf("a standby serves no list: %v, %v", list, err)
	}
	_, scraped := p.get("/metrics")
	for _, name := range []string{gauge + " ", "rds_csi_volume_attachments{", "rds_csi_attachment_drift{", "rds_csi_migrations_total{", "rds_csi_volumes{"} {
		if strings.Contains(scraped, "\n"+name) {
			t.Errorf("a standby shows %s", name)
		}
	}
	if !p.shows("rds_csi_leader", 0) || !strings.Contains(scraped, `rds_csi_state_last_success_timestamp_seconds{source="nodes"}`) {
		t.Error("a standby does not say that it is one, or what it has heard")
	}
}

func TestElectionFlags(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	config := standaloneConfig(t, "clusterID: homelab")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"outside a pod":      {[]string{"--leader-election"}, "--leader-election-namespace is required"},
		"without Kubernetes": {[]string{"--leader-election", "--leader-election-namespace", "storage"}, "needs Kubernetes"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr buffer
			args := append([]string{"controller", "--config", config, "--endpoint", "unix:///tmp/x"}, c.args...)
			if code := run(t.Context(), args, &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("%d: %s", code, stderr.String())
			}
		})
	}
}
