// Package sanity runs csi-sanity, the conformance suite of the CSI project, against the driver: on the host over a
// simulated RDS with a node whose kernel is in memory, and in the guest with the real one (test/kernel).
//
// A suite can pass because it skips. So the specs that it skips are compared with a list: exactly those of capabilities
// that the driver does not advertise.
package sanity

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	suite "github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/driver"
)

// Driver is what is tested: both services, served on two sockets as in a cluster.
type Driver struct {
	Controller *driver.Controller
	Node       *driver.Node
	NodeID     string
	Ledger     *attach.Ledger
	Dir        string // where volumes are mounted; it exists
	VolumeSize int64
	AccessType string // "block", or a file system
	// AttachLimit says that the node tells how many volumes it can hold, and the controller heeds the same number.
	AttachLimit bool
	// Cannot are specs of what this RDS cannot do, whatever the driver does.
	Cannot []string
}

// Run runs the whole suite. It can be called once per process: Ginkgo has one suite.
func Run(t *testing.T, d Driver) {
	t.Helper()
	sockets := t.TempDir()
	serve(t, filepath.Join(sockets, "controller.sock"), &driver.Server{Controller: d.Controller})
	serve(t, filepath.Join(sockets, "node.sock"), &driver.Server{Node: d.Node, NodeID: d.NodeID})

	cluster := &attachDetach{ledger: d.Ledger, node: d.NodeID, objects: map[string]attach.Attachment{}}
	d.Ledger.Replace(nil)
	d.Ledger.ReplaceNodes(nil)
	config := suite.NewTestConfig()
	config.Address = "unix:" + filepath.Join(sockets, "node.sock")
	config.ControllerAddress = "unix:" + filepath.Join(sockets, "controller.sock")
	config.ControllerDialOptions = []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithChainUnaryInterceptor(cluster.intercept, patience),
	}
	config.TargetPath, config.StagingPath = filepath.Join(d.Dir, "target"), filepath.Join(d.Dir, "staging")
	config.TestVolumeSize = d.VolumeSize
	config.TestVolumeExpandSize = 2 * d.VolumeSize
	config.TestVolumeAccessType = d.AccessType
	config.TestNodeVolumeAttachLimit = d.AttachLimit
	if !d.AttachLimit {
		d.Cannot = append(d.Cannot, "Controller Service [Controller Server] ControllerPublishVolume should fail when publishing more volumes than the node max attach limit")
	}

	tests := suite.GinkgoTest(&config)
	defer tests.Finalize()
	gomega.RegisterFailHandler(ginkgo.Fail)
	var passed int
	var left []string
	ginkgo.ReportAfterSuite("what did not run", func(report ginkgo.Report) {
		for _, spec := range report.SpecReports.WithLeafNodeType(types.NodeTypeIt) {
			if spec.State.Is(types.SpecStatePassed) {
				passed++
			} else {
				left = append(left, strings.TrimSpace(spec.State.String()+": "+spec.FullText()))
			}
		}
	})
	suiteConfig, reporter := ginkgo.GinkgoConfiguration()
	for _, spec := range d.Cannot {
		suiteConfig.SkipStrings = append(suiteConfig.SkipStrings, regexp.QuoteMeta(spec))
	}
	reporter.NoColor, reporter.Succinct = true, true
	ginkgo.RunSpecs(t, "csi-sanity", suiteConfig, reporter)
	compare(t, passed, left, d.Cannot)
	if n := len(cluster.objects); n != 0 {
		t.Errorf("%d volumes are still attached", n)
	}
}

// GinkgoLeaves is the one goroutine that Ginkgo does not end: it listens for signals.
func GinkgoLeaves() goleak.Option {
	return goleak.IgnoreAnyFunction("github.com/onsi/ginkgo/v2/internal/interrupt_handler.(*InterruptHandler).registerForInterrupts.func2")
}

// compare fails when something was skipped that need not be, and when the list names what runs by now.
func compare(t *testing.T, passed int, left, cannot []string) {
	t.Helper()
	t.Logf("csi-sanity: %d specs passed, %d are of capabilities that are not advertised", passed, len(left))
	want := NotAdvertised()
	for _, spec := range cannot {
		want = append(want, "skipped: "+spec)
	}
	for _, spec := range left {
		if !slices.Contains(want, spec) {
			t.Errorf("did not run, and should: %s", spec)
		}
	}
	for _, spec := range want {
		if !slices.Contains(left, spec) {
			t.Errorf("is in the list of what does not run, and ran, or is no spec: %s", spec)
		}
	}
}

// serve serves until the test ends.
func serve(t *testing.T, path string, s *driver.Server) {
	t.Helper()
	s.Identity = &driver.Identity{Name: "rds.csi.srvlab.io", Version: "test", Ready: func(context.Context) error { return nil }}
	s.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	listener, err := driver.Listen(t.Context(), "unix://"+path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// patience is that of external-provisioner and external-snapshotter: a pool that copies takes its time, so they ask again while
// the answer is Aborted, or a snapshot is not ready. The suite asks once.
func patience(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, longestCopy)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := invoke(ctx, method, req, reply, conn, opts...)
		if !underWay(req, reply, err) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

const longestCopy = 30 * time.Second

func underWay(req, reply any, err error) bool {
	switch r := req.(type) {
	case *csi.CreateVolumeRequest:
		return r.GetVolumeContentSource() != nil && status.Code(err) == codes.Aborted
	case *csi.CreateSnapshotRequest:
		made, _ := reply.(*csi.CreateSnapshotResponse)
		return err == nil && !made.GetSnapshot().GetReadyToUse()
	}
	return false
}

// attachDetach plays what stands between a pod and ControllerPublishVolume in Kubernetes: it makes a VolumeAttachment
// before the call, marks it attached after, and removes it once the volume is detached. For a node that does not exist
// Kubernetes makes none.
type attachDetach struct {
	ledger *attach.Ledger
	node   string

	mu      sync.Mutex
	n       int
	objects map[string]attach.Attachment // by volume
}

func (a *attachDetach) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	switch r := req.(type) {
	case *csi.ControllerPublishVolumeRequest:
		if r.GetNodeId() != a.node {
			break
		}
		object := a.wish(canonical(r.GetVolumeId()))
		err := invoke(ctx, method, req, reply, conn, opts...)
		if object.Attached = err == nil; object.Attached {
			a.ledger.Upsert(object)
		} else {
			a.drop(object.Volume)
		}
		return err
	case *csi.ControllerUnpublishVolumeRequest:
		err := invoke(ctx, method, req, reply, conn, opts...)
		if err == nil {
			a.drop(canonical(r.GetVolumeId()))
		}
		return err
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}

// wish makes the VolumeAttachment, or finds it.
func (a *attachDetach) wish(volume string) attach.Attachment {
	a.mu.Lock()
	defer a.mu.Unlock()
	object, ok := a.objects[volume]
	if !ok {
		a.n++
		object = attach.Attachment{
			UID: fmt.Sprint("uid-", a.n), Name: "csi-" + volume, Volume: volume, Node: a.node,
			Created: time.Now().Truncate(time.Second),
		}
		a.objects[volume] = object
		a.ledger.Upsert(object)
	}
	return object
}

func (a *attachDetach) drop(volume string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if object, ok := a.objects[volume]; ok {
		a.ledger.Remove(object.UID)
		delete(a.objects, volume)
	}
}
