package catalogue_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/test/catalogue"
)

func TestCheck(t *testing.T) {
	all := []catalogue.Metric{
		{Name: "rds_csi_a_total", Type: "counter", Labels: []string{"kind"}},
		{Name: "rds_csi_b_seconds", Type: "histogram", Labels: []string{"method"}},
		{Name: "rds_csi_d", Type: "gauge", Labels: []string{"rds", "source"}, Values: map[string][]string{"source": {"nodes", "no|des", "rds/NAME/pool"}}},
	}
	for expr, wrong := range map[string]string{
		`sum by (kind) (rate(rds_csi_a_total{kind=~"x|y", pod!=""}[5m]))`:                            "",
		`histogram_quantile(0.9, sum by (le, method) (rate(rds_csi_b_seconds_bucket[$__interval])))`: "",
		`rds_csi_c_total`: "no series rds_csi_c_total",
		`rds_csi_b_seconds > 1 # a histogram has no series of its own name`: "no series rds_csi_b_seconds",
		`rds_csi_a_total_count`:                                  "no series rds_csi_a_total_count",
		`rds_csi_a_total{method="x"}`:                            "no label method",
		`sum by (method) (rds_csi_a_total)`:                      "has a label method",
		`sum without(code) (rds_csi_a_total{kind="code=\"1\""})`: "has a label code",

		`rds_csi_d{source="nodes"} + rds_csi_d{source!="rds/a-1/pool"} + rds_csi_d{source="",rds="what=ever}"}`: "",
		`rds_csi_d{source=~"rds/.*/pool|nodes", source!~"no.*"} + rds_csi_d{source=~"(nodes|other)"}`:           "",
		`rds_csi_d{rds=~"$rds",source=~"$source"}[$__rate_interval]`:                                            "",
		`rds_csi_d{rds="x",source="node"}`:                                                                      `source is never "node" for rds_csi_d`,
		`rds_csi_d{source!="Nodes"}`:                                                                            `source is never "Nodes"`,
		`rds_csi_d{source="rds/a/b/pool"}`:                                                                      `source is never "rds/a/b/pool"`,
		`rds_csi_d{source=~"nodes|pool"}`:                                                                       `no source of rds_csi_d matches "pool"`,
		`rds_csi_d{source!~"pool|nodes"}`:                                                                       `no source of rds_csi_d matches "pool"`,
		`rds_csi_d{source=~"(node|pool)"}`:                                                                      `no source of rds_csi_d matches "(node|pool)"`,
		`rds_csi_d{source=~"["}`:                                                                                "missing closing",
		`x{source="node"} + rds_csi_d{source = "node"}`:                                                         "source is never",
		`label_replace(rds_csi_d{source="x"},"a","b","c")`:                                                      "source is never",
	} {
		_, err := catalogue.Check(all, expr)
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%s: %v, want %q", expr, err, wrong)
		}
	}
}

func TestReadRefusesWhatItDoesNotUnderstand(t *testing.T) {
	const head = "| name | type | unit | labels | role | authority | what it says |\n|---|---|---|---|---|---|---|\n"
	for name, text := range map[string]string{
		"no table":    "# Metrics\n",
		"a cell less": head + "| `a` | gauge | | | node | sysfs |\n",
		"a type":      head + "| `a` | summary | | | node | sysfs | x |\n",
		"a role":      head + "| `a` | gauge | | | nodes | sysfs | x |\n",
		"nobody":      head + "| `a` | gauge | | | node | | x |\n",
		"twice":       head + "| `a` | gauge | | | node | sysfs | x |\n| `a` | gauge | | | node | sysfs | x |\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metrics.md")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if all, err := catalogue.Read(path); err == nil {
				t.Errorf("read %v", all)
			}
		})
	}
}
