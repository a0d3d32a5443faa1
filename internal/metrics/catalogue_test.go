package metrics_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/rds-csi/rds-csi/internal/metrics"
	"github.com/rds-csi/rds-csi/test/catalogue"
)

// documented are the rows of docs/metrics.md.
func documented(t *testing.T) []catalogue.Metric {
	t.Helper()
	all, err := catalogue.Read("../../docs/metrics.md")
	must(t, err)
	return all
}

// registered are the names that reg would show, shown now or not.
func registered(reg *metrics.Registry) []string {
	descs := make(chan *prometheus.Desc)
	go func() {
		reg.Describe(descs)
		close(descs)
	}()
	var names []string
	for d := range descs {
		name := regexp.MustCompile(`fqName: "([^"]*)"`).FindStringSubmatch(d.String())[1]
		if ours(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func ours(name string) bool { return strings.HasPrefix(name, "rds_") }

// moved gives both registries after every series has moved.
func moved(t *testing.T) (onController, onNode *metrics.Registry) {
	t.Helper()
	c, n := controller(t), node(t)
	moveController(t, c)
	moveNode(t, n)
	return c.reg, n.reg
}

// docs/metrics.md is what users script against: name, type and labels are those that a scrape shows, nothing is missing, nothing is made up.
func TestDocumentationIsTheRegistry(t *testing.T) {
	rows := documented(t)
	onController, onNode := moved(t)
	for name, tt := range map[string]struct {
		reg  *metrics.Registry
		here func(catalogue.Metric) bool
	}{
		"controller": {onController, catalogue.Metric.OnController},
		"node":       {onNode, catalogue.Metric.OnNode},
	} {
		t.Run(name, func(t *testing.T) {
			held := registered(tt.reg)
			families, err := tt.reg.Gather()
			must(t, err)
			for _, row := range rows {
				switch has := slices.Contains(held, row.Name); {
				case has && !tt.here(row):
					t.Errorf("%s is here, docs/metrics.md says role %s", row.Name, row.Role)
				case !has && tt.here(row):
					t.Errorf("docs/metrics.md has %s, the registry does not", row.Name)
				case has:
					agree(t, row, families)
				}
			}
			for _, name := range held {
				if !slices.ContainsFunc(rows, func(m catalogue.Metric) bool { return m.Name == name }) {
					t.Errorf("%s is not in docs/metrics.md", name)
				}
			}
		})
	}
}

// agree compares a row with what is shown under its name.
func agree(t *testing.T, row catalogue.Metric, families []*dto.MetricFamily) {
	t.Helper()
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == row.Name })
	if i < 0 {
		t.Errorf("%s is registered and never shown", row.Name)
		return
	}
	if got := strings.ToLower(families[i].GetType().String()); got != row.Type {
		t.Errorf("%s is a %s, docs/metrics.md says %s", row.Name, got, row.Type)
	}
	for _, m := range families[i].GetMetric() {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetName())
		}
		if !slices.Equal(got, row.Labels) { // both are sorted
			t.Errorf("%s has labels %q, docs/metrics.md says %q", row.Name, got, row.Labels)
		}
	}
}

// A unit is part of the name, so that nobody multiplies by 8 or 1000 by accident.
func TestDocumentedUnitsAreInTheNames(t *testing.T) {
	suffixes := map[string]string{
		"seconds": "_seconds", "bytes": "_bytes", "bytes per second": "_bytes_per_second", "seconds since 1970": "_timestamp_seconds",
		"degrees Celsius": "_celsius", "revolutions per minute": "_rpm", "watts": "_watts", "operations per second": "_ops_per_second",
	}
	for _, row := range documented(t) {
		if want := suffixes[row.Unit]; !strings.HasSuffix(row.Name, want) {
			t.Errorf("%s: unit %s, but the name does not end in %s", row.Name, row.Unit, want)
		}
		if counts := strings.HasSuffix(row.Name, "_total"); counts != (row.Type == "counter") {
			t.Errorf("%s is a %s", row.Name, row.Type)
		}
	}
}
