package manifests

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/nvme"
	"github.com/rds-csi/rds-csi/internal/reconcile"
	"github.com/rds-csi/rds-csi/test/catalogue"
)

// The values of labels that docs/metrics.md lists, and to which alerts and dashboard are held, are the code's own lists. Of those that are not here, a word
// says who holds them.
func TestListedValuesAreTheCodes(t *testing.T) {
	all, err := catalogue.Read("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	const scraped = "cmd/rds-csi holds it against real scrapes"
	elsewhere := map[string]string{
		"rds_csi_repairs_total result":                        scraped,
		"rds_csi_state_last_success_timestamp_seconds source": scraped,
		"rds_hardware_psu_state state":                        "the words are RouterOS' own",
	}
	code := map[string][]string{
		"rds_csi_attachment_drift kind":         driftKinds(),
		"rds_csi_repairs_total kind":            {string(reconcile.ExportLost)},
		"rds_csi_migrations_total result":       {reconcile.Completed, reconcile.Cancelled, reconcile.Expired},
		"rds_csi_rds_commands_total status":     literals(t, "../../internal/routeros/frame.go", "statusOf"),
		"rds_csi_node_nvme_connections state":   connectionStates(t),
		"rds_csi_nvme_disconnects_total status": literals(t, "../../internal/nvme/nvme.go", "status"),
		// A connect is never refused because a device is in use.
		"rds_csi_nvme_connects_total status": without(literals(t, "../../internal/nvme/nvme.go", "status"), "in_use"),
		"rds_csi_operations_total code":      grpcCodes(),
	}
	for _, m := range all {
		for label, listed := range m.Values {
			of := m.Name + " " + label
			want, ours := code[of]
			if _, others := elsewhere[of]; !ours && !others {
				t.Errorf("nothing holds the values of %s", of)
			}
			if slices.Sort(listed); ours && !slices.Equal(listed, slices.Sorted(slices.Values(want))) {
				t.Errorf("docs/metrics.md says of %s %q, the code %q", of, listed, want)
			}
			delete(code, of)
			delete(elsewhere, of)
		}
	}
	for of := range code {
		t.Errorf("docs/metrics.md does not list the values of %s", of)
	}
	for of := range elsewhere {
		t.Errorf("docs/metrics.md does not list the values of %s", of)
	}
}

func driftKinds() []string {
	var all []string
	for _, k := range reconcile.Kinds() {
		all = append(all, string(k))
	}
	return all
}

func grpcCodes() []string {
	var all []string
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		all = append(all, c.String())
	}
	return all
}

// connectionStates asks the initiator, on a node that has none.
func connectionStates(t *testing.T) []string {
	t.Helper()
	sys := t.TempDir()
	if err := os.Mkdir(filepath.Join(sys, "class"), 0o750); err != nil {
		t.Fatal(err)
	}
	states, err := nvme.New(nvme.Config{SysRoot: sys}).Connections()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(maps.Keys(states))
}

// literals are the strings in a function that turns an outcome into a label: what it can say, it says literally.
func literals(t *testing.T, path, function string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, d := range file.Decls {
		f, is := d.(*ast.FuncDecl)
		if !is || f.Name.Name != function {
			continue
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if l, is := n.(*ast.BasicLit); is && l.Kind == token.STRING {
				text, err := strconv.Unquote(l.Value)
				if err != nil {
					t.Error(fmt.Errorf("%s: %w", path, err))
				}
				found[text] = true
			}
			return true
		})
	}
	if len(found) == 0 {
		t.Fatalf("%s says nothing in %s, or is not there", function, path)
	}
	return slices.Collect(maps.Keys(found))
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return s == one })
}
