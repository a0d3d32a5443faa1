// Package kernel finds a Linux kernel for the guest: a distribution's package, unpacked into a cache and never
// installed, so that neither root nor the host's own kernel is needed or touched.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// ErrNoKernel is a host whose package lists offer no kernel that would do, and whose cache has none.
var ErrNoKernel = errors.New("no kernel package for the guest")

// metaPackages are tried in this order. Only a kernel that has the NVMe target (nvmet-tcp) as well as the initiator
// will do, which leaves out Debian 12's own 6.1 and Ubuntu's linux-image-kvm. Ubuntu's is untried; it keeps what is
// wanted here in linux-modules-extra.
func metaPackages() []string {
	return []string{
		"linux-image-6.12-cloud-amd64", // Debian 12, from its security suite
		"linux-image-cloud-amd64",      // Debian 13 and newer
		"linux-image-virtual",          // Ubuntu
	}
}

// Kernel is an unpacked kernel.
type Kernel struct {
	Release string // as uname -r would say
	Image   string // the bzImage
	modules *library
}

// Modules gives the named modules and what they need, decompressed, in loading order.
func (k *Kernel) Modules(ctx context.Context, names []string) ([]Module, error) {
	return k.modules.resolve(ctx, names)
}

// chosenFile tells in the cache which kernel Find gave last, after the meta package that led to it.
const chosenFile = "chosen"

// Chosen gives the kernel that Find gave last, so that runs that belong together have the same one, whatever becomes of the
// package lists meanwhile.
func Chosen(ctx context.Context, cache string, log io.Writer) (*Kernel, error) {
	if _, kernel, err := chosen(cache); err == nil {
		return kernel, nil
	}
	return Find(ctx, cache, log)
}

// Find gives the newest kernel that the package lists offer, fetched now if the cache lacks it. Without package lists
// the cache alone decides. What it does is told on log.
func Find(ctx context.Context, cache string, log io.Writer) (*Kernel, error) {
	before, last, none := chosen(cache)
	for _, meta := range metaPackages() {
		packages, err := resolve(ctx, meta)
		if err != nil && none == nil && meta == before { // it had been there: the lists are being renewed, or were deleted
			_, _ = fmt.Fprintf(log, "guest: %v; going on with %s, which %s names\n", err, last.Release, filepath.Join(cache, chosenFile))
			return last, nil
		}
		if err != nil {
			continue // this distribution has no such package
		}
		dir := packages[0].dirName()
		kernel, err := open(filepath.Join(cache, dir))
		if err != nil {
			if err := fetch(ctx, packages, filepath.Join(cache, dir), log); err != nil {
				return nil, err
			}
			if kernel, err = open(filepath.Join(cache, dir)); err != nil {
				return nil, err
			}
		}
		return kernel, choose(cache, meta, dir)
	}
	return newestCached(cache)
}

func chosen(cache string) (meta string, kernel *Kernel, err error) {
	text, err := os.ReadFile(filepath.Join(cache, chosenFile))
	if err != nil {
		return "", nil, err
	}
	meta, dir, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	kernel, err = open(filepath.Join(cache, filepath.Base(dir)))
	return meta, kernel, err
}

// choose replaces the file at once: another run may be reading it.
func choose(cache, meta, dir string) error {
	f, err := os.CreateTemp(cache, chosenFile+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // after a failure
	_, err = fmt.Fprintln(f, meta, dir)
	return errors.Join(err, f.Close(), os.Rename(f.Name(), filepath.Join(cache, chosenFile)))
}

func newestCached(cache string) (*Kernel, error) {
	dirs, err := filepath.Glob(filepath.Join(cache, "linux-image-*"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(dirs, func(a, b string) int { return modified(b) - modified(a) })
	for _, dir := range dirs {
		if kernel, err := open(dir); err == nil {
			return kernel, nil
		}
	}
	return nil, fmt.Errorf("%w: looked for %s; are the package lists there (apt-get update)?", ErrNoKernel, strings.Join(metaPackages(), ", "))
}

func modified(path string) int {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return int(info.ModTime().Unix())
}

type debPackage struct{ name, version string }

// dirName holds the version, so that a new kernel never hides behind an old cache. A colon (epoch) is no good in paths.
func (p debPackage) dirName() string {
	return p.name + "_" + strings.ReplaceAll(p.version, ":", "%3a")
}

// resolve finds the package behind a meta package, and those beside it that hold its modules.
func resolve(ctx context.Context, meta string) ([]debPackage, error) {
	record, err := show(ctx, meta)
	if err != nil {
		return nil, err
	}
	image := kernelPackage(record)
	if image == "" {
		return nil, fmt.Errorf("%s depends on no kernel", meta)
	}
	record, err = show(ctx, image)
	if err != nil {
		return nil, err
	}
	packages := []debPackage{{name: image, version: field(record, "Version")}}
	release := strings.TrimPrefix(image, "linux-image-")
	for _, beside := range []string{"linux-modules-" + release, "linux-modules-extra-" + release} {
		if record, err := show(ctx, beside); err == nil {
			packages = append(packages, debPackage{name: beside, version: field(record, "Version")})
		}
	}
	return packages, nil
}

// kernelPackage is the real kernel that a meta package's record depends on.
func kernelPackage(record string) string {
	return regexp.MustCompile(`linux-image-[0-9][^ ,(]*`).FindString(field(record, "Depends"))
}

func show(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "show", "--no-all-versions", name).Output()
	if err != nil || len(out) == 0 {
		return "", fmt.Errorf("apt-cache knows no %s: %w", name, errors.Join(err, ErrNoKernel))
	}
	return string(out), nil
}

// field reads one field of the first record.
func field(record, name string) string {
	for line := range strings.Lines(record) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fetch downloads and unpacks into a folder beside dir and then renames it, so that an interrupted or a concurrent
// fetch never leaves half a kernel under the final name.
func fetch(ctx context.Context, packages []debPackage, dir string, log io.Writer) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "fetch-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	for _, p := range packages {
		_, _ = fmt.Fprintf(log, "guest: fetching the package %s %s (unpacked into %s, not installed)\n", p.name, p.version, dir)
		if err := download(ctx, p, work); err != nil {
			return err
		}
	}
	root := filepath.Join(work, "root")
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, root).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", deb, err, out)
		}
	}
	if _, err := open(root); err != nil {
		return fmt.Errorf("package %s: %w", packages[0].name, err)
	}
	if err := os.Rename(root, dir); err != nil && !errors.Is(err, os.ErrExist) {
		if _, other := open(dir); other != nil {
			return err
		}
	}
	return nil
}

func download(ctx context.Context, p debPackage, dir string) error {
	// As root apt wants to drop privileges for the download and complains when it cannot write here; it need not.
	cmd := exec.CommandContext(ctx, "apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", p.name+"="+p.version)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s: %w: %s (old package lists? apt-get update)", p.name, err, out)
	}
	return nil
}

// open takes a folder as a kernel if it has the parts of one: an image and the modules of the same release.
func open(root string) (*Kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return nil, err
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("%d kernel images in %s: %w", len(images), root, ErrNoKernel)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	for _, lib := range []string{"lib", "usr/lib"} {
		modules, err := openLibrary(filepath.Join(root, lib, "modules", release))
		if err == nil {
			return &Kernel{Release: release, Image: images[0], modules: modules}, nil
		}
	}
	return nil, fmt.Errorf("no modules of %s in %s: %w", release, root, ErrNoKernel)
}
