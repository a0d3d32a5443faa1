package attach

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// machine is a node as it is, and its Node object as the API server has it.
type machine struct {
	off     bool
	mounted map[string]bool
	hidden  map[string]bool // mounted, and kubelet does not name it any more
	wishes  map[string]bool // volumes of pods that wait
	object  *Node           // nil: deleted
	// quiet kubelets have registered and not written their volumes yet.
	quiet bool
}

// word is one line of the API server's log of Nodes.
type word struct {
	node Node
	gone bool
}

type kubelets struct {
	machines map[string]*machine
	words    []word
	heard    int             // lines that the ledger has seen
	heardAt  time.Time       // when it last saw any, or was told that there is none
	spoken   map[string]Node // the ledger's view
	objects  int
	fresh    map[string]bool // nodes made while this process listened, with nothing said yet
	tried    map[string]bool // pairs that were admitted since their word was heard to go, with nothing else unseen
	untold   map[string]bool // pairs mounted where nothing tells of it any more
	forced   map[string]bool // pairs that were detached by force or by hand, or whose Node was deleted
	wished   map[string]bool // pairs whose word this process saw come, and which were not tried then
}

func newKubelets(nodes []string) kubelets {
	k := kubelets{
		machines: map[string]*machine{}, spoken: map[string]Node{}, fresh: map[string]bool{},
		tried: map[string]bool{}, untold: map[string]bool{}, wished: map[string]bool{}, forced: map[string]bool{},
	}
	for _, name := range nodes {
		k.machines[name] = &machine{mounted: map[string]bool{}, hidden: map[string]bool{}, wishes: map[string]bool{}}
		k.register(name)
	}
	return k
}

func (k *kubelets) register(name string) {
	k.objects++
	m := k.machines[name]
	m.object, m.quiet = &Node{Name: name, UID: fmt.Sprint("node-", k.objects)}, true
	k.post(name)
}

// post appends a Node as it is to the log.
func (k *kubelets) post(name string) {
	n := *k.machines[name].object
	n.InUse = slices.Clone(n.InUse)
	k.words = append(k.words, word{node: n})
}

// say writes kubelet's volumes: all at once, and whoever waits as well as what is
// mounted.
func (k *kubelets) say(name string) {
	m := k.machines[name]
	if m.object == nil || m.off {
		return
	}
	all := maps.Clone(m.mounted)
	maps.DeleteFunc(all, func(volume string, _ bool) bool { return m.hidden[volume] })
	maps.Copy(all, m.wishes)
	m.object.InUse, m.quiet = slices.Sorted(maps.Keys(all)), false
	k.post(name)
}

// word says whether the API server has that the volume is in use there.
func (k *kubelets) word(node, volume string) bool {
	object := k.machines[node].object
	return object != nil && slices.Contains(object.InUse, volume)
}

func (m *model) draw(t *rapid.T) (node, volume string) {
	return rapid.SampledFrom(m.nodes).Draw(t, "node"), rapid.SampledFrom(slices.Sorted(maps.Keys(m.volumes))).Draw(t, "volume")
}

// Pod: a pod waits on a node; its kubelet says so before anything is attached.
func (m *model) Pod(t *rapid.T) {
	node, volume := m.draw(t)
	if k := m.machines[node]; !k.off && k.object != nil {
		k.wishes[volume] = true
		m.say(node)
	}
}

// Run is how it goes when all goes well: a pod waits, its volume is wanted,
// published, attached and mounted. What the ledger sees of it in time varies.
func (m *model) Run(t *rapid.T) {
	node, volume := m.draw(t)
	k := m.machines[node]
	if k.off || k.object == nil {
		return
	}
	k.wishes[volume] = true
	m.say(node)
	if m.api[volume+"@"+node] == nil {
		m.create(t, node, volume)
	}
	m.Flush(t)
	if rapid.Bool().Draw(t, "word is heard") {
		m.FlushNodes(t)
	}
	r := m.api[volume+"@"+node]
	if r.unpublished {
		return
	}
	m.publish(t, r, "attached")
	if r.Attached && !r.Deleting {
		m.mount(t, r)
	}
}

