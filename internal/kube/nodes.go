package kube

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/rds-csi/rds-csi/internal/attach"
)

// spoken is what a Node said last, kept to compare: kubelets write their status
// every few minutes and with every change of theirs, and hardly any concerns us.
type spoken struct {
	uid          string
	outOfService bool
	words        []string // handles in status.volumesInUse, as they are written there
}

// nodes passes on what Nodes say of this driver's volumes. Only the reflector
// that feeds it calls it.
type nodes struct {
	prefix    string // of this driver's volumes in status.volumesInUse
	normalize func(string) string
	ledger    NodeLedger
	synced    func()
	last      map[string]spoken // nil before the first list
}

func newNodes(cfg Config, ledger NodeLedger, synced func()) *nodes {
	return &nodes{prefix: "kubernetes.io/csi/" + cfg.DriverName + "^", normalize: cfg.Normalize, ledger: ledger, synced: synced}
}

func (n *nodes) set(node *corev1.Node) {
	if old, ok := n.last[node.Name]; ok && n.same(old, node) {
		return
	}
	n.last[node.Name] = n.hear(node)
	n.ledger.UpsertNode(n.node(node))
}

func (n *nodes) drop(node *corev1.Node) {
	delete(n.last, node.Name)
	n.ledger.RemoveNode(node.Name)
}

func (n *nodes) replace(list []*corev1.Node) {
	first := n.last == nil
	n.last = make(map[string]spoken, len(list))
	all := make([]attach.Node, 0, len(list))
	for _, node := range list {
		n.last[node.Name] = n.hear(node)
		all = append(all, n.node(node))
	}
	n.ledger.ReplaceNodes(all)
	if first {
		n.synced()
	}
}

// same compares without making anything: it runs for every heartbeat. kubelet
// sorts its list.
func (n *nodes) same(old spoken, node *corev1.Node) bool {
	if old.uid != string(node.UID) || old.outOfService != outOfService(node) {
		return false
	}
	i := 0
	for _, name := range node.Status.VolumesInUse {
		word, ours := strings.CutPrefix(string(name), n.prefix)
		switch {
		case !ours:
		case i == len(old.words) || old.words[i] != word:
			return false
		default:
			i++
		}
	}
	return i == len(old.words)
}

func (n *nodes) hear(node *corev1.Node) spoken {
	s := spoken{uid: string(node.UID), outOfService: outOfService(node)}
	for _, name := range node.Status.VolumesInUse {
		if word, ours := strings.CutPrefix(string(name), n.prefix); ours {
			s.words = append(s.words, word)
		}
	}
	return s
}

// node strips a Node down to what the ledger needs.
func (n *nodes) node(node *corev1.Node) attach.Node {
	s := n.last[node.Name]
	out := attach.Node{Name: node.Name, UID: s.uid, OutOfService: s.outOfService, Created: node.CreationTimestamp.Time}
	for _, word := range s.words {
		out.InUse = append(out.InUse, n.normalize(word))
	}
	return out
}

// outOfService reads the taint as the attach/detach controller does: by its key.
func outOfService(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}
