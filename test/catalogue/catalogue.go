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
	Labels           []string // sorted
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
		Labels: quoted(cells[3]), Role: Role(cells[4]), Authority: cells[5],
	}
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

// quoted are the words in backticks: of the labels' cell these are the names, what follows a colon are values.
func quoted(cell string) []string {
	names := regexp.MustCompile("`[^`]+`").FindAllString(cell, -1)
	for i := range names {
		names[i] = strings.Trim(names[i], "`")
	}
	slices.Sort(names)
	return names
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
