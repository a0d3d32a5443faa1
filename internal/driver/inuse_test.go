package driver_test

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// What keeps a volume from being deleted or copied is named with its reason and the way out: nothing can be detached where
// no VolumeAttachment is, and a pod that only waits writes nothing.
func TestWhoIsInTheWay(t *testing.T) {
	says := func(id string) []attach.Node { return []attach.Node{{Name: "node-a", UID: "a", InUse: []string{id}}} }
	tests := map[string]struct {
		have func(l *attach.Ledger, id string)
		word string
		copy bool // a copy may be made
	}{
		"attached": {func(l *attach.Ledger, id string) {
			l.Replace([]attach.Attachment{{UID: "1", Volume: id, Node: "node-a", Attached: true}})
		}, "node-a (a VolumeAttachment is attached); stop the pod there and wait for the detach", false},
		"mounted, detached by force": {func(l *attach.Ledger, id string) {
			l.Replace([]attach.Attachment{{UID: "1", Volume: id, Node: "node-a", Attached: true}})
			l.ReplaceNodes(says(id))
			l.Remove("1")
		}, "node-a (its kubelet has it in use); stop the pod there and let kubelet unmount", false},
		"mounted or waited for": {func(l *attach.Ledger, id string) {
			l.Doubt() // this process leads since now
			l.ReplaceNodes(says(id))
		}, "node-a (its kubelet has it mounted, or a pod there waits for it); scale the pod there down", false},
		"waited for": {func(l *attach.Ledger, id string) {
			l.UpsertNode(says(id)[0])
		}, "node-a (a pod there waits for it); scale the pod there down", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := start(t, pools()["xfs"])
			id := r.create("pvc-1")
			ledger := attach.NewLedger(attach.Options{})
			ledger.Replace(nil)
			ledger.ReplaceNodes([]attach.Node{{Name: "node-a", UID: "a"}})
			r.ledger = ledger
			r.restart()
			tt.have(ledger, id)
			wants(t, r.delete(t.Context(), id), codes.FailedPrecondition, id, "cannot be deleted", tt.word)
			_, err := r.snapshot(t.Context(), "snapshot-1", id)
			_, err2 := r.from(t.Context(), "cloned", 64*mib, ofVolume(id))
			if tt.copy {
				wants(t, err, codes.OK)
				return
			}
			wants(t, err, codes.FailedPrecondition, tt.word)
			wants(t, err2, codes.FailedPrecondition, tt.word)
			ledger.Replace(nil)
			ledger.RemoveNode("node-a")
			_, err = r.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
			wants(t, err, codes.OK)
		})
	}
}
