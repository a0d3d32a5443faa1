package driver_test

import (
	"os"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/routeros"
	"github.com/rds-csi/rds-csi/internal/sim"
)

// What the runbook tells an administrator to type.
const (
	fence = `/disk/set [find slot=?] nvme-tcp-export=no comment=("fenced " . [/disk/get [find slot=?] comment])`
	lift  = `/disk/set [find slot=?] comment=[:pick [/disk/get [find slot=?] comment] 7 999]`
)

func TestRunbookHasTheFence(t *testing.T) {
	page, err := os.ReadFile("../../docs/runbooks/AttachmentDrift.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{fence, lift} {
		if command = strings.ReplaceAll(command, "?", `"SLOT"`); !strings.Contains(string(page), "`"+command+"`") {
			t.Errorf("the runbook does not have %s", command)
		}
	}
}

// An export that is only taken away comes back, by the attacher and by the repair. With the word of an administrator before the comment it
// stays away from both, from other nodes and from a deletion, until the word is taken away.
func TestFenceStays(t *testing.T) {
	r := start(t, sim.Options{})
	id := r.create("pvc-1")
	slot := strings.TrimPrefix(id, rds1+"/")
	attacher := func() error { return r.publish(t.Context(), id, "node-a") }
	repair := func() error {
		_, err := r.Repair(t.Context(), id)
		return err
	}
	after := func(step string, err error, code codes.Code, export bool) {
		t.Helper()
		wants(t, err, code)
		if disk, ok := r.server.Device.Disk(slot); !ok || disk.Export != export {
			t.Fatalf("%s: %+v, want it exported: %t", step, disk, export)
		}
	}
	after("attached", attacher(), codes.OK, true)

	for by, again := range map[string]func() error{"the attacher": attacher, "the repair": repair} {
		r.run(routeros.NewScript("unexport").Add(`/disk/set [find slot=?] nvme-tcp-export=no`, routeros.Text(slot)))
		list, err := r.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		if after("taken away", err, codes.OK, false); len(list.GetEntries()) != 1 || len(list.GetEntries()[0].GetStatus().GetPublishedNodeIds()) > 0 {
			t.Errorf("%v: the attacher would not publish it again", list)
		}
		after(by, again(), codes.OK, true)
	}

	r.run(routeros.NewScript("fence").Add(fence, routeros.Text(slot), routeros.Text(slot)))
	after("fenced, the attacher", attacher(), codes.FailedPrecondition, false)
	after("fenced, the repair", repair(), codes.FailedPrecondition, false)
	after("fenced, detached", r.unpublish(t.Context(), id, "node-a"), codes.OK, false)
	after("fenced, another node", r.publish(t.Context(), id, "node-b"), codes.FailedPrecondition, false)
	after("fenced, deleted", r.delete(t.Context(), id), codes.FailedPrecondition, false)

	r.run(routeros.NewScript("lift").Add(lift, routeros.Text(slot), routeros.Text(slot)))
	after("given back", attacher(), codes.OK, true)
}