// Mount: kubelet mounts what it said and what is attached, and not about to be
// detached: the attach/detach controller takes it from status.volumesAttached
// first, and kubelet waits for no VolumeAttachment that is being deleted.
func (m *model) Mount(t *rapid.T) {
	r := m.pick(t, func(r *record) bool {
		return r.Attached && !r.Deleting && m.word(r.Node, r.Volume) && !m.machines[r.Node].off
	})
	if r != nil {
		m.mount(t, r)
	}
}

func (m *model) mount(t *rapid.T, r *record) {
	if !m.mountAs(t, r) {
		return
	}
	k := m.machines[r.Node]
	k.mounted[r.Volume] = true
	delete(k.hidden, r.Volume)
}

// KubeletRestart: kubelet finds its mounts, and those that are not attached to the
// node any more it names no more, mounted or not. It is the one silence that lies,
// and needs a detach by force, or by hand, before it (see checkMounted).
func (m *model) KubeletRestart(t *rapid.T) {
	name, _ := m.draw(t)
	k := m.machines[name]
	for volume := range k.mounted {
		r := m.api[volume+"@"+name]
		k.hidden[volume] = r == nil || !r.Attached || r.Deleting
	}
	m.say(name)
}

// PodGone: kubelet unmounts, and then says so.
func (m *model) PodGone(t *rapid.T) {
	node, volume := m.draw(t)
	m.gone(node, volume)
	m.say(node)
}

func (m *model) gone(node, volume string) {
	k := m.machines[node]
	delete(k.mounted, volume)
	delete(k.hidden, volume)
	delete(k.wishes, volume)
	delete(m.mounts, volume+"@"+node)
	delete(m.untold, volume+"@"+node)
	delete(m.forced, volume+"@"+node)
}

// ScaleDown leaves a volume to the pod of one node. That one gets it, whatever was
// between it and the others: the way out that a refusal names is one.
func (m *model) ScaleDown(t *rapid.T) {
	stays, volume := m.draw(t)
	own := m.api[volume+"@"+stays]
	if !m.synced || own == nil || own.Deleting {
		return
	}
	for _, name := range m.nodes {
		if name == stays {
			continue
		}
		m.gone(name, volume)
		m.say(name)
		if r := m.api[volume+"@"+name]; r != nil {
			m.detach(r)
		}
		if m.word(name, volume) && !m.machines[name].object.OutOfService {
			return // its machine is off
		}
	}
	m.Flush(t)
	m.FlushNodes(t)
	m.retryAll(t)
	if err := m.ledger.decide(volume, stays, m.volumes[volume], m.now); err != nil {
		t.Fatalf("%s is left to %s: %v", volume, stays, err)
	}
}

// Node: the machine goes off, boots, registers or writes its first status; or
// somebody deletes the Node object.
func (m *model) Node(t *rapid.T) {
	name, _ := m.draw(t)
	k := m.machines[name]
	switch what := rapid.SampledFrom([]string{"off", "boot", "delete", "status"}).Draw(t, "what"); {
	case what == "off" && !k.off:
		for volume := range m.volumes {
			m.gone(name, volume)
		}
		k.off = true
	case what == "boot" && k.off:
		k.off = false
		m.say(name)
	case what == "delete" && k.object != nil:
		m.words = append(m.words, word{node: *k.object, gone: true})
		k.object = nil
		for volume := range m.volumes {
			m.forced[volume+"@"+name] = true
		}
	case what == "status" && k.object == nil:
		m.register(name)
	case what == "status":
		m.say(name)
	}
}

// Admin taints a machine that is off for certain, and takes taints away at any time.
func (m *model) Admin(t *rapid.T) {
	name, _ := m.draw(t)
	k := m.machines[name]
	if k.object == nil || k.object.OutOfService == k.off {
		return
	}
	k.object.OutOfService = k.off
	m.post(name)
}

