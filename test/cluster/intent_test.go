//go:build cluster

package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a leader admitted, and nobody wrote down yet, its successor does not know. It decides by the VolumeAttachments
// alone, and lets the other node in as little. Who has seen which of the two came first goes on with that one; who finds
// both, made within ten seconds, in its first list, refuses both until one of them is gone.
func TestHandOverLosesNoIntent(t *testing.T) {
	t.Parallel()
	i := newInstallation(t, unsupervised)
	a, b := i.node("a"), i.node("b")
	watched := i.claims(1)[0]
	one, two := i.replica, i.newReplica("-two")
	one.stopSidecar("csi-attacher") // nothing is written down
	found := i.admittedAtOnce(a, b)
	two.startController()
	two.awaitNote("standby, controller leads")
	i.admitAndRefuse(watched, a, b)

	one.die()
	f := two.follow()
	f.await(t, gauge, "0")
	// Each of the four may have been granted before, as far as two can know, until somebody asks for it again.
	for _, v := range []*corev1.PersistentVolume{found, watched} {
		for _, node := range []string{a, b} {
			_ = two.ask(v, node) // the answers that count are those below
		}
	}
	two.awaitAnswer(watched, b, codes.FailedPrecondition, a)
	two.awaitAnswer(watched, a, codes.OK)
	two.awaitAnswer(watched, b, codes.FailedPrecondition, a)
	two.awaitAnswer(found, b, codes.FailedPrecondition, a)
	two.awaitAnswer(found, a, codes.FailedPrecondition, b)

	two.startSidecars()
	i.awaitAttached(attachmentName(watched, a))
	i.awaitRefused(attachmentName(watched, b), b, a)
	i.awaitRefused(attachmentName(found, b), b, a)
	i.awaitRefused(attachmentName(found, a), a, b)
	i.detach(attachmentName(found, b))
	i.awaitAttached(attachmentName(found, a))
	f.await(t, gauge, "2")
	f.only(t, gauge, "0", "1", "2")
}

// admittedAtOnce does as admitAndRefuse with a volume whose two VolumeAttachments were made well within the ten seconds, by
// the API server's stamps: on a busy machine it may take more than one.
func (i *installation) admittedAtOnce(node, other string) *corev1.PersistentVolume {
	i.t.Helper()
	for try := range 10 {
		v := i.claimsNamed(fmt.Sprint("found-", try), 1)[0]
		i.admitAndRefuse(v, node, other)
		first, second := attachmentName(v, node), attachmentName(v, other)
		apart := i.created(second).Sub(i.created(first))
		if apart <= 8*time.Second {
			return v
		}
		i.t.Logf("the two of volume %s are %s apart", v.Name, apart)
		i.detach(first)
		i.detach(second)
		i.awaitGone(first, second)
	}
	i.t.Fatal("this machine is too slow to make two VolumeAttachments within 8 s")
	return nil
}

func (i *installation) created(attachment string) time.Time {
	i.t.Helper()
	a, err := plane.Admin.StorageV1().VolumeAttachments().Get(i.t.Context(), attachment, metav1.GetOptions{})
	i.must(err)
	return a.CreationTimestamp.Time
}

// admitAndRefuse has the leader admit one node, which stays in its memory, and refuse another one.
func (i *installation) admitAndRefuse(v *corev1.PersistentVolume, node, other string) {
	i.t.Helper()
	i.attach(v, node)
	i.awaitAnswer(v, node, codes.OK)
	i.attach(v, other)
	i.awaitAnswer(v, other, codes.FailedPrecondition, node)
}

// ask asks the controller as external-attacher does.
func (r *replica) ask(v *corev1.PersistentVolume, node string) error {
	i := r.of
	i.t.Helper()
	connection, err := grpc.NewClient("unix://"+r.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	i.must(err)
	defer func() { _ = connection.Close() }()
	ctx, cancel := context.WithTimeout(i.t.Context(), patience)
	defer cancel()
	_, err = csi.NewControllerClient(connection).ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: v.Spec.CSI.VolumeHandle, NodeId: node, VolumeContext: v.Spec.CSI.VolumeAttributes,
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
		},
	})
	return err
}

// awaitAnswer asks again for as long as the controller has not seen the VolumeAttachment, and asserts what it answers then.
func (r *replica) awaitAnswer(v *corev1.PersistentVolume, node string, want codes.Code, words ...string) {
	i := r.of
	i.t.Helper()
	i.poll("volume "+v.Name+" is asked for on node "+node, r.controller, func(context.Context) error {
		err := r.ask(v, node)
		switch code := status.Code(err); {
		case code == codes.NotFound, code == codes.Unavailable:
			return err
		case code != want, !containsAll(fmt.Sprint(err), words):
			i.t.Fatalf("volume %s for node %s: %v, want %s with %q", v.Name, node, err, want, words)
		}
		return nil
	})
}
