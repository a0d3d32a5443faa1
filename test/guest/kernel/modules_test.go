package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func names(modules []Module) []string {
	var out []string
	for _, m := range modules {
		out = append(out, m.Name)
	}
	return out
}

// fakeReader answers from a table of dependencies.
func fakeReader(table map[string][]string) func(string) (Module, []string, error) {
	return func(name string) (Module, []string, error) {
		needs, ok := table[name]
		if !ok {
			return Module{}, nil, ErrNoModule
		}
		return Module{Name: name}, needs, nil
	}
}

func TestOrder(t *testing.T) {
	table := map[string][]string{
		"nvme-tcp": {"nvme-fabrics", "nvme_core"}, "nvme-fabrics": {"nvme-core"}, "nvmet-tcp": {"nvmet"}, "nvmet": {"configfs"},
		"configfs": nil, "xfs": {"libcrc32c"}, "btrfs": {"xor", "raid6_pq", "libcrc32c"}, "libcrc32c": nil, "xor": nil, "raid6-pq": nil,
		"ring-a": {"ring-b"}, "ring-b": {"ring-a"},
	}
	builtin := map[string]bool{"nvme-core": true, "ext4": true}
	for _, c := range []struct {
		name   string
		wanted []string
		want   []string
	}{
		{"dependency first", []string{"nvme-tcp"}, []string{"nvme-fabrics", "nvme-tcp"}},
		{"chain", []string{"nvmet-tcp"}, []string{"configfs", "nvmet", "nvmet-tcp"}},
		{"shared only once", []string{"xfs", "btrfs"}, []string{"libcrc32c", "xfs", "xor", "raid6-pq", "btrfs"}},
		{"built in is left out", []string{"ext4"}, nil},
		{"either spelling", []string{"nvme_tcp", "nvme-tcp"}, []string{"nvme-fabrics", "nvme-tcp"}},
		{"a ring ends", []string{"ring-a"}, []string{"ring-b", "ring-a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := order(c.wanted, builtin, fakeReader(table))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, names(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOrderNamesWhatIsMissingAndForWhom(t *testing.T) {
	_, err := order([]string{"a"}, nil, fakeReader(map[string][]string{"a": {"gone"}}))
	if !errors.Is(err, ErrNoModule) || !strings.Contains(err.Error(), "needed by a") {
		t.Errorf("error %v", err)
	}
}

func TestModuleName(t *testing.T) {
	for file, want := range map[string]string{
		"kernel/fs/xfs/xfs.ko.xz": "xfs", "drivers/md/dm_mod.ko": "dm-mod", "lib/raid6/raid6_pq.ko.zst": "raid6-pq",
	} {
		if got := moduleName(file); got != want {
			t.Errorf("%s: %s instead of %s", file, got, want)
		}
	}
}

func TestDependenciesOfARealModule(t *testing.T) {
	got, err := dependencies(moduleELF("license=GPL\x00depends=nvme-fabrics,nvme-core\x00name=nvme_tcp\x00"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"nvme-fabrics", "nvme-core"}, got); diff != "" {
		t.Error(diff)
	}
	got, err = dependencies(moduleELF("depends=\x00name=loop\x00"))
	if err != nil || got != nil {
		t.Errorf("no dependencies: got %q, %v", got, err)
	}
}

func TestWhatIsNoModuleIsRefused(t *testing.T) {
	if _, err := dependencies([]byte("#!/bin/sh\n")); err == nil {
		t.Error("a script was taken for a module")
	}
}

// moduleELF is the least object file with a .modinfo section: header, section names, contents, three section headers.
func moduleELF(info string) []byte {
	const strtab = "\x00.modinfo\x00.shstrtab\x00"
	const headerSize, sectionSize = 64, 64
	body := strtab + info
	offset := uint64(headerSize + len(body))
	var out bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&out, binary.LittleEndian, v) // into memory
		}
	}
	put([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9), uint16(1), uint16(62), uint32(1), uint64(0), uint64(0), offset,
		uint32(0), uint16(headerSize), uint16(0), uint16(0), uint16(sectionSize), uint16(3), uint16(2), []byte(body))
	section := func(name, kind uint32, at, size uint64) {
		put(name, kind, uint64(0), uint64(0), at, size, uint32(0), uint32(0), uint64(1), uint64(0))
	}
	section(0, 0, 0, 0)
	section(1, 1, headerSize+uint64(len(strtab)), uint64(len(info)))
	section(10, 3, headerSize, uint64(len(strtab)))
	return out.Bytes()
}

// kernelTree lays out an unpacked package.
func kernelTree(t *testing.T, root, lib, release string) {
	t.Helper()
	modules := filepath.Join(root, lib, "modules", release)
	for path, content := range map[string][]byte{
		filepath.Join(root, "boot", "vmlinuz-"+release):          []byte("image"),
		filepath.Join(modules, "modules.builtin"):                []byte("kernel/fs/ext4/ext4.ko\n"),
		filepath.Join(modules, "kernel/drivers/nvme/nvmet.ko"):   moduleELF("depends=configfs\x00"),
		filepath.Join(modules, "kernel/fs/configfs/configfs.ko"): moduleELF("depends=\x00"),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenFindsModulesInEitherLayout(t *testing.T) {
	for _, lib := range []string{"lib", "usr/lib"} {
		root := t.TempDir()
		kernelTree(t, root, lib, "6.12.1-cloud")
		kernel, err := open(root)
		if err != nil {
			t.Fatal(err)
		}
		modules, err := kernel.Modules(t.Context(), []string{"nvmet", "ext4"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"configfs", "nvmet"}, names(modules)); diff != "" || kernel.Release != "6.12.1-cloud" {
			t.Errorf("%s: release %s, %s", lib, kernel.Release, diff)
		}
	}
}

func TestHalfAKernelIsNone(t *testing.T) {
	root := t.TempDir()
	kernelTree(t, root, "lib", "6.12.1")
	if err := os.RemoveAll(filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(root); !errors.Is(err, ErrNoKernel) {
		t.Errorf("without modules: %v", err)
	}
	if _, err := open(t.TempDir()); !errors.Is(err, ErrNoKernel) {
		t.Errorf("empty: %v", err)
	}
}

func TestNewestCachedServesWithoutPackageLists(t *testing.T) {
	cache := t.TempDir()
	if _, err := newestCached(cache); !errors.Is(err, ErrNoKernel) {
		t.Errorf("empty cache: %v", err)
	}
	kernelTree(t, filepath.Join(cache, "linux-image-6.12.1_1"), "lib", "6.12.1")
	if err := os.MkdirAll(filepath.Join(cache, "linux-image-6.13.0_1"), 0o755); err != nil {
		t.Fatal(err)
	}
	kernel, err := newestCached(cache)
	if err != nil || kernel.Release != "6.12.1" {
		t.Errorf("got %+v, %v", kernel, err)
	}
}

func TestRecordFields(t *testing.T) {
	const record = "Package: linux-image-6.12-cloud-amd64\nVersion: 1:6.12.117-1~deb12u1\nDepends: linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1)\n"
	p := debPackage{name: "linux-image-x", version: field(record, "Version")}
	if got := p.dirName(); got != "linux-image-x_1%3a6.12.117-1~deb12u1" {
		t.Errorf("folder %s", got)
	}
	if got := kernelPackage(record); got != "linux-image-6.12.117+deb12-cloud-amd64" {
		t.Errorf("kernel package %s", got)
	}
	if got := kernelPackage("Depends: linux-headers-6.12\n"); got != "" {
		t.Errorf("kernel package %s", got)
	}
}
