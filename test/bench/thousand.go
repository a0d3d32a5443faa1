package main

import (
	"context"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// thousand is the number of disks that rule B32 counts with: a driver that asks the RDS for each of them, or parses slowly,
// spends its time here.
const thousand = 1000

// measureThousand lists a thousand volumes, one call at a time, and takes them away again.
func (c *controller) measureThousand(ctx context.Context, lists, callers int, rtt time.Duration) (cell, error) {
	ids := make([]string, thousand)
	if _, _, err := repeat(ctx, thousand, callers, func(ctx context.Context, i int) error {
		r, err := c.csi.CreateVolume(ctx, &csi.CreateVolumeRequest{
			Name: fmt.Sprintf("pvc-bench-thousand-%d", i), CapacityRange: &csi.CapacityRange{RequiredBytes: 16 << 20},
			VolumeCapabilities: []*csi.VolumeCapability{capability()},
		})
		ids[i] = r.GetVolume().GetVolumeId()
		return err
	}); err != nil {
		return cell{}, fmt.Errorf("a thousand volumes: %w", err)
	}
	got, err := c.timed(ctx, operation{"list, 1,000 volumes", func(ctx context.Context, _ int) error {
		r, err := c.csi.ListVolumes(ctx, &csi.ListVolumesRequest{})
		if n := len(r.GetEntries()); err == nil && n != thousand {
			return fmt.Errorf("%d volumes are listed, there are %d", n, thousand)
		}
		return err
	}}, lists, 1, rtt)
	if err != nil {
		return cell{}, err
	}
	_, _, err = repeat(ctx, thousand, callers, func(ctx context.Context, i int) error {
		_, err := c.csi.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: ids[i]})
		return err
	})
	return got, err
}
