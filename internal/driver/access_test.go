package driver_test

import (
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// The table of access modes: on how many nodes a volume may be, by what is asked and what it is.
func TestOnHowManyNodes(t *testing.T) {
	for name, c := range map[string]struct {
		of    func(csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability
		mode  csi.VolumeCapability_AccessMode_Mode
		nodes int
	}{
		"a file system, one writer":            {fileSystem, oneWriter, 1},
		"a file system, one pod":               {fileSystem, onePod, 1},
		"a file system, many writers on one":   {fileSystem, manyInOne, 1},
		"a file system, one reader":            {fileSystem, oneReader, 1},
		"a file system, readers":               {fileSystem, manyRead, 4},
		"a file system, many writers":          {fileSystem, manyWrite, 0},
		"raw block, one writer":                {raw, oneWriter, 1},
		"raw block, one pod":                   {raw, onePod, 1},
		"raw block, many writers on one":       {raw, manyInOne, 1},
		"raw block, one reader":                {raw, oneReader, 1},
		"raw block, readers":                   {raw, manyRead, 4},
		"raw block, a virtual machine":         {raw, manyWrite, 2},
		"raw block, one writer on many nodes":  {raw, csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER, 0},
		"raw block, and nothing said about it": {raw, csi.VolumeCapability_AccessMode_UNKNOWN, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, attach.Standalone())
			id := s.create("pvc-1").GetVolumeId()
			admitted := 0
			for _, node := range []string{"a", "b", "c", "d"} {
				req := publishRequest(id, node)
				req.VolumeCapability = c.of(c.mode)
				_, err := s.ControllerPublishVolume(t.Context(), req)
				want := codes.FailedPrecondition
				if c.nodes == 0 {
					want = codes.InvalidArgument
				}
				if err != nil {
					wants(t, err, want)
					continue
				}
				admitted++
			}
			if admitted != c.nodes {
				t.Errorf("%d nodes were admitted, want %d", admitted, c.nodes)
			}
		})
	}
}

func fileSystem(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return capability(mode, "")
}

// With Kubernetes the PersistentVolume decides: a caller that says that it only reads does not get beside a writer, and one
// that writes does not get beside readers.
func TestReadersAndAWriterDoNotMeet(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	s := newScene(t, ledger)
	id := s.create("pvc-1").GetVolumeId()
	of := func(node string, mode attach.Mode, attached bool) attach.Attachment {
		return attach.Attachment{
			UID: "uid-" + node, Name: "csi-" + node, Volume: id, Node: node, Mode: mode, Granted: attach.GrantOf(mode), Attached: attached, Created: time.Unix(1_700_000_000, 0),
		}
	}
	publish := func(node string, mode csi.VolumeCapability_AccessMode_Mode) error {
		req := publishRequest(id, node)
		req.VolumeCapability = fileSystem(mode)
		_, err := s.ControllerPublishVolume(t.Context(), req)
		return err
	}
	ledger.ReplaceNodes(nil)
	ledger.Replace([]attach.Attachment{of("a", attach.Readers, true), of("b", attach.Readers, true), of("c", attach.Readers, false)})
	wants(t, publish("c", oneWriter), codes.FailedPrecondition, " a (", " b (")
	wants(t, publish("c", manyRead), codes.OK)
	ledger.Replace([]attach.Attachment{of("a", attach.SingleNode, true), of("c", attach.SingleNode, false)})
	wants(t, publish("c", manyRead), codes.FailedPrecondition, "a")
}

func TestReadersNeedNothingButTheModeToBeConfirmed(t *testing.T) {
	s := newScene(t, attach.Standalone())
	id := s.create("pvc-1").GetVolumeId()
	for _, c := range []struct {
		caps []*csi.VolumeCapability
		ok   bool
	}{
		{[]*csi.VolumeCapability{fileSystem(manyRead)}, true},
		{[]*csi.VolumeCapability{raw(manyRead)}, true},
		{[]*csi.VolumeCapability{raw(manyRead), raw(oneWriter)}, false},
	} {
		reply, err := s.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: c.caps})
		if err != nil || (reply.GetConfirmed() != nil) != c.ok {
			t.Errorf("%v: %v, %v", c.caps, reply, err)
		}
	}
}
