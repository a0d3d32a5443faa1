package appliance

import (
	"fmt"
	"strings"
)

// Path is a place on the RDS. There is one type and one comparison, since /disk prints paths with a leading slash and
// /file without one, and a comparison of the two forms as text once cost somebody 114 live volumes [S].
type Path struct{ rel string }

const maxPath = 200

// ParsePath reads an absolute or relative path; what is not plainly a path is refused.
func ParsePath(s string) (Path, error) {
	rel := strings.TrimPrefix(s, "/")
	if len(rel) > maxPath {
		return Path{}, fmt.Errorf("path %.40q...: %w: longer than %d bytes", s, ErrInvalid, maxPath)
	}
	for part := range strings.SplitSeq(rel, "/") {
		if !validComponent(part) {
			return Path{}, fmt.Errorf("path %q: %w: %q is not a name of letters, digits, dots, underscores and hyphens", s, ErrInvalid, part)
		}
	}
	return Path{rel: rel}, nil
}

// validComponent admits neither "." nor "..": a name begins with a letter, a digit or an underscore.
func validComponent(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	return s != "" && strings.ContainsAny(s[:1], letters) && strings.Trim(s, letters+".-") == ""
}

// IsZero says whether no path was given.
func (p Path) IsZero() bool { return p.rel == "" }

// Disk is the path as /disk prints it: with a leading slash [R].
func (p Path) Disk() string {
	if p.IsZero() {
		return ""
	}
	return "/" + p.rel
}

// File is the path as /file prints it: without a leading slash [R].
func (p Path) File() string { return p.rel }

// String is the form that people write.
func (p Path) String() string { return p.Disk() }

// Join is the file or directory called name in p.
func (p Path) Join(name string) (Path, error) { return ParsePath(p.rel + "/" + name) }

// Base is the last component.
func (p Path) Base() string { return p.rel[strings.LastIndexByte(p.rel, '/')+1:] }

// stem is the last component up to its first dot.
func (p Path) stem() string {
	stem, _, _ := strings.Cut(p.Base(), ".")
	return stem
}

// Dir is the directory that p lies in; zero for a mount point.
func (p Path) Dir() Path { return Path{rel: p.rel[:max(0, strings.LastIndexByte(p.rel, '/'))]} }

// MountPoint is the first component: where the pool's file system is mounted.
func (p Path) MountPoint() string {
	first, _, _ := strings.Cut(p.rel, "/")
	return first
}

// directories are those to make before a file can lie in p: all below the mount point, the outermost first.
func (p Path) directories() []Path {
	var dirs []Path
	for i := range p.rel {
		if p.rel[i] == '/' && i > len(p.MountPoint()) {
			dirs = append(dirs, Path{rel: p.rel[:i]})
		}
	}
	if p.rel != p.MountPoint() {
		dirs = append(dirs, p)
	}
	return dirs
}
