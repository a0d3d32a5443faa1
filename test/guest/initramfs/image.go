package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Image is a root file system under construction. Folders come by themselves, the layout is merged as on every
// current distribution (/bin is /usr/bin and so on), a path that was added before is left as it is.
type Image struct {
	archive archive
	present map[string]bool
}

// New starts an image that is written to w, with the skeleton that PID 1 expects: the console, and mount points.
func New(w io.Writer) (*Image, error) {
	image := &Image{archive: archive{w: w}, present: map[string]bool{".": true}}
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "run", "etc", "root", "var/lib", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"} {
		if err := image.folder(dir); err != nil {
			return nil, err
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := image.Symlink(link, "usr/"+link); err != nil {
			return nil, err
		}
	}
	// Without a console node PID 1 starts with its standard descriptors closed.
	return image, image.archive.add(entry{name: "dev/console", mode: modeChar | 0o600, major: 5, minor: 1}, nil)
}

// Close ends the archive.
func (i *Image) Close() error { return i.archive.close() }

// Write adds a file with this content.
func (i *Image) Write(target string, mode fs.FileMode, content []byte) error {
	return i.file(target, mode, int64(len(content)), bytes.NewReader(content))
}

// Symlink adds a link; its text is taken as it is.
func (i *Image) Symlink(target, text string) error {
	name := inside(target)
	if i.present[name] {
		return nil
	}
	if err := i.folder(path.Dir(name)); err != nil {
		return err
	}
	i.present[name] = true
	return i.archive.add(entry{name: name, mode: modeSymlink | 0o777, size: int64(len(text))}, strings.NewReader(text))
}

// Copy adds a file or a whole folder of the host. Links are followed: the guest gets what they lead to.
func (i *Image) Copy(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return i.copyFile(source, target, info)
	}
	return filepath.WalkDir(source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return i.folder(inside(path.Join(target, relative)))
		}
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		return i.copyFile(p, path.Join(target, relative), info)
	})
}

func (i *Image) copyFile(source, target string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", source)
	}
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	return errors.Join(i.file(target, info.Mode(), info.Size(), f), f.Close())
}

func (i *Image) file(target string, mode fs.FileMode, size int64, content io.Reader) error {
	name := inside(target)
	if i.present[name] {
		return nil
	}
	if err := i.folder(path.Dir(name)); err != nil {
		return err
	}
	i.present[name] = true
	return i.archive.add(entry{name: name, mode: modeFile | uint32(mode.Perm()), size: size}, content)
}

// folder adds a folder and those above it, once.
func (i *Image) folder(name string) error {
	if i.present[name] {
		return nil
	}
	if err := i.folder(path.Dir(name)); err != nil {
		return err
	}
	i.present[name] = true
	return i.archive.add(entry{name: name, mode: modeDir | 0o755}, nil)
}

// inside is the name in the archive of a path in the guest: no leading slash, no "..", and the merged layout, since
// the kernel unpacks "lib/x" through the link only if nothing made a folder of that name before.
func inside(target string) string {
	name := strings.TrimPrefix(path.Clean("/"+target), "/")
	if name == "" {
		return "."
	}
	first, rest, deeper := strings.Cut(name, "/")
	switch first {
	case "bin", "sbin", "lib", "lib64":
		if deeper {
			return path.Join("usr", first, rest)
		}
	}
	return name
}
