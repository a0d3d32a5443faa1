package initramfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoTool is a program that the host does not have.
var ErrNoTool = errors.New("not installed here")

// Tool adds a program of the host where the host has it, with the shared libraries that it needs.
func (i *Image) Tool(ctx context.Context, name string) error {
	source, err := lookTool(name)
	if err != nil {
		return err
	}
	libraries, err := sharedLibraries(ctx, source)
	if err != nil {
		return err
	}
	for _, library := range libraries {
		if err := i.Copy(library, library); err != nil {
			return fmt.Errorf("library of %s: %w", name, err)
		}
	}
	return i.Copy(source, toolTarget(source, name))
}

// toolTarget keeps a program of the system at its path and brings any other to where the guest's PATH leads.
func toolTarget(source, name string) string {
	switch filepath.Dir(source) {
	case "/bin", "/sbin", "/usr/bin", "/usr/sbin":
		return source
	}
	return filepath.Join("/usr/bin", name)
}

// lookTool also searches the folders of system programs, which are not on every user's PATH.
func lookTool(name string) (string, error) {
	if found, err := exec.LookPath(name); err == nil {
		return found, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		candidate := filepath.Join(dir, name)
		if info, err := os.Stat(candidate); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrNoTool)
}

// sharedLibraries asks the dynamic linker. A static program has none.
func sharedLibraries(ctx context.Context, program string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "ldd", program)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		if strings.Contains(complaint.String()+string(out), "not a dynamic executable") {
			return nil, nil
		}
		return nil, fmt.Errorf("ldd %s: %w: %s", program, err, complaint.Bytes())
	}
	return parseLdd(string(out))
}

// parseLdd reads lines like "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f…)", "/lib64/ld-linux-x86-64.so.2 (0x7f…)"
// and "linux-vdso.so.1 (0x7f…)", of which the last is no file.
func parseLdd(text string) ([]string, error) {
	var libraries []string
	for line := range strings.Lines(text) {
		name, found, arrow := strings.Cut(strings.TrimSpace(line), " => ")
		if !arrow {
			found = name
		}
		file, _, _ := strings.Cut(found, " (")
		switch {
		case file == "not found":
			return nil, fmt.Errorf("library %s not found", name)
		case strings.HasPrefix(file, "/"):
			libraries = append(libraries, file)
		}
	}
	return libraries, nil
}