// DeliverWords lets the ledger see some more of the Nodes, some twice.
func (m *model) DeliverWords(t *rapid.T) {
	twice := rapid.Bool().Draw(t, "twice")
	for range rapid.IntRange(1, 4).Draw(t, "words") {
		if m.synced && m.heard < len(m.words) {
			m.hear()
			if twice {
				m.tell(m.words[m.heard-1])
			}
		}
	}
}

// FlushNodes lets the ledger see all that was written of Nodes.
func (m *model) FlushNodes(*rapid.T) {
	for m.synced && m.heard < len(m.words) {
		m.hear()
	}
	if m.synced {
		m.contact()
	}
}

// contact: the watch of Nodes gave something, and be it a bookmark.
func (m *model) contact() {
	m.heardAt = m.now
	m.ledger.NodesHeard(m.now)
}

// deaf says whether the ledger may not trust what it heard of Nodes.
func (m *model) deaf() bool { return m.now.Sub(m.heardAt) > nodesPatience }

func (m *model) hear() {
	w := m.words[m.heard]
	m.heard++
	m.note(w)
	m.tell(w)
	m.contact()
}

func (m *model) tell(w word) {
	if w.gone {
		m.ledger.RemoveNode(w.node.Name)
		return
	}
	m.ledger.UpsertNode(w.node)
}

// RelistNodes replaces what was heard by a list that is not older.
func (m *model) RelistNodes(t *rapid.T) {
	if m.synced {
		m.listNodes(t, rapid.IntRange(m.heard, len(m.words)).Draw(t, "nodes at"))
	}
}

func (m *model) listNodes(t *rapid.T, upTo int) {
	now := map[string]Node{}
	for _, w := range m.words[:upTo] {
		now[w.node.Name] = w.node
		if w.gone {
			delete(now, w.node.Name)
		}
	}
	m.heard = upTo
	for _, name := range m.nodes {
		n, there := now[name]
		if m.synced && (there || m.spoken[name].Name != "") {
			m.note(word{node: cmpNode(n, name), gone: !there})
		}
	}
	m.spoken = now
	list := make([]Node, 0, len(now))
	for _, name := range m.nodes {
		if n, ok := now[name]; ok {
			list = append(list, n)
		}
	}
	m.ledger.ReplaceNodes(rapid.Permutation(list).Draw(t, "order of nodes"))
	m.contact()
}

func cmpNode(n Node, name string) Node {
	n.Name = name
	return n
}

// note is the reference for what a word means: one that came while this process
// listened, to a Node that it knew, for what was not tried, is a wish; when a
// VolumeAttachment is there this reference takes no side.
func (m *model) note(w word) {
	old, known := m.spoken[w.node.Name]
	known = known && old.UID == w.node.UID
	for volume := range m.volumes {
		pair := volume + "@" + w.node.Name
		before, now := known && slices.Contains(old.InUse, volume), !w.gone && slices.Contains(w.node.InUse, volume)
		switch {
		case !now:
			delete(m.wished, pair)
			if before && m.seen == len(m.log) {
				delete(m.tried, pair)
			}
		case !before:
			m.wished[pair] = known && !m.fresh[w.node.Name] && !m.tried[pair] && !m.asked(pair)
		}
	}
	if w.gone {
		delete(m.spoken, w.node.Name)
		return
	}
	m.fresh[w.node.Name] = (!known || m.fresh[w.node.Name]) && len(w.node.InUse) == 0
	m.spoken[w.node.Name] = w.node
}

// asked says whether there is a VolumeAttachment, or the ledger still sees one.
func (m *model) asked(pair string) bool {
	for _, a := range m.view {
		if a.Volume+"@"+a.Node == pair {
			return true
		}
	}
	return m.api[pair] != nil
}

// forget is what a restart does to the reference.
func (m *model) forget() {
	m.fresh, m.wished, m.heard, m.spoken = map[string]bool{}, map[string]bool{}, 0, map[string]Node{}
}
