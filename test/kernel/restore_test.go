//go:build kernel

package kernel

import (
	"errors"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/filesystem"
)

// A volume that nobody has used is snapshotted and restored. What comes of it is blank, and a file system made on it would
// look as if it were what was asked for.
func TestWhatWasRestoredIsNotFormatted(t *testing.T) {
	s := newScene(t, btrfs(t), cowPool, nil)
	source := s.create("source", volumeSize, capability(oneWriter, "ext4"), nil)
	snapshot, blank := source.snapshot("snapshot"), source.sum()
	for name, from := range map[string]*claim{
		"restored": s.create("restored", volumeSize, source.mode, fromSnapshot(snapshot)),
		"cloned":   s.create("cloned", volumeSize, source.mode, fromVolume(source)),
	} {
		must(t, from.attach(nodeA))
		if err := from.stage(); !errors.Is(err, filesystem.ErrNoData) || !strings.Contains(err.Error(), from.volume.GetVolumeContext()["source"]) {
			t.Errorf("%s: %v", name, err)
		}
		if left := controllersOf(t, from.nqn()); len(left) != 0 {
			t.Errorf("%s: still connected: %v", name, left)
		}
		from.detach(nodeA)
		if from.sum() != blank {
			t.Errorf("%s: something was written to it", name)
		}
		from.remove()
	}
	source.up() // the volume itself began empty, and is formatted
	source.down()
	source.remove()
}
