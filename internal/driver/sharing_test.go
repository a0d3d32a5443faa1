package driver_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// One virtual machine may have its disk on two nodes; two may not, nor two pods, unless the StorageClass says so. What nobody
// knows is not yes.
func TestRawBlockOnTwoNodesIsForOneVirtualMachine(t *testing.T) {
	one, two, pods := []string{"virtual machine vms/one"}, []string{"virtual machine vms/one", "virtual machine vms/two"}, []string{"pod x/a", "pod x/b"}
	for name, c := range map[string]struct {
		policy string
		users  []string
		err    error
		code   codes.Code
		words  []string
	}{
		"one":                 {"", one, nil, codes.OK, nil},
		"one, and said":       {"same-vm", one, nil, codes.OK, nil},
		"nobody, by hand":     {"", nil, nil, codes.OK, nil},
		"two":                 {"", two, nil, codes.FailedPrecondition, append(two, "node-b", "rwxBlockPolicy")},
		"two pods":            {"same-vm", pods, nil, codes.FailedPrecondition, append(pods, "node-b")},
		"two, and allowed":    {"any", two, nil, codes.OK, nil},
		"nobody can be asked": {"", nil, errors.New("away"), codes.Unavailable, []string{"away"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, attach.Standalone())
			create := createRequest("pvc-1", gib)
			create.VolumeCapabilities[0] = raw(manyWrite)
			if c.policy != "" {
				create.Parameters = map[string]string{"rwxBlockPolicy": c.policy}
			}
			reply, err := s.CreateVolume(t.Context(), create)
			if err != nil {
				t.Fatal(err)
			}
			asked, told := 0, 0
			s.Users = func(_ context.Context, volume string) ([]string, error) {
				if asked++; volume != reply.GetVolume().GetVolumeId() {
					t.Errorf("asked about %s", volume)
				}
				return c.users, c.err
			}
			s.Refused = func(string, string) { told++ }
			publish := func(node string) error {
				req := publishRequest(reply.GetVolume().GetVolumeId(), node)
				req.VolumeContext, req.VolumeCapability = reply.GetVolume().GetVolumeContext(), raw(manyWrite)
				_, err := s.ControllerPublishVolume(t.Context(), req)
				return err
			}
			wants(t, publish("node-a"), codes.OK) // the first node is nobody's business
			if asked != 0 {
				t.Error("asked who uses a volume that no other node has")
			}
			wants(t, publish("node-b"), c.code, c.words...)
			if refused := c.code == codes.FailedPrecondition; refused != (told == 1) {
				t.Errorf("told %d times", told)
			}
			wants(t, publish("node-a"), codes.OK) // and a repeat changes nothing
			if nodes := s.ledger.Nodes(reply.GetVolume().GetVolumeId()); (len(nodes) == 2) != (c.code == codes.OK) {
				t.Errorf("it is on %v", nodes)
			}
		})
	}
}

// Nobody else is asked about: a volume for one node, one for readers, and those of the existing driver.
func TestWhoseUsersAreNotLookedAt(t *testing.T) {
	for name, c := range map[string]struct {
		capability *csi.VolumeCapability
		context    map[string]string
		second     codes.Code
	}{
		"one node":            {raw(oneWriter), nil, codes.FailedPrecondition},
		"readers":             {raw(manyRead), nil, codes.OK},
		"the existing driver": {raw(manyWrite), map[string]string{"volumePath": "/storage-pool/metal-csi/x.img"}, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, attach.Standalone())
			id := s.create("pvc-1").GetVolumeId()
			s.Users = func(context.Context, string) ([]string, error) {
				t.Error("asked")
				return nil, nil
			}
			for i, node := range []string{"node-a", "node-b"} {
				req := publishRequest(id, node)
				req.VolumeCapability, req.VolumeContext = c.capability, c.context
				_, err := s.ControllerPublishVolume(t.Context(), req)
				wants(t, err, []codes.Code{codes.OK, c.second}[i])
			}
		})
	}
}

// With Kubernetes the VolumeAttachment of the second node is there before the call, and that of the first may not say attached
// yet: it is asked all the same.
func TestUsersAreLookedAtBeforeTheFirstIsConfirmed(t *testing.T) {
	ledger := attach.NewLedger(attach.Options{})
	s := newScene(t, ledger)
	id := s.create("pvc-1").GetVolumeId()
	s.Users = func(context.Context, string) ([]string, error) { return []string{"pod x/a", "pod x/b"}, nil }
	of := func(node string, second int64) attach.Attachment {
		return attach.Attachment{UID: "uid-" + node, Name: "csi-" + node, Volume: id, Node: node, Mode: attach.MultiNode, Created: time.Unix(1_700_000_000+second, 0)}
	}
	ledger.ReplaceNodes(nil)
	ledger.Replace([]attach.Attachment{of("node-a", 0), of("node-b", 60)})
	req := publishRequest(id, "node-b")
	req.VolumeCapability = raw(manyWrite)
	_, err := s.ControllerPublishVolume(t.Context(), req)
	wants(t, err, codes.FailedPrecondition, "pod x/a", "pod x/b")
}

// external-attacher writes a refusal into the VolumeAttachment, where the API server takes no more than 1024 bytes; of what is too long
// nobody would read a word.
func TestRefusalOfUsersFits(t *testing.T) {
	long := "virtual machine " + strings.Repeat("n", 63) + "/" + strings.Repeat("m", 253)
	for name, c := range map[string]struct {
		users []string
		err   error
		code  codes.Code
		words []string
	}{
		"many":                {slices.Repeat([]string{"pod x/a"}, 200), nil, codes.FailedPrecondition, []string{"pod x/a, pod x/a, pod x/a and 197 more", "rwxBlockPolicy: any"}},
		"long names":          {slices.Repeat([]string{long}, 9), nil, codes.FailedPrecondition, []string{"node-b", "virtual machine nnn", "rwxBlockPolicy: any"}},
		"nobody can be asked": {nil, errors.New(strings.Repeat("away ", 300)), codes.Unavailable, []string{"node-b", "away"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, attach.Standalone())
			id := s.create("pvc-1").GetVolumeId()
			s.Users = func(context.Context, string) ([]string, error) { return c.users, c.err }
			publish := func(node string) error {
				req := publishRequest(id, node)
				req.VolumeCapability = raw(manyWrite)
				_, err := s.ControllerPublishVolume(t.Context(), req)
				return err
			}
			wants(t, publish("node-a"), codes.OK)
			err := publish("node-b")
			wants(t, err, c.code, c.words...)
			if n := len(err.Error()); n > 800 { // with the code, as the attacher has it
				t.Errorf("%d bytes: %v", n, err)
			}
		})
	}
}
