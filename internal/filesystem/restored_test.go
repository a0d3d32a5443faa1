package filesystem

import (
	"errors"
	"strings"
	"testing"
)

// A copy that lost its data on the way must not be made to look like a new volume.
func TestWhatWasRestoredIsNotFormatted(t *testing.T) {
	for _, readonly := range []bool{false, true} {
		h, f := newHost(t)
		d, dev := h.disk("nvme0n1", 1)
		dev.Source, dev.ReadOnly = "snapshot rds1/snap-1", readonly
		err := f.Stage(t.Context(), dev, h.path("globalmount"), "ext4", nil)
		if !errors.Is(err, ErrNoData) || !strings.Contains(err.Error(), "rds1/snap-1") || h.formats() != 0 || h.mounts != 0 {
			t.Errorf("%v, %q, %d mounts", err, h.runs, h.mounts)
		}
		if d.fstype = "ext4"; readonly {
			continue
		}
		if err := f.Stage(t.Context(), dev, h.path("globalmount"), "ext4", nil); err != nil || h.formats() != 0 {
			t.Errorf("with a file system on it: %v, %q", err, h.runs)
		}
	}
}
