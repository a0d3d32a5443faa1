package kube

import (
	"slices"

	storagev1 "k8s.io/api/storage/v1"
)

// LimitLedger is fed how many volumes of this driver each node can hold.
type LimitLedger interface {
	ReplaceLimits(byNode map[string]int)  // the whole truth, after each list
	UpsertLimit(node string, volumes int) // one node says a number, maybe another one than before
	RemoveLimit(node string)              // one node says none any more
}

// csiNodes passes on what CSINodes say of this driver. kubelet writes there what the
// node plugin answers to NodeGetInfo, when the plugin registers and when Kubernetes
// asks again (KEP-4876). Like everything that kubelet writes of itself it is named
// as the Node is. It is written so rarely that nothing is kept to compare.
type csiNodes struct {
	driver string
	ledger LimitLedger
}

func (c csiNodes) set(node *storagev1.CSINode) {
	if volumes, told := c.limit(node); told {
		c.ledger.UpsertLimit(node.Name, volumes)
		return
	}
	c.ledger.RemoveLimit(node.Name)
}

func (c csiNodes) drop(node *storagev1.CSINode) { c.ledger.RemoveLimit(node.Name) }

func (c csiNodes) replace(list []*storagev1.CSINode) {
	byNode := make(map[string]int, len(list))
	for _, node := range list {
		if volumes, told := c.limit(node); told {
			byNode[node.Name] = volumes
		}
	}
	c.ledger.ReplaceLimits(byNode)
}

// limit is what the node says of this driver. Without the driver, or without a number,
// the scheduler takes the node for unlimited as well; 0 is a number.
func (c csiNodes) limit(node *storagev1.CSINode) (volumes int, told bool) {
	i := slices.IndexFunc(node.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == c.driver })
	if i < 0 {
		return 0, false
	}
	allocatable := node.Spec.Drivers[i].Allocatable
	if allocatable == nil || allocatable.Count == nil {
		return 0, false
	}
	return int(*allocatable.Count), true
}
