package driver_test

import (
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// As what a volume is granted stands in the publish context, and comes back from the VolumeAttachment.
func TestPublishTellsWhatIsGranted(t *testing.T) {
	for capability, want := range map[*csi.VolumeCapability]attach.Mode{
		fileSystem(oneWriter): attach.SingleNode, fileSystem(onePod): attach.SingleNode, fileSystem(oneReader): attach.SingleNode,
		fileSystem(manyRead): attach.Readers, raw(manyRead): attach.Readers, raw(manyWrite): attach.MultiNode,
	} {
		s := newScene(t, attach.Standalone())
		req := publishRequest(s.create("pvc-1").GetVolumeId(), "node-a")
		req.VolumeCapability = capability
		reply, err := s.ControllerPublishVolume(t.Context(), req)
		wants(t, err, codes.OK)
		if _, _, granted := driver.Published(reply.GetPublishContext()); granted != attach.GrantOf(want) {
			t.Errorf("%v is granted as %q, want %s", capability, granted, want)
		}
	}
	if _, _, granted := driver.Published(map[string]string{"grantedMode": "of a later version"}); granted != attach.GrantOf(attach.SingleNode) {
		t.Errorf("what is not understood is taken for %q", granted)
	}
}

// The PersistentVolume of an attached writer is changed to ReadOnlyMany. Nobody joins it, and when its own publish is
// repeated the record of what it has does not change.
func TestGrantOutlivesAChangeOfThePersistentVolume(t *testing.T) {
	for name, tt := range map[string]struct {
		has  attach.Grant
		kept string
	}{
		"a writer":                         {attach.GrantOf(attach.SingleNode), "SingleNode"},
		"one of whom nothing was kept yet": {0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ledger := attach.NewLedger(attach.Options{})
			s := newScene(t, ledger)
			id := s.create("pvc-1").GetVolumeId()
			ledger.ReplaceNodes(nil)
			ledger.Replace([]attach.Attachment{
				{UID: "1", Name: "csi-a", Volume: id, Node: "a", Mode: attach.Readers, Granted: tt.has, Attached: true, Created: time.Unix(1_700_000_000, 0)},
				{UID: "2", Name: "csi-b", Volume: id, Node: "b", Mode: attach.Readers, Created: time.Unix(1_700_000_100, 0)},
			})
			publish := func(node string) (*csi.ControllerPublishVolumeResponse, error) {
				req := publishRequest(id, node)
				req.VolumeCapability = fileSystem(manyRead)
				return s.ControllerPublishVolume(t.Context(), req)
			}
			_, err := publish("b")
			wants(t, err, codes.FailedPrecondition, " a (", "csi-a")
			for range 2 {
				reply, err := publish("a")
				wants(t, err, codes.OK)
				if _, _, granted := driver.Published(reply.GetPublishContext()); granted.String() != tt.kept {
					t.Errorf("granted %q, want %q", granted, tt.kept)
				}
			}
		})
	}
}

// kubelet asks by the PersistentVolume, and the node goes by what was granted.
func TestNodeMountsNothingWiderThanGranted(t *testing.T) {
	for name, tt := range map[string]struct {
		granted string // "none": no such key
		asked   *csi.VolumeCapability
		code    codes.Code
	}{
		"a reader that reads":              {"Readers", fileSystem(manyRead), codes.OK},
		"a reader that reads raw block":    {"Readers", raw(manyRead), codes.OK},
		"a reader that writes":             {"Readers", fileSystem(oneWriter), codes.FailedPrecondition},
		"a reader that writes in one pod":  {"Readers", fileSystem(onePod), codes.FailedPrecondition},
		"a reader that writes to a device": {"Readers", raw(manyInOne), codes.FailedPrecondition},
		"a reader that migrates":           {"Readers", raw(manyWrite), codes.FailedPrecondition},
		"a writer that reads":              {"SingleNode", fileSystem(oneReader), codes.OK},
		"a writer":                         {"SingleNode", fileSystem(oneWriter), codes.OK},
		"a writer of raw block, as shared": {"SingleNode", raw(manyWrite), codes.OK}, // others are the controller's to keep out
		"a virtual machine":                {"MultiNode", raw(manyWrite), codes.OK},
		"a virtual machine that stays":     {"MultiNode", raw(oneWriter), codes.OK},
		"attached before this was kept":    {"none", fileSystem(oneWriter), codes.OK},
		"what is not understood":           {"Writers", fileSystem(oneWriter), codes.FailedPrecondition},
		"what is not understood, to read":  {"Writers", raw(manyRead), codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNodeScene(t)
			context := s.stageRequest().PublishContext
			if tt.granted != "none" {
				context["grantedMode"] = tt.granted
			}
			if tt.asked.GetMount() != nil {
				s.must(s.stage()) // or there is no file system to read
				s.must(s.unstage())
			}
			err := s.stage(func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability, r.PublishContext = tt.asked, context })
			wants(t, err, tt.code)
			if tt.code != codes.OK {
				wants(t, err, tt.code, s.volume, "node-a", tt.granted, tt.asked.GetAccessMode().GetMode().String(), "wait for the detach")
				s.is(0, 0, 0)
			}
			err = s.publish(func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability, r.PublishContext = tt.asked, context })
			wants(t, err, tt.code)
		})
	}
}

// What is staged for a reader is not made writable by a pod that comes later, and a restart of kubelet changes nothing.
func TestNodeKeepsAReadersDeviceReadOnly(t *testing.T) {
	s := newNodeScene(t)
	context := s.stageRequest().PublishContext
	context["grantedMode"] = "Readers"
	ask := func(mode csi.VolumeCapability_AccessMode_Mode, target string) (staged, published error) {
		staged = s.stage(func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability, r.PublishContext = raw(mode), context })
		published = s.publish(func(r *csi.NodePublishVolumeRequest) {
			r.VolumeCapability, r.PublishContext, r.TargetPath = raw(mode), context, target
		})
		return staged, published
	}
	staged, published := ask(manyRead, s.target)
	wants(t, staged, codes.OK)
	wants(t, published, codes.OK)
	staged, published = ask(oneWriter, s.target+"-2")
	wants(t, staged, codes.FailedPrecondition, "Readers")
	wants(t, published, codes.FailedPrecondition, "Readers")
	if !s.kernel.ReadOnly(s.nqn) {
		t.Error("the device takes writes")
	}
	s.is(1, 1, 1)
}
