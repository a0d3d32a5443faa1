package catalogue

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// scraped are the labels that Prometheus itself or the chart's monitors put on every series.
func scraped() []string {
	return []string{"instance", "job", "namespace", "pod", "container", "endpoint", "service", "node", "exported_node", "le"}
}

// Check holds a PromQL expression against the catalogue: every metric of ours exists, every label that is matched, grouped by or left
// out is one of the metric's, or of those in the expression, and every value that a matcher names is one that the label may have: a kind that
// was renamed would leave an alert that never fires. Whether the expression is PromQL at all, promtool says. It gives how many metrics it found.
func Check(all []Metric, expr string) (int, error) {
	expr = regexp.MustCompile(`\$__\w+`).ReplaceAllString(expr, "5m") // Grafana's
	plain, texts := unquoted(expr)
	var labels []string
	found := 0
	for _, use := range regexp.MustCompile(`\b(rds_\w+|ALERTS)(\{[^}]*\})?`).FindAllStringSubmatch(plain, -1) {
		m, err := find(all, use[1])
		if err != nil {
			return found, err
		}
		found++
		labels = append(labels, m.Labels...)
		if err := m.matched(use[2], texts); err != nil {
			return found, err
		}
	}
	for _, group := range regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`).FindAllStringSubmatch(plain, -1) {
		for l := range strings.SplitSeq(group[2], ",") {
			if l = strings.TrimSpace(l); l != "" && !slices.Contains(append(scraped(), labels...), l) {
				return found, fmt.Errorf("no metric of %q has a label %s", expr, l)
			}
		}
	}
	return found, nil
}

// unquoted takes the strings of an expression away, which may hold anything, and leaves their numbers.
func unquoted(expr string) (plain string, texts []string) {
	plain = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`).ReplaceAllStringFunc(expr, func(quoted string) string {
		texts = append(texts, quoted[1:len(quoted)-1])
		return fmt.Sprintf(`"%d"`, len(texts)-1)
	})
	return plain, texts
}

// matched looks at the matchers of one use of the metric.
func (m Metric) matched(matchers string, texts []string) error {
	for _, l := range regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"(\d+)"`).FindAllStringSubmatch(matchers, -1) {
		label, operator := l[1], l[2]
		if !slices.Contains(append(scraped(), m.Labels...), label) {
			return fmt.Errorf("%s has no label %s", m.Name, label)
		}
		i, err := strconv.Atoi(l[3])
		if err != nil {
			return err
		}
		if err := m.mayBe(label, texts[i], strings.HasSuffix(operator, "~")); err != nil {
			return err
		}
	}
	return nil
}

// mayBe tells which value, or which branch of a pattern, is none of the label's. The empty one asks whether the label is there.
func (m Metric) mayBe(label, text string, pattern bool) error {
	branches := []string{text}
	if pattern && !strings.Contains(text, "(") {
		branches = strings.Split(text, "|")
	}
	for _, branch := range branches {
		switch {
		case branch == "" || strings.HasPrefix(branch, "$"): // what Grafana's variables hold was asked of the metric itself
		case !pattern && !m.Has(label, branch):
			return fmt.Errorf("%s is never %q for %s, but %q", label, branch, m.Name, m.Values[label])
		case pattern:
			if err := m.someMatch(label, branch); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m Metric) someMatch(label, branch string) error {
	matches, err := regexp.Compile("^(?:" + branch + ")$")
	if err != nil {
		return err
	}
	listed := m.Values[label]
	if len(listed) > 0 && !slices.ContainsFunc(listed, func(v string) bool { return matches.MatchString(strings.ReplaceAll(v, "NAME", "rds1")) }) {
		return fmt.Errorf("no %s of %s matches %q, it is one of %q", label, m.Name, branch, listed)
	}
	return nil
}

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
