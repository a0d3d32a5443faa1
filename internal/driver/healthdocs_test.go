package driver_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The page on health has a row for each condition that is told, with its status, and none for another one.
func TestHealthIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/health.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for row := range strings.Lines(string(page)) {
		cells := strings.Split(row, "|")
		if len(cells) < 6 || !strings.Contains(cells[1], "`") {
			continue
		}
		for status := range strings.SplitSeq(cells[2], ",") {
			documented[strings.TrimSpace(status)+" "+strings.Trim(cells[1], " `")] = true
		}
	}
	told := slices.Concat(conditionsIn(t, "health.go"), conditionsIn(t, "nodehealth.go"))
	if len(told) < 20 {
		t.Fatalf("found no more than %v", told)
	}
	for _, c := range told {
		if !documented[c] {
			t.Errorf("%s is not in docs/health.md", c)
		}
	}
	for c := range documented {
		if !slices.Contains(told, c) {
			t.Errorf("docs/health.md has %s, which nobody tells", c)
		}
	}
}

// conditionsIn reads status and reason of all that a file tells: the arguments of ill and storageHealth.
func conditionsIn(t *testing.T, file string) (all []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	statuses := map[string]string{"degraded": "DEGRADED", "inaccessible": "INACCESSIBLE", "dataLoss": "DATA_LOSS"}
	ast.Inspect(parsed, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 2 {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "ill" && name.Name != "storageHealth" {
			return true
		}
		status := ""
		switch s := call.Args[0].(type) {
		case *ast.Ident:
			status = statuses[s.Name]
		case *ast.SelectorExpr:
			_, status, _ = strings.Cut(s.Sel.Name, "_")
		}
		reason, ok := call.Args[1].(*ast.BasicLit)
		if !ok || status == "" {
			t.Fatalf("%s tells something whose name is not written there", file)
		}
		text, err := strconv.Unquote(reason.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, status+" "+text)
		return true
	})
	return all
}
