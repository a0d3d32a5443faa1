package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/sim"
	"github.com/rds-csi/rds-csi/internal/sim/simtest"
	"github.com/rds-csi/rds-csi/test/catalogue"
	"github.com/rds-csi/rds-csi/test/prometheus"
	"github.com/rds-csi/rds-csi/test/repo"
)

// movedElsewhere are the events that cannot be made happen here, with the folder and the function that shows the number of each move.
func movedElsewhere() map[string][2]string {
	return map[string][2]string{
		"rds_csi_repairs_total":                 {"cmd/rds-csi", "TestLostExportComesBack"},
		"rds_csi_node_nvme_read_errors_total":   {"internal/metrics", "TestUnreadableSysfsIsAbsentNotZero"},
		"rds_csi_nvme_connects_total":           {"test/demo", "stage"}, // of `make demo`, on a real kernel
		"rds_csi_nvme_connect_duration_seconds": {"test/demo", "stage"},
		"rds_csi_nvme_disconnects_total":        {"test/demo", "unstage"},
	}
}

// seen is what the scrapes of this test have shown.
type seen struct {
	t      *testing.T
	rows   map[string]catalogue.Metric
	shown  map[string]bool                       // families
	moved  map[string]bool                       // counters and histograms that were not 0
	values map[string]map[string]map[string]bool // metric, label, value
}

