package catalogue

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// scraped are the labels that Prometheus itself or the chart's monitors put on every series.
func scraped() []string {
	return []string{"instance", "job", "namespace", "pod", "container", "endpoint", "service", "node", "exported_node", "le"}
}

// Check holds a PromQL expression against the catalogue: every metric of ours exists, and every label that is matched, grouped by or left
// out is one of the metric's, or of those in the expression. Whether the expression is PromQL at all, promtool says. It gives how many
// metrics it found.
func Check(all []Metric, expr string) (int, error) {
	expr = regexp.MustCompile(`\$__\w+|\$\w+`).ReplaceAllString(expr, "5m") // Grafana's variables
	var labels []string
	found := 0
	for _, use := range regexp.MustCompile(`\b(rds_\w+|ALERTS)(\{[^}]*\})?`).FindAllStringSubmatch(unquoted(expr), -1) {
		m, err := find(all, use[1])
		if err != nil {
			return found, err
		}
		found++
		labels = append(labels, m.Labels...)
		for _, l := range regexp.MustCompile(`(\w+)\s*[=!]`).FindAllStringSubmatch(use[2], -1) {
			if !slices.Contains(append(scraped(), m.Labels...), l[1]) {
				return found, fmt.Errorf("%s has no label %s", m.Name, l[1])
			}
		}
	}
	for _, group := range regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`).FindAllStringSubmatch(unquoted(expr), -1) {
		for l := range strings.SplitSeq(group[2], ",") {
			if l = strings.TrimSpace(l); l != "" && !slices.Contains(append(scraped(), labels...), l) {
				return found, fmt.Errorf("no metric of %q has a label %s", expr, l)
			}
		}
	}
	return found, nil
}

// unquoted takes the values of matchers away: they may hold anything.
func unquoted(expr string) string { return regexp.MustCompile(`"[^"]*"`).ReplaceAllString(expr, `""`) }

// find knows the three series of a histogram, and Prometheus' own series of alerts.
func find(all []Metric, name string) (Metric, error) {
	if name == "ALERTS" {
		return Metric{Name: name, Labels: []string{"alertname", "alertstate", "severity"}}, nil
	}
	for _, m := range all {
		if name == m.Name && m.Type != "histogram" {
			return m, nil
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if m.Type == "histogram" && name == m.Name+suffix {
				return m, nil
			}
		}
	}
	return Metric{}, fmt.Errorf("docs/metrics.md has no series %s", name)
}
