package driver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/routeros"
)

// canned is an RDS that always gives the same reply.
type canned struct {
	reply    routeros.Reply
	commands int
}

func (c *canned) Down() error { return nil }

func (c *canned) Run(context.Context, routeros.Script) (routeros.Reply, error) {
	c.commands++
	return c.reply, nil
}

// thousand is a controller over an RDS with that many disks, each with all that the device prints of one.
func thousand(t testing.TB, disks int) (*driver.Controller, *canned) {
	t.Helper()
	rows := make([]map[string]any, 0, disks)
	for i := range disks {
		slot := appliance.SlotFor(cluster, fmt.Sprint("pvc-", i))
		rows = append(rows, map[string]any{
			".id": fmt.Sprintf("*%X", i), "comment": "rds-csi/1 cluster=" + cluster + " name=" + fmt.Sprint("pvc-", i) + " claim=default/data", "type": "file", "slot": slot,
			"slot-default": "", "parent": "", "fs": "-", "model": "/storage-pool/k8s/" + slot + "/volume.img", "size": "1073741824", "mount-filesystem": "false",
			"mount-read-only": "false", "compress": "false", "raid-master": "none", "iscsi-export": "false", "nfs-sharing": "false", "smb-sharing": "false",
			"media-sharing": "false", "media-interface": "none", "swap": "false", "nvme-tcp-export": "true", "nvme-tcp-server-port": "4420",
			"nvme-tcp-server-nqn": appliance.NQNFor(slot), "nvme-tcp-server-password": "", "nvme-tcp-server-allow-host-name": "",
			"file-path": "/storage-pool/k8s/" + slot + "/volume.img", "file-size": "1073741824", "file-offset": "0", "disabled": "false", "mounted": "false", "formatting": "false",
		})
	}
	text, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := appliance.ParsePath("/storage-pool/k8s")
	if err != nil {
		t.Fatal(err)
	}
	runner := &canned{reply: routeros.Reply{Lines: []string{string(text)}}}
	rds, err := appliance.NewRDS(appliance.Settings{Name: rds1, Default: true, ClusterID: cluster, Pool: pool, NVMeAddress: "10.42.68.1", NVMePort: 4420}, runner)
	if err != nil {
		t.Fatal(err)
	}
	c := driver.NewController(rds1, attach.Standalone(), slog.New(slog.DiscardHandler))
	c.Use(driver.Fleet{ClusterID: cluster, Appliances: map[string]driver.Appliance{rds1: rds}})
	return c, runner
}

// B32: the existing driver takes 133 ms of processor time for such a list. Here it is one command, and the work per volume is
// bounded and does not grow with their number: counted in allocations, which do not depend on the machine. They are 29, of which
// the answer itself has more than half; they were 185, and three times the processor time, when each row was read into a map.
func TestAThousandVolumes_B32(t *testing.T) {
	const disks = 1000
	c, runner := thousand(t, disks)
	list := func(c *driver.Controller) int {
		reply, err := c.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range reply.GetEntries() {
			if !strings.HasPrefix(e.GetVolume().GetVolumeId(), "rds1/pvc-") || e.GetVolume().GetCapacityBytes() != gib {
				t.Fatalf("%v", e)
			}
		}
		return len(reply.GetEntries())
	}
	if n := list(c); n != disks || runner.commands != 1 {
		t.Errorf("%d volumes by %d commands", n, runner.commands)
	}
	few, _ := thousand(t, disks/10)
	per, perOfFew := testing.AllocsPerRun(3, func() { list(c) })/disks, testing.AllocsPerRun(3, func() { list(few) })/(disks/10)
	t.Logf("%.0f allocations per volume of %d, %.0f of %d", per, disks, perOfFew, disks/10)
	if per > 40 || per > 1.2*perOfFew {
		t.Errorf("%.0f allocations per volume of %d, %.0f of %d", per, disks, perOfFew, disks/10)
	}
}

// BenchmarkAThousandVolumes is the processor time of the driver's part.
func BenchmarkAThousandVolumes(b *testing.B) {
	c, _ := thousand(b, 1000)
	for b.Loop() {
		if _, err := c.ListVolumes(b.Context(), &csi.ListVolumesRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
