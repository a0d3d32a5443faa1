// Package sanity runs csi-sanity, the conformance suite of the CSI project, against the driver: on the host over a
// simulated RDS with a node whose kernel is in memory, and in the guest with the real one (test/kernel).
//
// A suite can pass because it skips. So the specs that it skips are compared with a list, each entry of which is a line of
// docs/limits.md; one spec more or less fails the test.
package sanity

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
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
	AccessType string // "block" for raw block volumes; a file system otherwise
	// Topology says which nodes reach the RDS; the same as in Controller and Node.
	Topology driver.Topology
	// Cannot is what this RDS cannot do, whatever the driver does.
	Cannot []Gap
}

const (
	// DriverName is what Identity says.
	DriverName = "rds.csi.srvlab.io"
	// MaxVolumes is how many volumes the node is to say that it can hold, and the controller is to heed: no spec attaches more
	// at once but the one that is about this number.
	MaxVolumes = 4
)

// Run runs the whole suite. It can be called once per process: Ginkgo has one suite.
func Run(t *testing.T, d Driver) {
	t.Helper()
	sockets := t.TempDir()
	d.serve(t, filepath.Join(sockets, "controller.sock"), &driver.Server{Controller: d.Controller})
	d.serve(t, filepath.Join(sockets, "node.sock"), &driver.Server{Node: d.Node, NodeID: d.NodeID})

	cluster := &attachDetach{ledger: d.Ledger, node: d.NodeID, objects: map[string]attach.Attachment{}}
	d.Ledger.Replace(nil)
	d.Ledger.ReplaceNodes(nil)
	d.Ledger.ReplaceLimits(map[string]int{d.NodeID: MaxVolumes}) // as its CSINode would
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
	config.TestNodeVolumeAttachLimit = true

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
	for _, spec := range skip(d.Cannot) {
		suiteConfig.SkipStrings = append(suiteConfig.SkipStrings, regexp.QuoteMeta(spec))
	}
	reporter.NoColor, reporter.Succinct = true, true
	ginkgo.RunSpecs(t, "csi-sanity", suiteConfig, reporter)
	t.Logf(summary+"%d specs passed, %d did not run", passed, len(left))
	for _, wrong := range differences(passed, left, append(Gaps(), d.Cannot...)) {
		t.Error(wrong)
	}
	if n := len(cluster.objects); n != 0 {
		t.Errorf("%d volumes are still attached", n)
	}
}

// GinkgoLeaves is the one goroutine that Ginkgo does not end: it listens for signals.
func GinkgoLeaves() goleak.Option {
	return goleak.IgnoreAnyFunction("github.com/onsi/ginkgo/v2/internal/interrupt_handler.(*InterruptHandler).registerForInterrupts.func2")
}

// serve serves until the test ends.
func (d Driver) serve(t *testing.T, path string, s *driver.Server) {
	t.Helper()
	s.Identity = &driver.Identity{Name: DriverName, Version: "test", Ready: func(context.Context) error { return nil }, Topology: d.Topology}
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
