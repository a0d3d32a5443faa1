package filesystem

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRunTellsHowAToolEnded(t *testing.T) {
	r, err := run(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 3")
	if err != nil || r.code != 3 || r.output != "out\nerr" {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := run(t.Context(), "sh", "-c", "kill -9 $$"); err == nil {
		t.Error("a killed tool reads as ended")
	}
	if _, err := run(t.Context(), "no-such-tool-anywhere"); err == nil {
		t.Error("a missing tool reads as ended")
	}
	r, err = run(t.Context(), "sh", "-c", "yes data | head -c 1000000")
	if err != nil || len(r.output) > outputLimit || !strings.HasPrefix(r.output, "data\n") {
		t.Errorf("%d bytes, %v", len(r.output), err)
	}
}

// B22: the tools of the existing driver ran on for seconds after the deadline.
func TestRunEndsWithItsContext_B22(t *testing.T) {
	start := time.Now()
	_, err := run(within(t, 50*time.Millisecond), "sleep", "60")
	if !errors.Is(err, ErrTimeout) || time.Since(start) > 10*time.Second {
		t.Fatalf("%v after %v", err, time.Since(start))
	}
}

func TestRealDeviceMustBeABlockDevice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nvme0n1")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	_, f := newHost(t)
	f.system.open, f.system.number = openDevice, deviceNumber
	_, err := f.Inspect(t.Context(), Device{Path: file})
	if !errors.Is(err, ErrWrongDevice) && !errors.Is(err, ErrUnreadable) { // no O_DIRECT on some filesystems
		t.Fatalf("%v", err)
	}
	if err := f.Stage(t.Context(), Device{Path: "/dev/null"}, filepath.Join(t.TempDir(), "m"), "ext4", nil); !errors.Is(err, ErrWrongDevice) && !errors.Is(err, ErrUnreadable) {
		t.Fatalf("%v", err)
	}
	if _, _, err := deviceNumber(file); !errors.Is(err, ErrWrongDevice) {
		t.Fatalf("%v", err)
	}
}
