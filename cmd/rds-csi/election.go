package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"os"
	"strings"

	"github.com/rds-csi/rds-csi/internal/driver"
	"github.com/rds-csi/rds-csi/internal/kube"
	"github.com/rds-csi/rds-csi/internal/metrics"
)

// ownNamespace is where a pod finds the name of its namespace.
const ownNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// election says whether one of several controllers is to lead, and by which name this one stands.
type election struct {
	wanted              bool
	namespace, identity string
}

func (e *election) flags(set *flag.FlagSet) {
	set.BoolVar(&e.wanted, "leader-election", false, "let one of several controllers lead")
	set.StringVar(&e.namespace, "leader-election-namespace", "", "`namespace` of the Lease; the pod's own by default")
	set.StringVar(&e.identity, "leader-election-identity", "", "`name` of this candidate, unlike that of any other; the host name by default, which in a pod is the pod's")
}

// complete fills in what the flags left out. The identity has nothing random: a restarted container takes its own Lease
// over at once.
func (e *election) complete() {
	if !e.wanted {
		return
	}
	if text, err := os.ReadFile(ownNamespace); err == nil && e.namespace == "" {
		e.namespace = strings.TrimSpace(string(text))
	}
	if name, err := os.Hostname(); err == nil {
		e.identity = cmp.Or(e.identity, name)
	}
}

func (e *election) check() error {
	switch {
	case e.wanted && e.namespace == "":
		return usageErrorf("--leader-election-namespace is required outside a pod")
	case e.wanted && e.identity == "":
		return usageErrorf("--leader-election-identity is required: this host has no name")
	}
	return nil
}

// leadership is what a controller knows of who leads; without election it leads.
type leadership struct {
	election

	client *kube.Client
	lease  string
}

// newLeadership makes everything that asks who leads ask the Lease.
func newLeadership(e election, c cluster, driverName string, registry *metrics.Registry) (leadership, error) {
	l := leadership{election: e, client: c.client, lease: driverName + "-controller"}
	if !e.wanted {
		return l, nil
	}
	return l, metrics.Leader(registry, c.client.Leading)
}

// ask answers an error on a standby, which names the leader. It reads memory.
func (l leadership) ask() error {
	if !l.wanted || l.client.Leading() {
		return nil
	}
	return driver.Standby(l.client.Holder())
}

// note is what /readyz says of a standby beside "ok".
func (l leadership) note() string {
	if !l.wanted || l.client.Leading() {
		return ""
	}
	if leader := l.client.Holder(); leader != "" {
		return "standby, " + leader + " leads"
	}
	return "standby, nobody leads yet"
}

// run runs led while this process leads, which without election is always. It returns nil when ctx has ended, and
// otherwise what ended the leadership: a controller that lost it must not go on.
func (l leadership) run(ctx context.Context, led func(context.Context) error) error {
	if !l.wanted {
		return ignoreEnd(ctx, led(ctx))
	}
	return ignoreEnd(ctx, l.client.Lead(ctx, kube.LeadConfig{Namespace: l.namespace, Name: l.lease, Identity: l.identity}, led))
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, kube.ErrLeadershipLost) {
		return nil
	}
	return err
}
