package driver

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// Topology says which nodes reach which RDS. The zero value is the usual case: every node reaches every RDS, and Kubernetes
// is told nothing about it.
//
// Every node announces one key for each RDS that is not reached by all, with "true" or "false". A value for both cases, and not
// the key alone where it is reached, because external-provisioner takes the keys of one node for those of all. A node may
// reach several RDSs, which one key with the name of a zone could not say.
type Topology struct {
	Driver string              // its name is the prefix of the keys
	Nodes  map[string][]string // by RDS: names of nodes, or patterns of path.Match; an RDS that is not here is reached by all
}

const (
	reached    = "true"
	notReached = "false"
)

// constrained says whether there is an RDS that some node does not reach.
func (t Topology) constrained() bool { return len(t.Nodes) > 0 }

func (t Topology) key(rds string) string { return t.Driver + "/reaches-" + rds }

// Reaches says whether a node reaches an RDS.
func (t Topology) Reaches(node, rds string) bool {
	patterns, limited := t.Nodes[rds]
	return !limited || slices.ContainsFunc(patterns, func(p string) bool { match, err := path.Match(p, node); return match && err == nil })
}

// announced is what a node tells of itself; nil when there is nothing to tell.
func (t Topology) announced(node string) *csi.Topology {
	if !t.constrained() {
		return nil
	}
	segments := map[string]string{}
	for rds := range t.Nodes {
		segments[t.key(rds)] = notReached
		if t.Reaches(node, rds) {
			segments[t.key(rds)] = reached
		}
	}
	return &csi.Topology{Segments: segments}
}

// accessible is from where a volume of the RDS can be used; nil: from everywhere.
func (t Topology) accessible(rds string) []*csi.Topology {
	if _, limited := t.Nodes[rds]; !limited {
		return nil
	}
	return []*csi.Topology{{Segments: map[string]string{t.key(rds): reached}}}
}

// within says whether an RDS is reached from all that a term describes; a nil term describes nothing in particular.
func (t Topology) within(term *csi.Topology, rds string) bool {
	_, limited := t.Nodes[rds]
	return !limited || term == nil || term.GetSegments()[t.key(rds)] == reached
}

// choose picks the RDS for a volume: of those allowed, the first that is reached from the most preferred place. The list of
// preferred places begins with the node that the scheduler chose, if it has.
func (t Topology) choose(allowed []string, want *csi.TopologyRequirement) (string, error) {
	terms := slices.Concat(want.GetPreferred(), want.GetRequisite())
	if !t.constrained() || len(terms) == 0 {
		return allowed[0], nil
	}
	for _, term := range terms {
		for _, rds := range allowed {
			if t.within(term, rds) {
				return rds, nil
			}
		}
	}
	return "", refuse(codes.ResourceExhausted, "no RDS that may hold the volume (%s) is reached from where it is needed (%s): see topology in the configuration, and the parameter rds of the StorageClass",
		strings.Join(allowed, ", "), describe(terms))
}

// describe is for messages.
func describe(terms []*csi.Topology) string {
	all := make([]string, 0, len(terms))
	for _, term := range terms {
		pairs := make([]string, 0, len(term.GetSegments()))
		for _, key := range slices.Sorted(maps.Keys(term.GetSegments())) {
			pairs = append(pairs, key+"="+term.GetSegments()[key])
		}
		all = append(all, strings.Join(pairs, ","))
	}
	return strings.Join(slices.Compact(all), "; ")
}

// allowed are the RDSs that a volume may be on, the most wanted first: the one asked for, or else the default one, and the
// others after it where nodes differ in what they reach.
func (c *Controller) allowed(fleet *Fleet, asked string) []string {
	if asked != "" || !c.Topology.constrained() {
		return []string{cmp.Or(asked, c.defaultRDS)}
	}
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(fleet.Appliances)), func(rds string) bool { return rds == c.defaultRDS })
	return append([]string{c.defaultRDS}, others...)
}

// place decides on which RDS a volume goes.
func (c *Controller) place(asked string, want *csi.TopologyRequirement) (*Fleet, Appliance, string, error) {
	fleet := c.fleet.Load()
	if fleet == nil {
		return nil, nil, "", c.Ready()
	}
	rds, err := c.Topology.choose(c.allowed(fleet, asked), want)
	if err != nil {
		return nil, nil, "", err
	}
	return c.appliance(rds)
}

// checkReach refuses an attach that could only end in a connection that is never made. It comes after the ledger, which knows
// whether there is such a node, and looks whether there is such a volume: NotFound is what CSI wants
// of either. Nothing on the RDS is changed for a node that has no use for it.
func (c *Controller) checkReach(ctx context.Context, rds Appliance, id appliance.ID, node string) error {
	if c.Topology.Reaches(node, id.RDS) {
		return nil
	}
	if _, err := rds.Get(ctx, id.Slot); err != nil {
		return err
	}
	return refuse(codes.FailedPrecondition, "volume %s: node %s does not reach rds %s, says topology in the configuration: let the pod run elsewhere (a node affinity), or correct the configuration",
		id.Key(), node, id.RDS)
}
