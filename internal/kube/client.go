// Package kube is the driver's only door to the Kubernetes API.
//
// It feeds the attachment ledger from four watches: VolumeAttachments say which
// volume is wanted on which node, PersistentVolumes say which volume handle is
// behind a name and on how many nodes it may be, Nodes say what kubelets have in
// use, CSINodes say how many volumes a node can hold. It keeps of them what the
// ledger needs and nothing else: no second cache, no managedFields.
//
// The ledger's argument (package attach) rests on two promises that are kept
// here, so the watches are client-go reflectors writing straight into the feed,
// without an informer's queue in between:
//
//   - Order. Of what one watch brings, what the API server wrote first is applied
//     first, also across objects. A reflector calls its store in exactly that order.
//   - No travel back in time. A reflector's first list asks for "any" version
//     (resourceVersion 0), which a lagging API server may answer from the past
//     (kubernetes/kubernetes#59848). Here it asks for the newest, a consistent
//     read; later lists are never older than what was seen.
//
// Nothing here waits for the API server before the process may serve: until all
// lists but that of CSINodes have come, the ledger is unknown, and it admits nothing;
// nor does it while the watch of Nodes is silent for minutes.
//
// Events tell users on their claims what they must know or do (Recorder). Of
// several controllers one leads (Client.Lead); a new leader reads everything anew,
// so that a hand-over is a restart.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// ErrNoCluster says that no kubeconfig was given and that the process does not
// run in a pod. The caller may then run without Kubernetes; any other error of
// New is a fault, and running without Kubernetes would hide it.
var ErrNoCluster = errors.New("no Kubernetes cluster is configured")

// Config of a Client.
type Config struct {
	Kubeconfig string                     // file; empty: the pod's own credentials
	DriverName string                     // our name in spec.attacher and spec.csi.driver
	Normalize  func(handle string) string // one spelling per volume; nil keeps handles as they are
	Logger     *slog.Logger

	// Published reads the volume's handle, the Node's UID, and as what the volume was
	// granted, out of what ControllerPublishVolume answered (status.attachmentMetadata);
	// each is empty when it is not there. The handle is needed when the PersistentVolume
	// is gone and was never seen. Nil: such a volume is counted by its
	// PersistentVolume's name, and nothing tells of grants.
	Published func(metadata map[string]string) (handle, nodeUID string, granted attach.Grant)
	// MigrationTimeout reads out of a PersistentVolume's attributes how long two nodes
	// may have it; zero: the ledger's default. Nil: always that.
	MigrationTimeout func(attributes map[string]string) time.Duration
}

// Client talks to one API server.
type Client struct {
	leadership

	api kubernetes.Interface
	cfg Config

	volumes  *volumes
	contacts map[string]*contact
	reading  reading
}

// New builds a client. It reads credentials, and does no other I/O.
func New(cfg Config) (*Client, error) {
	rc, err := restConfig(cfg.Kubeconfig)
	if err != nil {
		return nil, err
	}
	api, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	return NewFor(api, cfg), nil
}

// NewFor builds a client over a given clientset.
func NewFor(api kubernetes.Interface, cfg Config) *Client {
	if cfg.Normalize == nil {
		cfg.Normalize = func(handle string) string { return handle }
	}
	if cfg.Published == nil {
		cfg.Published = func(map[string]string) (string, string, attach.Grant) { return "", "", 0 }
	}
	if cfg.MigrationTimeout == nil {
		cfg.MigrationTimeout = func(map[string]string) time.Duration { return 0 }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Client{api: api, cfg: cfg, volumes: newVolumes(), contacts: newContacts()}
}

// restConfig leaves rest.Config.Timeout alone: it would cut watches as well. The
// calls have deadlines of their own; a connection that died silently is found by
// HTTP/2 pings within 45 s, and by the deadline of each watch otherwise.
func restConfig(kubeconfig string) (*rest.Config, error) {
	rc, err := credentials(kubeconfig)
	if err != nil {
		return nil, err
	}
	rc.QPS, rc.Burst = 50, 100
	rc.UserAgent = "rds-csi"
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	rc.AcceptContentTypes = rc.ContentType + ",application/json"
	return rc, nil
}

func credentials(kubeconfig string) (*rest.Config, error) {
	if kubeconfig != "" {
		rc, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
		}
		return rc, nil
	}
	rc, err := rest.InClusterConfig()
	switch {
	case errors.Is(err, rest.ErrNotInCluster):
		return nil, ErrNoCluster
	case err != nil:
		return nil, fmt.Errorf("the pod's credentials: %w", err)
	}
	return rc, nil
}

const (
	callLimit = 10 * time.Second // of one small request
	firstWait = 500 * time.Millisecond
	mostWait  = 8 * time.Second // between two attempts, whatever fails
)

// ClusterID is the UID of namespace kube-system, which lives as long as the
// cluster. It asks until it is answered or ctx ends.
func (c *Client) ClusterID(ctx context.Context) (string, error) {
	for wait := firstWait; ; wait = min(2*wait, mostWait) {
		id, err := c.clusterID(ctx)
		if err == nil {
			return id, nil
		}
		if wait == firstWait {
			c.cfg.Logger.WarnContext(ctx, "cannot read the cluster's identity yet, asking on", "err", err)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("uid of namespace kube-system: %w (last: %w)", context.Cause(ctx), err)
		case <-time.After(wait):
		}
	}
}

func (c *Client) clusterID(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	ns, err := c.api.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if ns.UID == "" {
		return "", errors.New("namespace kube-system has no uid")
	}
	return string(ns.UID), nil
}
