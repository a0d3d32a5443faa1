package appliance

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func mustPath(t testing.TB, s string) Path {
	t.Helper()
	p, err := ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParsePath(t *testing.T) {
	for _, good := range []string{"/storage-pool/k8s", "storage-pool/k8s", "raid10", "/a/b_c/d.e-f/1.img"} {
		p, err := ParsePath(good)
		bare := strings.TrimPrefix(good, "/")
		if err != nil || p.Disk() != "/"+bare || p.File() != bare || p.String() != "/"+bare || p.IsZero() {
			t.Errorf("ParsePath(%q) = %q %q, %v", good, p.Disk(), p.File(), err)
		}
	}
	for _, bad := range []string{
		"", "/", "//a", "a//b", "a/", "a/..", "../a", "a/./b", "a b", "a;b", "a\"b", "a$b", "a\nb", "a/.hidden", "a/-b", "é", "a\\b",
		"/pool/x; /user add name=evil", strings.Repeat("a", 201),
	} {
		if p, err := ParsePath(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParsePath(%q) = %v, %v, want ErrInvalid (B26)", bad, p, err)
		}
	}
}

func TestPathForms(t *testing.T) {
	p := mustPath(t, "/pool/a/b/x.img")
	if p != mustPath(t, "pool/a/b/x.img") {
		t.Error("a leading slash makes another path")
	}
	if p.Base() != "x.img" || p.Dir() != mustPath(t, "pool/a/b") || p.MountPoint() != "pool" {
		t.Errorf("%q %q %q", p.Base(), p.Dir(), p.MountPoint())
	}
	if root := mustPath(t, "pool"); !root.Dir().IsZero() || root.Base() != "pool" || root.MountPoint() != "pool" || len(root.directories()) != 0 {
		t.Errorf("%v: %v %v", root, root.Dir(), root.directories())
	}
	want := []Path{mustPath(t, "pool/a"), mustPath(t, "pool/a/b")}
	if got := p.Dir().directories(); !slices.Equal(got, want) {
		t.Errorf("directories = %v, want %v", got, want)
	}
	if (Path{}).Disk() != "" {
		t.Error("the zero path is the root")
	}
}

// FuzzParsePath: whatever is accepted is the same path in both of the forms that RouterOS uses.
func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"/storage-pool/k8s", "a/../b", "//", "a b", "x.img", "/a/b/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if mustPath(t, p.Disk()) != p || mustPath(t, p.File()) != p || "/"+strings.TrimPrefix(s, "/") != p.Disk() {
			t.Fatalf("%q became %q and %q", s, p.Disk(), p.File())
		}
		if strings.ContainsAny(s, "\"\\$?{}[];= \t\r\n") || strings.Contains(s, "..") && slices.Contains(strings.Split(s, "/"), "..") {
			t.Fatalf("%q was accepted", s)
		}
	})
}
