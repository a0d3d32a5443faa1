package manifests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/rds-csi/rds-csi/test/catalogue"
)

const dashboardFile = "../../charts/rds-csi/dashboards/rds-csi.json"

// dashboard is what the tests need of Grafana's model.
type dashboard struct {
	Title, UID  string
	Panels      []panel
	Annotations struct{ List []struct{ Expr string } }
	Templating  struct {
		List []struct{ Name string }
	}
}

type panel struct {
	ID          int
	Type, Title string
	Datasource  struct{ UID string }
	GridPos     struct{ H, W, X, Y int }
	Targets     []struct{ RefID, Expr, LegendFormat string }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// queries are all expressions, with Grafana's variables filled in.
func (d dashboard) queries() []string {
	var all []string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		all = append(all, a.Expr)
	}
	for i := range all {
		all[i] = strings.NewReplacer("$__rate_interval", "5m", "$rds", ".*").Replace(all[i])
	}
	return all
}

// A renamed metric leaves an empty panel, which looks like a quiet system.
func TestDashboardQueriesAreOfTheCatalogue(t *testing.T) {
	all, err := catalogue.Read("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := ""
	for _, query := range readDashboard(t).queries() {
		if n, err := catalogue.Check(all, query); err != nil || n == 0 {
			t.Errorf("%q: %d metrics, %v", query, n, err)
		}
		shown += query + "\n"
	}
	for _, m := range all {
		if !strings.Contains(shown, m.Name) {
			t.Errorf("no panel shows %s", m.Name)
		}
	}
}

// Who looks at the dashboard when the alert has come must see what the alert saw.
func TestDashboardShowsWhatTheNodesAlertCompares(t *testing.T) {
	plain := func(expr string) string { return strings.Join(strings.Fields(expr), " ") }
	for _, r := range readRules(t).all() {
		if r.Alert != "NodeConnectionsDisagree" {
			continue
		}
		for _, query := range readDashboard(t).queries() {
			if plain(query)+" != 0" == plain(r.Expr) {
				return
			}
		}
	}
	t.Error("no panel shows the expression of NodeConnectionsDisagree")
}

// promtool takes them as recording rules, and so parses each.
func TestDashboardQueriesArePromQL(t *testing.T) {
	type record struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	type group struct {
		Name  string   `json:"name"`
		Rules []record `json:"rules"`
	}
	g := group{Name: "dashboard"}
	for i, query := range readDashboard(t).queries() {
		g.Rules = append(g.Rules, record{Record: fmt.Sprintf("query:%d", i), Expr: query})
	}
	text, err := yaml.Marshal(map[string][]group{"groups": {g}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "rules", path)
}

func TestDashboardIsWhole(t *testing.T) {
	d := readDashboard(t)
	seen := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if p.Title == "" || seen[p.ID] {
			t.Errorf("panel %d %q", p.ID, p.Title)
		}
		seen[p.ID] = true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Datasource.UID != "${datasource}") {
			t.Errorf("panel %q asks nothing, or a fixed data source", p.Title)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q is outside", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" {
					t.Fatalf("panel %q lies on %q", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
	}
	if len(d.Panels) < 30 || d.UID == "" {
		t.Errorf("%d panels, uid %q", len(d.Panels), d.UID)
	}
}

// The ConfigMap holds the file as it is: helm's own braces and Grafana's are not confused.
func TestDashboardReachesGrafana(t *testing.T) {
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	m := named[*corev1.ConfigMap](t, load(t), "rds-csi-dashboard")
	if m.Data["rds-csi.json"] != string(text) || m.Labels["grafana_dashboard"] != "1" {
		t.Errorf("labels %v, %d bytes of %d", m.Labels, len(m.Data["rds-csi.json"]), len(text))
	}
	for _, m := range every[*corev1.ConfigMap](render(t, minimal()...)) {
		if m.Name == "rds-csi-dashboard" {
			t.Error("the dashboard is on by default")
		}
	}
}
