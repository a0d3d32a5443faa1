package driver_test

import (
	"maps"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// asked is a VolumeAttachment of a volume that two nodes may have.
func asked(volume, node string, attached bool, age time.Duration) attach.Attachment {
	return attach.Attachment{
		UID: "uid-" + node, Name: "csi-" + node, Volume: volume, Node: node, Attached: attached,
		Mode: attach.MultiNode, MigrationTimeout: time.Minute, Created: time.Now().Add(-age),
	}
}

// Raw block that is ReadWriteMany goes to two nodes, so that a virtual machine can
// migrate, and not to a third; nor to a second one for longer than its time (B19).
// What the PersistentVolume does not allow no caller gets (B3).
func TestPublishToTwoNodes_B3_B19(t *testing.T) {
	many, one := csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	for name, tt := range map[string]struct {
		capability *csi.VolumeCapability
		others     []attach.Attachment // without their volume
		own        attach.Attachment
		code       codes.Code
		words      []string
	}{
		"a second node":                      {raw(many), []attach.Attachment{asked("", "node-a", true, time.Hour)}, asked("", "node-b", false, 0), codes.OK, nil},
		"a third":                            {raw(many), []attach.Attachment{asked("", "node-a", true, time.Hour), asked("", "node-c", true, time.Minute)}, asked("", "node-b", false, 0), codes.FailedPrecondition, []string{"node-a (", "node-c ("}},
		"a second, too late":                 {raw(many), []attach.Attachment{asked("", "node-a", true, time.Hour)}, asked("", "node-b", false, 2*time.Minute), codes.FailedPrecondition, []string{"node-a", "node-b", "1m0s", "cancel"}},
		"both there, too late":               {raw(many), []attach.Attachment{asked("", "node-a", true, time.Hour)}, asked("", "node-b", true, 2*time.Minute), codes.OK, nil},
		"asked for one node":                 {raw(one), []attach.Attachment{asked("", "node-a", true, time.Hour)}, asked("", "node-b", false, 0), codes.FailedPrecondition, []string{"node-a"}},
		"of a PersistentVolume for one node": {raw(many), []attach.Attachment{{UID: "x", Node: "node-a", Attached: true}}, asked("", "node-b", false, 0), codes.FailedPrecondition, []string{"node-a"}},
		"a file system":                      {capability(many, ""), nil, asked("", "node-b", false, 0), codes.InvalidArgument, []string{"MULTI_NODE_MULTI_WRITER", "raw block"}},
		"one writer of many":                 {raw(csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER), nil, asked("", "node-b", false, 0), codes.InvalidArgument, nil},
	} {
		t.Run(name, func(t *testing.T) {
			ledger := attach.NewLedger(attach.Options{})
			s := newScene(t, ledger)
			id := s.create("pvc-1").GetVolumeId()
			ledger.ReplaceNodes([]attach.Node{{Name: "node-b", UID: "uid of node-b"}})
			ledger.Replace(nil)
			for _, a := range append(tt.others, tt.own) {
				a.Volume = id
				ledger.Upsert(a)
			}
			req := publishRequest(id, "node-b")
			req.VolumeCapability = tt.capability
			reply, err := s.ControllerPublishVolume(t.Context(), req)
			wants(t, err, tt.code, tt.words...)
			if handle, uid, _ := driver.Published(reply.GetPublishContext()); err == nil && (handle != id || uid != "uid of node-b") {
				t.Errorf("the publish context tells %q, node %q", handle, uid)
			}
		})
	}
}

// A Node that the ledger does not know has no UID to tell; it is no reason to
// refuse: a watch may lag behind a new Node.
func TestPublishToANodeThatIsNotSeenYet(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	s := newScene(t, ledger)
	id := s.create("pvc-1").GetVolumeId()
	ledger.ReplaceNodes(nil)
	ledger.Replace([]attach.Attachment{asked(id, "node-a", false, 0)})
	reply, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-a"))
	wants(t, err, codes.OK)
	if _, uid, _ := driver.Published(reply.GetPublishContext()); uid != "" {
		t.Errorf("node UID %q", uid)
	}
}

// A VolumeAttachment went by force, and kubelet has the volume still.
func TestKubeletsWordRefusesTheSecondWriter_B3(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	s := newScene(t, ledger)
	id := s.create("pvc-1").GetVolumeId()
	ledger.ReplaceNodes([]attach.Node{{Name: "node-a", InUse: []string{id}}})
	ledger.Replace([]attach.Attachment{asked(id, "node-b", false, 0)})
	_, err := s.ControllerPublishVolume(t.Context(), publishRequest(id, "node-b"))
	wants(t, err, codes.FailedPrecondition, "node-a", "node-b", "out-of-service")
	ledger.Replace(nil)
	_, err = s.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	wants(t, err, codes.FailedPrecondition, "node-a")
}

// The time of a migration stands in the StorageClass, is checked there, and is kept
// in the PersistentVolume; what the existing driver wrote there is honoured.
func TestMigrationTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "5m": 5 * time.Minute, "1h": time.Hour, "90": 90 * time.Second,
		"29s": 0, "1h0m1s": 0, "-1m": 0, "soon": 0, "": 0,
	} {
		s := newScene(t, attach.Standalone())
		req := createRequest("pvc-1", gib)
		req.Parameters = map[string]string{"migrationTimeout": text}
		reply, err := s.CreateVolume(t.Context(), req)
		if want == 0 {
			wants(t, err, codes.InvalidArgument, "migrationTimeout")
		} else {
			wants(t, err, codes.OK)
		}
		if got := driver.MigrationTimeout(reply.GetVolume().GetVolumeContext()); got != want {
			t.Errorf("%q: the volume context says %s, want %s", text, got, want)
		}
		if got := driver.MigrationTimeout(req.Parameters); got != want {
			t.Errorf("%q is read as %s, want %s", text, got, want)
		}
	}
	s := newScene(t, attach.Standalone())
	if got := driver.MigrationTimeout(s.create("pvc-2").GetVolumeContext()); got != 0 {
		t.Errorf("unsaid: %s", got)
	}
	for text, want := range map[string]time.Duration{"300": 5 * time.Minute, "1": 30 * time.Second, "86400": time.Hour, "0": 0, "-5": 0, "x": 0, "99999999999999": 0} {
		existing := map[string]string{"migrationTimeoutSeconds": text}
		if got := driver.MigrationTimeout(existing); got != want {
			t.Errorf("the existing driver's %q is read as %s, want %s", text, got, want)
		}
		both := maps.Clone(existing)
		both["migrationTimeout"] = "2m"
		if got := driver.MigrationTimeout(both); got != 2*time.Minute {
			t.Errorf("both are read as %s", got)
		}
	}
}