func newSeen(t *testing.T) *seen {
	t.Helper()
	all, err := catalogue.Read("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	s := &seen{t: t, rows: map[string]catalogue.Metric{}, shown: map[string]bool{}, moved: map[string]bool{}, values: map[string]map[string]map[string]bool{}}
	for _, m := range all {
		s.rows[m.Name], s.values[m.Name] = m, map[string]map[string]bool{}
	}
	return s
}

// scrape holds one scrape of a real process against the catalogue, and against Prometheus' own word.
func (s *seen) scrape(p *process, role string, here func(catalogue.Metric) bool) {
	s.t.Helper()
	_, page := p.get("/metrics")
	if _, err := prometheus.Promtool(s.t.Context(), strings.NewReader(page), "check", "metrics"); err != nil {
		s.t.Errorf("%s: %v", role, err)
	}
	types := 0
	for line := range strings.Lines(page) {
		if family, typ, is := typeLine(line); is {
			types++
			s.family(role, family, typ, here)
		} else if strings.HasPrefix(line, "rds_") {
			s.sample(role, strings.TrimSpace(line))
		}
	}
	if types == 0 {
		s.t.Errorf("the %s shows nothing of ours", role)
	}
}

// typeLine reads a TYPE line of a metric of ours.
func typeLine(line string) (family, typ string, is bool) {
	words := strings.Fields(line)
	if len(words) != 4 || words[0] != "#" || words[1] != "TYPE" || !strings.HasPrefix(words[2], "rds_") {
		return "", "", false
	}
	return words[2], words[3], true
}

func (s *seen) family(role, name, typ string, here func(catalogue.Metric) bool) {
	s.t.Helper()
	m, listed := s.rows[name]
	switch {
	case !listed:
		s.t.Errorf("the %s shows %s, which docs/metrics.md does not list", role, name)
	case m.Type != typ:
		s.t.Errorf("the %s shows %s as a %s, docs/metrics.md says %s", role, name, typ, m.Type)
	case !here(m):
		s.t.Errorf("the %s shows %s, docs/metrics.md says role %s", role, name, m.Role)
	}
	s.shown[name] = true
}

// sample holds one line's labels and their values.
func (s *seen) sample(role, line string) {
	s.t.Helper()
	parts := regexp.MustCompile(`^(\w+)(?:\{(.*)\})? (\S+)$`).FindStringSubmatch(line)
	if parts == nil {
		s.t.Fatalf("%s: %q is no sample", role, line)
	}
	m, listed := s.rows[parts[1]]
	if !listed || m.Type == "histogram" {
		m = s.rows[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(parts[1], "_bucket"), "_sum"), "_count")]
	}
	var labels []string
	for _, l := range regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`).FindAllStringSubmatch(parts[2], -1) {
		label, value := l[1], l[2]
		if label == "le" {
			continue
		}
		labels = append(labels, label)
		if s.values[m.Name][label] == nil {
			s.values[m.Name][label] = map[string]bool{}
		}
		s.values[m.Name][label][value] = true
		if !m.Has(label, value) {
			s.t.Errorf("the %s shows %s, docs/metrics.md says %s is one of %q", role, line, label, m.Values[label])
		}
	}
	if slices.Sort(labels); !slices.Equal(labels, m.Labels) {
		s.t.Errorf("the %s shows %s, docs/metrics.md says labels %q", role, line, m.Labels)
	}
	if v, err := strconv.ParseFloat(parts[3], 64); err != nil || v != 0 {
		s.moved[m.Name] = true
	}
}

// wholly are labels of which every value that is listed is there from the beginning, so that nobody waits for a value that does not come.
func wholly() [][2]string {
	return [][2]string{
		{"rds_csi_attachment_drift", "kind"}, {"rds_csi_repairs_total", "kind"}, {"rds_csi_repairs_total", "result"}, {"rds_csi_migrations_total", "result"},
		{"rds_csi_node_nvme_connections", "state"}, {"rds_csi_nvme_connects_total", "status"}, {"rds_csi_nvme_disconnects_total", "status"},
		{"rds_csi_state_last_success_timestamp_seconds", "source"},
	}
}

// all holds the catalogue against what was seen.
func (s *seen) all() {
	s.t.Helper()
	elsewhere := movedElsewhere()
	for name, m := range s.rows {
		where, excused := elsewhere[name]
		switch counts := m.Type != "gauge"; {
		case !s.shown[name]:
			s.t.Errorf("no process shows %s", name)
		case counts && !s.moved[name] && !excused:
			s.t.Errorf("%s stayed at 0", name)
		case excused && !counts:
			s.t.Errorf("%s is no counter", name)
		case excused:
			s.exists(where[0], where[1])
		}
	}
	for _, of := range wholly() {
		m, label := s.rows[of[0]], of[1]
		for _, listed := range m.Values[label] {
			if !s.values[m.Name][label][strings.ReplaceAll(listed, "NAME", "rds1")] {
				s.t.Errorf("%s was never shown with %s %q", m.Name, label, listed)
			}
		}
		if len(m.Values[label]) == 0 {
			s.t.Errorf("docs/metrics.md lists no values of %s for %s", label, m.Name)
		}
	}
}

// exists: a list of excuses must not outlive what it points to.
func (s *seen) exists(folder, function string) {
	s.t.Helper()
	root, err := repo.Root()
	if err != nil {
		s.t.Fatal(err)
	}
	found := false
	declared := regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + function + `\(`)
	err = filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		found = found || declared.Match(text)
		return err
	})
	if err != nil || !found {
		s.t.Errorf("%s has no %s: %v", folder, function, err)
	}
}

// What the programs show is what docs/metrics.md lists: as main starts them, over HTTP. A metric that somebody registers in main alone is held to the list
// too, and one that is registered and that nothing ever moves fails.
func TestScrapesAreTheCatalogue(t *testing.T) {
	s := newSeen(t)
	leaderShows(t, s)
	standbyShows(t, s)
	nodeShows(t, s)
	s.all()
}

const volumeAttachments = "/apis/storage.k8s.io/v1/volumeattachments"

// leaderShows is a controller with a volume that migrates.
func leaderShows(t *testing.T, s *seen) {
	server := simtest.Start(t, sim.Options{})
	kubernetes := newAPI(t, "rds1/"+appliance.SlotFor("homelab", "pvc-1"))
	const persistentVolumes = "/api/v1/persistentvolumes"
	kubernetes.lists[persistentVolumes] = strings.Replace(kubernetes.lists[persistentVolumes], `"spec":{`, `"spec":{"accessModes":["ReadWriteMany"],"volumeMode":"Block",`, 1)
	kubernetes.lists["/api/v1/nodes"] = strings.Replace(kubernetes.lists["/api/v1/nodes"], `"items":[`, `"items":[{"metadata":{"name":"node-b","uid":"n2","resourceVersion":"1"}},`, 1)
	attached := make(chan string)
	kubernetes.changes = map[string]chan string{volumeAttachments: attached}
	kubernetes.up.Store(true)
	config := rdsConfig("clusterID: homelab", server.Address, server.ClientKeyFile, server.HostKeyFingerprint) + everySecond
	p := start(t, "controller", "--config", write(t, "config.yaml", config), "--kubeconfig", kubernetes.kubeconfig)
	p.until("the volume is made", func() bool { return p.create("pvc-1") == nil })
	p.until("all is known, and well", func() bool {
		return p.shows(`rds_csi_attachment_drift{kind="volume_gone"}`, 0) && p.shows(`rds_csi_attachment_drift{kind="in_use_unattached"}`, 0) &&
			p.shows(`rds_csi_volumes_orphaned{rds="rds1"}`, 0) && p.shows(`rds_csi_migrations_active`, 0)
	})
	attached <- fmt.Sprintf(`{"type":"ADDED","object":%s}`, attachmentOf("csi-2", "u2", "node-b", 2))
	p.until("it migrates", func() bool {
		return p.shows(`rds_csi_migrations_active`, 1) && p.shows(`rds_csi_volume_attachments{node="node-b"}`, 1)
	})
	s.scrape(p, "leader", catalogue.Metric.OnController)
	attached <- fmt.Sprintf(`{"type":"DELETED","object":%s}`, attachmentOf("csi-1", "u1", "node-a", 3))
	p.until("the migration is over", func() bool { return p.shows(`rds_csi_migrations_total{result="completed"}`, 1) })
	s.scrape(p, "leader", catalogue.Metric.OnController)
}

// attachmentOf is a VolumeAttachment of newAPI's volume.
func attachmentOf(name, uid, node string, version int) string {
	return fmt.Sprintf(`{"kind":"VolumeAttachment","apiVersion":"storage.k8s.io/v1","metadata":{"name":%q,"uid":%q,"resourceVersion":"%d","creationTimestamp":%q},
		"spec":{"attacher":"rds.csi.srvlab.io","nodeName":%q,"source":{"persistentVolumeName":"pv-1"}},"status":{"attached":true}}`, name, uid, version, time.Now().UTC().Format(time.RFC3339), node)
}

// standbyShows is a controller beside one that leads.
func standbyShows(t *testing.T, s *seen) {
	server := simtest.Start(t, sim.Options{})
	p := startStandby(t, server)
	p.until("it has read the cluster", func() bool {
		_, scraped := p.get("/metrics")
		return strings.Contains(scraped, `rds_csi_state_last_success_timestamp_seconds{source="nodes"}`) && p.shows("rds_csi_leader", 0)
	})
	s.scrape(p, "standby", func(m catalogue.Metric) bool { return m.OnController() && m.Role != catalogue.Leader })
}

// nodeShows is a node plugin on a machine that may lack everything it needs.
func nodeShows(t *testing.T, s *seen) {
	p := start(t, "node", "--config", write(t, "config.yaml", "clusterID: homelab\n"), "--node-id", "node-a")
	if _, err := p.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{}); err != nil {
		t.Error(err)
	}
	s.scrape(p, "node", catalogue.Metric.OnNode)
}
