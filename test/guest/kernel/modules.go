package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoModule is a module that the kernel has neither built in nor beside it.
var ErrNoModule = errors.New("the kernel has no such module")

// Module is one module file, decompressed.
type Module struct {
	Name string // with hyphens, as in the file's name
	ELF  []byte
}

// library knows the modules of one kernel. Packages carry no modules.dep (depmod makes it at installation), so
// dependencies are read from the modules themselves.
type library struct {
	builtin map[string]bool
	files   map[string]string // name -> path, possibly compressed
}

// canonical is one spelling of a module's name: the kernel takes - and _ for the same.
func canonical(name string) string { return strings.ReplaceAll(name, "_", "-") }

// moduleName is the name of a module from its file: "…/nvme-tcp.ko.xz" is nvme-tcp.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return canonical(name)
}

func openLibrary(root string) (*library, error) {
	lib := &library{builtin: map[string]bool{}, files: map[string]string{}}
	list, err := os.ReadFile(filepath.Join(root, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		lib.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return lib, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && strings.Contains(entry.Name(), ".ko") {
			lib.files[moduleName(path)] = path
		}
		return err
	})
}

// resolve gives the wanted modules and all they need in loading order, without those that are built in.
func (l *library) resolve(ctx context.Context, wanted []string) ([]Module, error) {
	return order(wanted, l.builtin, func(name string) (Module, []string, error) {
		path, ok := l.files[name]
		if !ok {
			return Module{}, nil, fmt.Errorf("%s: %w", name, ErrNoModule)
		}
		content, err := decompress(ctx, path)
		if err != nil {
			return Module{}, nil, err
		}
		needs, err := dependencies(content)
		if err != nil {
			return Module{}, nil, fmt.Errorf("%s: %w", path, err)
		}
		return Module{Name: name, ELF: content}, needs, nil
	})
}

// order is resolve without files: a depth-first walk in which a module follows what it needs.
func order(wanted []string, builtin map[string]bool, read func(string) (Module, []string, error)) ([]Module, error) {
	var modules []Module
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = canonical(name)
		if seen[name] || builtin[name] {
			return nil
		}
		seen[name] = true
		module, needs, err := read(name)
		if err != nil {
			return err
		}
		for _, need := range needs {
			if err := visit(need); err != nil {
				return fmt.Errorf("needed by %s: %w", name, err)
			}
		}
		modules = append(modules, module)
		return nil
	}
	for _, name := range wanted {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return modules, nil
}

// dependencies reads the "depends=" line of a module's .modinfo section. Soft dependencies are left out on purpose:
// those of file systems name crypto algorithms, which the generic kernels have built in.
func dependencies(module []byte) ([]string, error) {
	object, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := object.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no .modinfo section: not a kernel module")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	return parseModinfo(string(info)), nil
}

func parseModinfo(info string) []string {
	for field := range strings.SplitSeq(info, "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ",")
		}
	}
	return nil
}

// decompress uses the host's tools: the standard library reads neither xz nor zstd, and both come with the base system.
func decompress(ctx context.Context, path string) ([]byte, error) {
	var tool string
	switch filepath.Ext(path) {
	case ".xz":
		tool = "xz"
	case ".zst":
		tool = "zstd"
	case ".gz":
		tool = "gzip"
	default:
		return os.ReadFile(path)
	}
	out, err := exec.CommandContext(ctx, tool, "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("%s -dc %s: %w", tool, path, err)
	}
	return out, nil
}
