package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// member is what an independent reading of the format finds.
type member struct {
	Name         string
	Mode         uint64
	Content      string
	Major, Minor uint64
}

// readNewc follows the kernel's description of the format, not the writer.
func readNewc(t *testing.T, data []byte) []member {
	t.Helper()
	var members []member
	for at := 0; ; {
		if len(data) < at+110 || string(data[at:at+6]) != "070701" {
			t.Fatalf("no header at %d", at)
		}
		number := func(field int) uint64 {
			text := string(data[at+6+field*8 : at+14+field*8])
			n, err := strconv.ParseUint(text, 16, 32)
			if err != nil {
				t.Fatalf("field %d at %d: %q", field, at, text)
			}
			return n
		}
		nameSize, size := int(number(11)), int(number(6))
		name := string(data[at+110 : at+110+nameSize])
		if !strings.HasSuffix(name, "\x00") {
			t.Fatalf("name %q does not end with NUL", name)
		}
		content := (at + 110 + nameSize + 3) &^ 3
		m := member{Name: name[:nameSize-1], Mode: number(1), Content: string(data[content : content+size]), Major: number(9), Minor: number(10)}
		if m.Name == trailer {
			return members
		}
		members = append(members, m)
		at = (content + size + 3) &^ 3
	}
}

func find(t *testing.T, members []member, name string) member {
	t.Helper()
	var found []member
	for _, m := range members {
		if m.Name == name {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s is there %d times", name, len(found))
	}
	return found[0]
}

func build(t *testing.T, fill func(*Image) error) []member {
	t.Helper()
	var out bytes.Buffer
	image, err := New(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(image); err != nil {
		t.Fatal(err)
	}
	if err := image.Close(); err != nil {
		t.Fatal(err)
	}
	return readNewc(t, out.Bytes())
}

func TestArchiveReadsBackWhateverTheLengths(t *testing.T) {
	for size := range 9 {
		content := strings.Repeat("x", size)
		members := build(t, func(i *Image) error {
			return i.Write("/a/"+strings.Repeat("n", size+1), 0o640, []byte(content))
		})
		got := find(t, members, "a/"+strings.Repeat("n", size+1))
		if got.Content != content || got.Mode != 0o100640 {
			t.Errorf("size %d: got %+v", size, got)
		}
	}
}

func TestSkeletonHasConsoleAndMergedLayout(t *testing.T) {
	members := build(t, func(*Image) error { return nil })
	if diff := cmp.Diff(member{Name: "dev/console", Mode: 0o020600, Major: 5, Minor: 1}, find(t, members, "dev/console")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(member{Name: "lib", Mode: 0o120777, Content: "usr/lib"}, find(t, members, "lib")); diff != "" {
		t.Error(diff)
	}
}

func TestFoldersComeBeforeWhatIsInThem(t *testing.T) {
	members := build(t, func(i *Image) error { return i.Write("/lib/x86_64-linux-gnu/libc.so.6", 0o755, []byte("elf")) })
	seen := map[string]bool{".": true}
	for _, m := range members {
		if !seen[filepath.Dir(m.Name)] {
			t.Errorf("%s comes before its folder", m.Name)
		}
		if seen[m.Name] {
			t.Errorf("%s is there twice", m.Name)
		}
		seen[m.Name] = true
	}
	find(t, members, "usr/lib/x86_64-linux-gnu/libc.so.6")
}

func TestFirstOfTwoFilesWins(t *testing.T) {
	members := build(t, func(i *Image) error {
		return errors.Join(i.Write("/sbin/tool", 0o755, []byte("given")), i.Write("/usr/sbin/tool", 0o755, []byte("the host's")))
	})
	if got := find(t, members, "usr/sbin/tool").Content; got != "given" {
		t.Errorf("content %q", got)
	}
}

func TestCopyFollowsLinksAndWalksFolders(t *testing.T) {
	host := t.TempDir()
	for name, content := range map[string]string{"real": "content", "sub/inner": "deeper"} {
		path := filepath.Join(host, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("real", filepath.Join(host, "link")); err != nil {
		t.Fatal(err)
	}
	members := build(t, func(i *Image) error { return i.Copy(host, "/data") })
	for name, want := range map[string]string{"data/link": "content", "data/real": "content", "data/sub/inner": "deeper"} {
		if got := find(t, members, name).Content; got != want {
			t.Errorf("%s: %q instead of %q", name, got, want)
		}
	}
}

func TestPathsStayInside(t *testing.T) {
	for target, want := range map[string]string{
		"/bin/x": "usr/bin/x", "/lib64/ld.so": "usr/lib64/ld.so", "/bin": "bin", "../../etc/x": "etc/x",
		"/usr/lib/y": "usr/lib/y", "/": ".", "/libexec/z": "libexec/z",
	} {
		if got := inside(target); got != want {
			t.Errorf("%s: %s instead of %s", target, got, want)
		}
	}
}

func TestShortContentIsAnError(t *testing.T) {
	a := archive{w: io.Discard}
	err := a.add(entry{name: "f", mode: modeFile, size: 10}, strings.NewReader("four"))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	if a.close() == nil {
		t.Error("a broken archive closes without an error")
	}
}

func TestTooLargeIsAnError(t *testing.T) {
	a := archive{w: io.Discard}
	if err := a.add(entry{name: "f", mode: modeFile, size: math.MaxUint32 + 1}, strings.NewReader("")); err == nil {
		t.Error("4 GiB were taken")
	}
}

func TestParseLdd(t *testing.T) {
	const text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibblkid.so.1 => /lib/x86_64-linux-gnu/libblkid.so.1 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
	got, err := parseLdd(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/lib/x86_64-linux-gnu/libblkid.so.1", "/lib64/ld-linux-x86-64.so.2"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parseLdd("\tlibx.so => not found\n"); err == nil {
		t.Error("a missing library is no error")
	}
}

func TestToolBringsItsLibraries(t *testing.T) {
	members := build(t, func(i *Image) error { return i.Tool(t.Context(), "sh") })
	var library bool
	for _, m := range members {
		library = library || strings.HasPrefix(m.Name, "usr/lib") && strings.Contains(m.Name, "libc.so")
	}
	if !library {
		t.Error("no libc beside sh")
	}
}

func TestUnknownToolIsSaid(t *testing.T) {
	image, err := New(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := image.Tool(t.Context(), "no-such-tool-here"); !errors.Is(err, ErrNoTool) {
		t.Errorf("error %v", err)
	}
}

func ExampleImage() {
	var out bytes.Buffer
	image, _ := New(&out)
	_ = image.Write("/init", 0o755, []byte("#!/bin/sh\n"))
	fmt.Println(image.Close(), out.Len()%4)
	// Output: <nil> 0
}
