package manifests

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/rds-csi/rds-csi/test/catalogue"
	"github.com/rds-csi/rds-csi/test/prometheus"
)

const (
	alertsFile = "../../charts/rds-csi/files/alerts.yaml"
	runbooks   = "../../docs/runbooks"
)

// rules is a rules file, and the spec of a PrometheusRule.
type rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func (r rules) all() []rule {
	var all []rule
	for _, g := range r.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

func readRules(t *testing.T) rules {
	t.Helper()
	var r rules
	readYAML(t, alertsFile, &r)
	if len(r.all()) < 16 {
		t.Fatalf("%d rules", len(r.all()))
	}
	return r
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// promtool fails the test with what promtool says.
func promtool(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	if _, err := prometheus.Promtool(t.Context(), bytes.NewReader(stdin), args...); err != nil {
		t.Error(err)
	}
}

func TestAlertsAreRules(t *testing.T) { promtool(t, nil, "check", "rules", alertsFile) }

func TestAlertsFireAndAreSilent(t *testing.T) {
	promtool(t, nil, "test", "rules", "testdata/alerts_test.yaml")
}

// ruleTests is what the tests read of promtool's.
type ruleTests struct {
	RuleFiles          []string `json:"rule_files"`
	EvaluationInterval string   `json:"evaluation_interval"`
	Tests              []struct {
		Name           string     `json:"name"`
		Interval       string     `json:"interval"`
		InputSeries    []any      `json:"input_series"`
		PromqlExprTest []exprTest `json:"promql_expr_test"`
		AlertRuleTest  []any      `json:"alert_rule_test"`
	} `json:"tests"`
}

type exprTest struct {
	Expr       string `json:"expr"`
	EvalTime   string `json:"eval_time"`
	ExpSamples []struct {
		Labels string  `json:"labels"`
		Value  float64 `json:"value"`
	} `json:"exp_samples"`
}

// says tells whether the expression sees the rule firing, or sees nothing of it. Two rules share a name and differ in their severity.
func (e exprTest) says(r rule) (fires, silent bool) {
	if !strings.Contains(unified(e.Expr), `"`+r.Alert+`"`) {
		return false, false
	}
	severity := fmt.Sprintf("severity=%q", r.Labels["severity"])
	for _, sample := range e.ExpSamples {
		text := e.Expr + sample.Labels
		fires = fires || strings.Contains(text, severity) && strings.Contains(text, `alertstate="firing"`)
	}
	other := strings.Contains(e.Expr, "severity=") && !strings.Contains(e.Expr, severity)
	return fires, len(e.ExpSamples) == 0 && !other
}

// unified makes alertname=~"A|B" look like "A" and "B".
func unified(expr string) string { return strings.ReplaceAll(expr, "|", `" "`) }

// An alert that was never seen firing may never fire, one that was never seen silent may always, and one that was not seen to end wakes people until it is
// switched off.
func TestEveryAlertIsTested(t *testing.T) {
	var file ruleTests
	readYAML(t, "testdata/alerts_test.yaml", &file)
	for _, r := range readRules(t).all() {
		before, firing, after := false, false, false
		for _, test := range file.Tests {
			quiet, fired := false, false
			for _, e := range test.PromqlExprTest { // in the order of their times
				fires, silent := e.says(r)
				before = before || fires && quiet
				after = after || silent && fired
				quiet, fired = quiet || silent, fired || fires
			}
			firing = firing || fired
		}
		if !before || !firing || !after {
			t.Errorf("alert %s, %s: seen firing %t, silent before %t, silent after %t", r.Alert, r.Labels["severity"], firing, before, after)
		}
	}
	for _, test := range file.Tests {
		if !slices.IsSortedFunc(test.PromqlExprTest, func(a, b exprTest) int { return int(at(t, a) - at(t, b)) }) {
			t.Errorf("%s: not in the order of their times", test.Name)
		}
	}
}

func at(t *testing.T, e exprTest) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(e.EvalTime)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Rules are one by name and severity: else one of two could go without a test.
func TestNoTwoRulesAreAlike(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range readRules(t).all() {
		key := r.Alert + " " + r.Labels["severity"]
		if seen[key] {
			t.Errorf("two rules are %s", key)
		}
		seen[key] = true
	}
}

// Somebody is woken by it: he must learn how bad it is, what it is about, and what to do.
func TestEveryAlertSaysWhatToDo(t *testing.T) {
	all, err := catalogue.Read("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range readRules(t).all() {
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s has severity %q", r.Alert, r.Labels["severity"])
		}
		if r.Annotations["summary"] == "" || len(r.Annotations["description"]) < 80 {
			t.Errorf("%s does not say what to do", r.Alert)
		}
		if want := "/docs/runbooks/" + r.Alert + ".md"; !strings.HasSuffix(r.Annotations["runbook_url"], want) {
			t.Errorf("%s has runbook %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
		}
		if n, err := catalogue.Check(all, r.Expr); err != nil || n == 0 {
			t.Errorf("%s asks for %d metrics: %v", r.Alert, n, err)
		}
	}
}

// Every alert has a page with the same four questions answered, every page an alert, and the index has them all.
func TestRunbooks(t *testing.T) {
	index, err := os.ReadFile(filepath.Join(runbooks, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(runbooks, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	alerts := map[string]bool{"README": true}
	for _, r := range readRules(t).all() {
		alerts[r.Alert] = true
		text, err := os.ReadFile(filepath.Join(runbooks, r.Alert+".md"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, heading := range []string{"# " + r.Alert, "## What it means", "## How to look", "## What is safe to do", "## What is not"} {
			if !strings.Contains("\n"+string(text), "\n"+heading+"\n") {
				t.Errorf("%s.md has no %q", r.Alert, heading)
			}
		}
		if !strings.Contains(string(index), "("+r.Alert+".md)") {
			t.Errorf("the index does not name %s", r.Alert)
		}
	}
	for _, page := range pages {
		if name := strings.TrimSuffix(filepath.Base(page), ".md"); !alerts[name] {
			t.Errorf("%s belongs to no alert", page)
		}
	}
}

// The PrometheusRule is the file, and what the user took out or placed elsewhere.
func TestPrometheusRuleIsTheFile(t *testing.T) {
	want := readRules(t).all()
	got := only[*prometheusRule](t, load(t)).Spec.all()
	if !slices.EqualFunc(got, want, sameRule) {
		t.Errorf("rendered %v\nfile     %v", got, want)
	}
	text, err := yaml.Marshal(only[*prometheusRule](t, load(t)).Spec)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "rules", path)

	got = only[*prometheusRule](t, load(t, "--set", "metrics.prometheusRule.disabled={PoolFull},metrics.prometheusRule.runbooks=https://wiki/x/")).Spec.all()
	if len(got) != len(want)-1 {
		t.Errorf("%d rules of %d, one is disabled", len(got), len(want))
	}
	for _, r := range got {
		if r.Alert == "PoolFull" || r.Annotations["runbook_url"] != "https://wiki/x/"+r.Alert+".md" {
			t.Errorf("%s with runbook %s", r.Alert, r.Annotations["runbook_url"])
		}
	}
}

func sameRule(a, b rule) bool {
	return a.Alert == b.Alert && a.Expr == b.Expr && a.For == b.For && maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}
