package driver

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// A sentinel that somebody adds to a package of the domain must get a row here before it can reach a caller as Internal.
func TestEverySentinelHasACode(t *testing.T) {
	mapped := sentinelsOfTable(t)
	var found []string
	for _, pkg := range []string{"appliance", "attach", "nvme", "filesystem"} {
		found = append(found, exportedErrors(t, pkg)...)
	}
	if len(found) < 30 {
		t.Fatalf("only %d sentinels found: the search does not work any more", len(found))
	}
	for _, name := range found {
		if !mapped[name] {
			t.Errorf("%s has no row in the table of codes", name)
		}
		delete(mapped, name)
	}
	for name := range mapped {
		t.Errorf("%s is in the table of codes but not exported by its package", name)
	}
}

// exportedErrors lists what a package exports as errors: variables Err..., and types with a method Error.
func exportedErrors(t *testing.T, pkg string) (names []string) {
	for _, file := range parseDir(t, filepath.Join("..", pkg)) {
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.GenDecl:
				names = append(names, errorVars(pkg, d)...)
			case *ast.FuncDecl:
				if d.Recv != nil && d.Name.Name == "Error" {
					names = append(names, pkg+"."+receiver(d))
				}
			}
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return !ast.IsExported(n[len(pkg)+1:]) })
}

func errorVars(pkg string, d *ast.GenDecl) (names []string) {
	for _, spec := range d.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if !ok || d.Tok != token.VAR {
			continue
		}
		for _, id := range v.Names {
			if strings.HasPrefix(id.Name, "Err") {
				names = append(names, pkg+"."+id.Name)
			}
		}
	}
	return names
}

func receiver(d *ast.FuncDecl) string {
	expr := d.Recv.List[0].Type
	if star, ok := expr.(*ast.StarExpr); ok {
		expr = star.X
	}
	return expr.(*ast.Ident).Name
}

// sentinelsOfTable reads the names in the first column of the table, and the types that code looks for.
func sentinelsOfTable(t *testing.T) map[string]bool {
	names := map[string]bool{}
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if ok && slices.Contains([]string{"appliance", "attach", "nvme", "filesystem"}, pkg.Name) {
			names[pkg.Name+"."+sel.Sel.Name] = true
		}
		return true
	})
	return names
}

func parseDir(t *testing.T, dir string) []*ast.File {
	var files []*ast.File
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v, %v", dir, err, fs.ErrNotExist)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func TestCodes(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("rds rds1: volume pvc-x: %w: what to do", err) }
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"nothing":        {nil, codes.OK},
		"unforeseen":     {errors.New("x"), codes.Internal},
		"own":            {wrap(invalid("x")), codes.InvalidArgument},
		"busy":           {wrap(errBusy), codes.Aborted},
		"deadline":       {wrap(context.DeadlineExceeded), codes.DeadlineExceeded},
		"cancelled":      {wrap(context.Canceled), codes.Canceled},
		"status":         {status.Error(codes.Unimplemented, "x"), codes.Unimplemented},
		"conflict":       {wrap(&attach.ConflictError{Volume: "v", Node: "a", Holder: "b"}), codes.FailedPrecondition},
		"expired":        {wrap(&attach.MigrationExpiredError{Volume: "v", Node: "a", Other: "b"}), codes.FailedPrecondition},
		"node full":      {wrap(&attach.FullError{Volume: "v", Node: "a", Has: 2, Limit: 2}), codes.ResourceExhausted},
		"ledger unknown": {wrap(attach.ErrUnknown), codes.Unavailable},
		// B14: the existing driver answers these with NotFound and Internal.
		"full_B14":        {wrap(appliance.ErrNoSpace), codes.ResourceExhausted},
		"unreachable_B14": {wrap(appliance.ErrUnavailable), codes.Unavailable},
		// A call that ran into its deadline while its command was under way: the provisioner must come back to it.
		"unknown after a deadline": {fmt.Errorf("%w: %w", appliance.ErrOutcomeUnknown, context.DeadlineExceeded), codes.Unavailable},
		"no path":                  {wrap(nvme.ErrNoPath), codes.Unavailable},
	} {
		if got := code(c.err); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Codes after which external-provisioner forgets a volume must not answer what may have had an effect.
func TestWhatMayHaveHappenedIsRetried(t *testing.T) {
	for _, err := range []error{appliance.ErrOutcomeUnknown, appliance.ErrUnavailable, appliance.ErrAnswer, context.DeadlineExceeded, context.Canceled, errBusy} {
		retried := []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled}
		if c := code(err); !slices.Contains(retried, c) {
			t.Errorf("%v answers %v, which is final", err, c)
		}
	}
}

func TestNoSentinelShadowsAnother(t *testing.T) {
	seen := map[error]int{}
	for i, m := range table() {
		if j, dup := seen[m.sentinel]; dup {
			t.Errorf("rows %d and %d are both for %v", j, i, m.sentinel)
		}
		seen[m.sentinel] = i
	}
	if len(slices.Collect(maps.Keys(seen))) == 0 {
		t.Error("the table is empty")
	}
}
