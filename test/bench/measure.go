package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// cell is one measurement of the table.
type cell struct {
	RoundTripMs float64 `json:"roundTripMs"`
	Operation   string  `json:"operation"`
	Callers     int     `json:"callers"`
	PerSecond   float64 `json:"perSecond"`
	P50Ms       float64 `json:"p50Ms"`
	P99Ms       float64 `json:"p99Ms"`
	// CPUMs is the controller's own processor time per call.
	CPUMs float64 `json:"cpuMs"`
}

// operation is one CSI call on the i-th volume.
type operation struct {
	name string
	call func(ctx context.Context, i int) error
}

// measure takes a volume through its life, one operation at a time for all volumes.
func (c *controller) measure(ctx context.Context, n, callers int, rtt time.Duration) ([]cell, error) {
	ids := make([]string, n)
	var cells []cell
	for _, op := range c.life(ids, callers) {
		got, err := c.timed(ctx, op, n, callers, rtt)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op.name, err)
		}
		cells = append(cells, got)
	}
	return cells, nil
}

// timed makes n calls and takes their times, and the controller's processor time.
func (c *controller) timed(ctx context.Context, op operation, n, callers int, rtt time.Duration) (cell, error) {
	before, err := c.processorTime()
	if err != nil {
		return cell{}, err
	}
	times, total, err := repeat(ctx, n, callers, op.call)
	if err != nil {
		return cell{}, err
	}
	after, err := c.processorTime()
	if err != nil {
		return cell{}, err
	}
	got := summarize(op.name, callers, rtt, times, total)
	got.CPUMs = ms((after - before) / time.Duration(n))
	return got, nil
}

// life is what is measured, in order. Names differ per number of callers: the cells of one run share a simulator.
func (c *controller) life(ids []string, callers int) []operation {
	return []operation{
		{"create", func(ctx context.Context, i int) error {
			r, err := c.csi.CreateVolume(ctx, &csi.CreateVolumeRequest{
				Name:               fmt.Sprintf("pvc-bench-%d-%d", callers, i),
				CapacityRange:      &csi.CapacityRange{RequiredBytes: 1 << 30},
				VolumeCapabilities: []*csi.VolumeCapability{capability()},
			})
			ids[i] = r.GetVolume().GetVolumeId()
			return err
		}},
		{"publish", func(ctx context.Context, i int) error {
			_, err := c.csi.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
				VolumeId: ids[i], NodeId: "bench", VolumeCapability: capability(),
			})
			return err
		}},
		{"unpublish", func(ctx context.Context, i int) error {
			_, err := c.csi.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: ids[i], NodeId: "bench"})
			return err
		}},
		{"capacity", func(ctx context.Context, _ int) error {
			_, err := c.csi.GetCapacity(ctx, &csi.GetCapacityRequest{})
			return err
		}},
		{"list", func(ctx context.Context, _ int) error {
			_, err := c.csi.ListVolumes(ctx, &csi.ListVolumesRequest{})
			return err
		}},
		{"delete", func(ctx context.Context, i int) error {
			_, err := c.csi.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: ids[i]})
			return err
		}},
	}
}

func capability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

// repeat makes n calls by so many callers and answers each call's time and the whole. The first error ends it.
func repeat(ctx context.Context, n, callers int, call func(context.Context, int) error) ([]time.Duration, time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	times := make([]time.Duration, n)
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	began := time.Now()
	for range callers {
		wg.Go(func() {
			for i := range next {
				if ctx.Err() != nil {
					return
				}
				t := time.Now()
				if err := call(ctx, i); err != nil {
					cancel(err)
					return
				}
				times[i] = time.Since(t)
			}
		})
	}
	wg.Wait()
	return times, time.Since(began), context.Cause(ctx)
}

func summarize(name string, callers int, rtt time.Duration, times []time.Duration, total time.Duration) cell {
	slices.Sort(times)
	at := func(q float64) float64 { return ms(times[int(q*float64(len(times)-1))]) }
	return cell{
		RoundTripMs: ms(rtt), Operation: name, Callers: callers,
		PerSecond: float64(len(times)) / total.Seconds(), P50Ms: at(0.5), P99Ms: at(0.99),
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
