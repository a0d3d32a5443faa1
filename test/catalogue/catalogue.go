// Package catalogue reads docs/metrics.md, the one list of the driver's metrics, so that tests can hold the programs, the alerts and the
// dashboard against it.
package catalogue

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Role is whose metric it is.
type Role string

// The roles of the table. A leader's metric is a controller's that a standby leaves out.
const (
	Leader     Role = "leader"
	Controller Role = "controller"
	Node       Role = "node"
	Both       Role = "both"
)

// Metric is one row of the table.
type Metric struct {
	Name, Type, Unit string
	Labels           []string            // sorted
	Values           map[string][]string // of the labels whose values are listed; NAME in one stands for any name
	Role             Role
	Authority        string
}

// OnController tells whether a controller's registry holds the metric.
func (m Metric) OnController() bool { return m.Role != Node }

// OnNode tells whether a node plugin's registry holds it.
func (m Metric) OnNode() bool { return m.Role == Node || m.Role == Both }

const header = "| name | type | unit | labels | role | authority | what it says |"

// Read gives the rows of the table in the file.
func Read(path string) ([]Metric, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	_, table, found := strings.Cut(string(text), header+"\n")
	if !found {
		return nil, fmt.Errorf("%s has no table that begins with %q", path, header)
	}
	var all []Metric
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		if strings.HasPrefix(line, "|---") {
			continue
		}
		m, err := row(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w in %q", path, err, line)
		}
		all = append(all, m)
	}
	return all, unique(all)
}

func row(line string) (Metric, error) {
	cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
	if len(cells) != 7 {
		return Metric{}, fmt.Errorf("%d cells, want 7", len(cells))
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	m := Metric{
		Name: strings.Trim(cells[0], "`"), Type: cells[1], Unit: cells[2],
		Role: Role(cells[4]), Authority: cells[5],
	}
	m.Labels, m.Values = labels(cells[3])
	switch {
	case !slices.Contains([]string{"gauge", "counter", "histogram"}, m.Type):
		return m, fmt.Errorf("type %q", m.Type)
	case !slices.Contains([]Role{Leader, Controller, Node, Both}, m.Role):
		return m, fmt.Errorf("role %q", m.Role)
	case m.Authority == "":
		return m, fmt.Errorf("no authority")
	}
	return m, nil
}

// labels reads the labels' cell: names in backticks, and after a colon the values that a label has.
func labels(cell string) (names []string, values map[string][]string) {
	values = map[string][]string{}
	for _, found := range regexp.MustCompile("`([^`]+)`(?::([^`]*))?").FindAllStringSubmatch(cell, -1) {
		names = append(names, found[1])
		for v := range strings.SplitSeq(found[2], ",") {
			if v = strings.TrimSpace(v); v != "" {
				values[found[1]] = append(values[found[1]], v)
			}
		}
	}
	slices.Sort(names)
	return names, values
}

// Has tells whether a label may have a value. What no values are listed of may have any.
func (m Metric) Has(label, value string) bool {
	listed := m.Values[label]
	return len(listed) == 0 || slices.ContainsFunc(listed, func(v string) bool { return wildcard(v).MatchString(value) })
}

// wildcard is a listed value, in which NAME stands for any name.
func wildcard(listed string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(listed), "NAME", "[^/]+") + "$")
}

func unique(all []Metric) error {
	seen := map[string]bool{}
	for _, m := range all {
		if seen[m.Name] {
			return fmt.Errorf("%s is listed twice", m.Name)
		}
		seen[m.Name] = true
	}
	return nil
}
