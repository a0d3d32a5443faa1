// Package attach is the attachment ledger: it decides which node may have which
// volume, counts the attached volumes, and knows which of them migrate. It is
// pure: events and questions go in, decisions come out. It does no I/O, has no
// clock, and keeps nothing that cannot be rebuilt in one call from its
// authorities: the VolumeAttachment objects of Kubernetes, the PersistentVolumes
// as far as they say on how many nodes a volume may be, and the Nodes as far as
// kubelets and administrators speak in them of volumes.
//
// # The decision
//
// A publish of volume V to node N at a time is admitted when
//
//  1. VolumeAttachments and Nodes were read, and the watch of Nodes gave something
//     within the last three minutes (else ErrUnknown),
//  2. a VolumeAttachment of V and N is visible that is not being deleted and
//     was not unpublished since (else ErrNotSeen: the attacher asks again),
//  3. of every other node's VolumeAttachment of V it is known whether it was
//     granted, and as what (else ErrUnknown: the attacher asks again),
//  4. fewer than V's limit of other nodes are ahead of N or have V mounted, and
//     fewer than that limit hold V or have it mounted (else ConflictError, which
//     names them),
//  5. the time of V's migration is not over (else MigrationExpiredError), and
//  6. fewer volumes are attached to N or admitted there than N's CSINode lets it
//     have, V not counted (else FullError).
//
// The limit is one node, or two when the caller and every VolumeAttachment of V
// say MultiNode. What a VolumeAttachment says of that comes from its
// PersistentVolume and from what it was granted, so a caller can ask for less, and
// never for more.
//
// Another node is ahead when one of its VolumeAttachments of V says attached, or
// was made before N's, or so close to it that API servers with different clocks
// could have stamped the two in the wrong order (Options.ClockSkew). Such a tie
// is broken when we saw N's arrive before the other's.
//
// Another node holds V when one of its VolumeAttachments says attached, or when
// this process admitted it (an intent).
//
// Another node has V mounted when its kubelet says so, more or less: see below.
//
// When N's own VolumeAttachment says attached already, only other attached nodes
// are in its way, and it is no matter how old the words of kubelets are, nor what is
// not known of others: to repeat what was done changes nothing.
//
// There is no grace period: nothing becomes allowed because time went by (B3
// of the driver before this one was exactly that). A VolumeAttachment in the
// way, attached or not, is in the way until it is gone, and a kubelet's word until
// kubelet, or the administrator, takes it back. Refusing is recoverable, two
// writers are not.
//
// # How many volumes a node has
//
// Rule 6 is the only one that is about other volumes, and the only one that protects
// no data: it keeps a node from connections that it has no room for. Its limit is what
// the CSINode says now, which is what the scheduler goes by. A node of which none is
// known is not limited, nor is any while CSINodes cannot be read: then the scheduler's
// word stands, as it did before this rule. What a node has it is never refused, also
// when its number went down since.
//
// It counts what is attached, and, since many may ask at the same moment, what this
// process admitted. A restart forgets the latter, as ever, so that a node may then get
// as many volumes too many as were granted and not confirmed at that moment. Not
// counted is what only a kubelet's word puts on the node, nor what waits.
//
// # What was granted
//
// The access modes of a PersistentVolume can be changed at any time, attached or not
// (its source and its volumeMode cannot [S]). They say what the next publish asks for.
// On how many nodes the volume may be now depends on what its nodes were granted
// before: one that writes goes on writing, whatever is written into the
// PersistentVolume. So an admission comes with a Grant, the mode in which it was asked
// for. The caller puts it into the publish context, external-attacher writes that into
// the VolumeAttachment with the same stroke as status.attached [S], and from there it
// is read, by this process and by any other. A VolumeAttachment then says what its
// PersistentVolume and its Grant agree on (Mode.And):
//
//   - granted to one writer, and ReadOnlyMany since: a single node. Nobody joins it;
//   - granted to one writer, and ReadWriteMany since: a single node as well;
//   - granted to a reader, and ReadWriteOnce since: a single node. The readers that are
//     there stay, and no other reader and no writer joins them.
//
// So a new access mode counts when what was attached under the old one is gone. The
// grant of a VolumeAttachment that is attached stands: a publish that is repeated, in
// whichever mode, is answered what it says, for it is the record of what was mounted.
// The node plugin keeps to it too, and mounts nothing for writing that was granted to a
// reader: what kubelet asks for comes from the PersistentVolume.
//
// A VolumeAttachment that is attached and tells nothing was granted by another driver,
// or by this one before it kept grants. There the PersistentVolume speaks, but for one
// thing: it makes no reader of it. One that was attached to write, and is taken for a
// reader, lets others read what it is writing; one that reads, and is taken for a
// writer, keeps others waiting until it is detached, once. It is believed when it says
// ReadWriteMany: to doubt that would end the migrations of all virtual machines that
// run while the driver is brought up to date, and whether they share is asked elsewhere.
//
// From the admission until the VolumeAttachment says attached, the grant is in the
// memory of the process that gave it. A restart forgets it, and so does an unpublish
// that is repeated from a stale cache. So a VolumeAttachment that waits in the first
// list of a process, or in the first after Doubt, may have been granted in any mode,
// with the yes on its way. While that is open nobody else is admitted (rule 3),
// whoever asked first. What closes it is
//
//   - a publish for it: external-attacher does one thing at a time for a
//     VolumeAttachment [S], so no earlier yes is on its way any more. Either it never
//     arrived, or the attacher could not write it down, or it did write it down and was
//     told that it could not (a PATCH that failed may have been committed). Then our watch
//     brings status.attached, with what was granted, as a rule before the attacher asks
//     again, for it waits a second or more [S]. Until it does, what this publish is granted
//     speaks; unless access modes were changed in between, that is the same;
//   - a new status.attachError, by the text or by the time: so too, and without a call
//     where the attacher finds that it cannot even ask;
//   - status.attached, which tells what was granted;
//   - a deletion timestamp: kubelet mounts by no such VolumeAttachment [S].
//
// The attacher asks for all that waits when it starts, and again later. Of those that
// wait in a first list each is refused once, at most, before who may have the volume
// gets it. Within a process what was granted stands until the unpublish: asked for
// again in another mode, a VolumeAttachment that is not attached yet is granted what
// it was granted before.
//
// What remains needs somebody who changes access modes at the wrong moment, and either
// an attacher that freezes with a yes in its hands, is succeeded, wakes up, and writes
// it down; or one whose PATCH was committed though it failed, while our watch lags by more
// than the attacher waits before it asks again; or a node that was detached by force, or by hand, and has the volume mounted
// still: of that only its kubelet's word is left, which does not tell what was granted.
//
// # What kubelets say
//
// A VolumeAttachment may go while its node still has the volume mounted: the
// attach/detach controller detaches by force after six minutes of an unhealthy
// node, or a finalizer is removed by hand. What is left is the Node object. kubelet
// names a volume in its status.volumesInUse and waits until that is written before
// it mounts the volume, and takes it out only after it has unmounted it
// (kubernetes: pkg/kubelet/volumemanager [S]). So whatever is mounted is named, as
// long as the Node object is there and that kubelet is not restarted; for that see
// below. The taint node.kubernetes.io/out-of-service is the administrator's word
// that the machine is off, which Kubernetes takes for good as well, and so is the
// deletion of the Node object.
//
// But kubelet names a volume as soon as a pod waits for it, before anything is
// attached. Were every such wish in the way of others, two pods on two nodes that
// wait for one volume (a rolling update, a drain) would keep each other out until
// somebody deletes one, and a wish would undo the admission of another node that
// is being retried. A word is a wish, and in nobody's way, when
//
//   - this process saw it come, on a Node that it knew before, and
//   - since kubelet last took the volume from its list, this process neither
//     admitted the node, nor saw a VolumeAttachment of it attached.
//
// What kubelet mounts was attached after it was named or before, and was admitted
// by this process if that has run since; and what was mounted before this process
// began is in the first list. So the words of the first list count, each; and so do
// the first words of a Node object that is made later, because a kubelet that
// registers anew finds its old mounts first, and writes all of them at once. After
// a hand-over between processes the list counts as a first one (Doubt).
//
// A restart forgets which words were wishes and takes all for mounts. So a restart
// may refuse what its predecessor would have admitted, and never the other way
// round: like VolumeAttachments, words are read from their authority, and a wish is
// the only thing remembered of them, which only ever lets somebody in. Whether a
// word that counts is proven (attached or admitted there) or only from a first list
// decides nothing; a refusal says which of the two it is (Why), since the ways out
// differ.
//
// So two pods that wait for one volume for a single node, on two nodes, may keep
// each other out after a restart, until one is scaled down. The one whose
// VolumeAttachment is older cannot be let in because the other has an unattached one
// too: its kubelet may have the volume mounted by one before that, which went by
// force, and the other pod came to that node since. Its predecessor knew that from
// having seen it; the Nodes do not tell.
//
// Two watches have no order between them. A word that was written before a
// VolumeAttachment went may be seen after that. A forced detach comes six minutes
// after the pod went for which kubelet mounted, an ordinary one only when the API
// server has the word no more. A watch of Nodes that gave a list, an event or a bookmark within
// three minutes has brought what is older; one that did not admits nobody. (One that
// was dead for longer and comes back brings what it missed at once, in order.) For
// the same reason it is remembered that a node had a volume until the Nodes were
// heard of for three minutes after its VolumeAttachment went: a word that was under
// way is no wish. What remains is a finalizer removed by hand within the moment by
// which our watch of the Nodes lags: see below for who answers for that.
//
// # What silence does not prove
//
// A kubelet that is restarted finds its mounts on its disk. Those that are not in its
// Node's status.volumesAttached it takes for volumes that need no attaching, and it
// names them no more, mounted or not, unless one of its pods wants them
// (kubernetes v1.36: pkg/kubelet/volumemanager/reconciler/reconstruct.go [S]). The
// attach/detach controller takes a volume from volumesAttached before it detaches. So
// a kubelet that is restarted after a forced detach, and before it has ended the old
// pod and unmounted, is silent of a volume that is written to, and the next node is
// let in. Only a forced detach, or a finalizer removed by hand, leads there: while the
// VolumeAttachment is attached it is in the way itself.
//
// Silence ends a word all the same. Nothing in the Node tells that kubelet was
// restarted (its boot ID tells of the machine), and almost every silence after a
// partition is true: kubelet came back and unmounted. To hold all of those against
// the node until it reboots would keep out everybody who waits after each partition
// that ended well, with no way out but to taint or delete the Node of a machine that
// runs well, and a restart of this process would forget it anyhow.
//
// So the promise that a forced detach lets nobody in needs kube-controller-manager's
// --disable-force-detach-on-timeout=true, which leaves the VolumeAttachment until
// kubelet has unmounted or the administrator says that the machine is off. Without it
// the promise holds but for kubelets that are restarted in between.
//
// # Readers
//
// A volume for readers may be on any number of nodes: no VolumeAttachment of one
// is in the way of another, since none of their nodes writes (the node plugin
// mounts such a volume read-only on a device that takes no writes). It is one only
// as long as the caller and every VolumeAttachment of it, by its PersistentVolume and
// its Grant, say so. When one of them says anything else, there is a writer, or may be: then
// the volume is for a single node, and the rule above holds for all of them alike,
// so that no reader joins a writer and no writer joins readers. It is a function
// of the VolumeAttachments like the rest, so a restart changes nothing.
//
// A kubelet's word without a VolumeAttachment does not say what it mounted the
// volume for. It is in the way of readers too. Beside a VolumeAttachment, which says
// that its node reads, it is not, proven or not; so readers that wait on several
// nodes never refuse each other. (Who has a node detached by force that writes, then
// makes its PersistentVolume one for readers, or makes another one for them, and
// attaches it to that very node, has lied to the ledger.)
//
// # Migrations
//
// A MultiNode volume that is attached to two nodes migrates, to the one with the
// younger VolumeAttachment, since that was made: an admission alone is no migration,
// for a restart forgets it. Its time is by the PersistentVolume (five minutes
// otherwise), and runs before the second is attached. When it is over, the one that is not
// attached is refused, until its VolumeAttachment is gone and another is made; for
// both that are attached nothing changes, but it shows (Migrations). That is the
// one rule in which time counts, and it only ever refuses. It looks at
// VolumeAttachments and at the caller's clock and at no intent: a node is refused
// because of another that is attached, or whose VolumeAttachment is older. Of two
// that wait, the older has all the time there is, so they cannot refuse each other.
//
// # Why a restart admits nobody new
//
// An intent is the memory of an admission that no VolumeAttachment confirms yet;
// a restart loses it. It loses no answer, because a VolumeAttachment exists
// before anybody calls ControllerPublishVolume for it, and stays until the
// unpublish has succeeded (external-attacher's finalizer):
//
//   - Take two nodes A and B with a VolumeAttachment each, A's written first.
//     B's publish passes rule 2 only once we have seen B's. Events are applied
//     in the order in which the API server wrote them, and the first list is a
//     consistent read, so by then we have seen A's as well, and it is older, or
//     within the skew: B is refused, by this process or by the next, whatever
//     became of the intents.
//   - A's publish may have been admitted before B's was visible, or is admitted
//     now because B's is younger, or arrived later, and is not attached. B cannot
//     be attached, nor admitted, as just shown.
//
// The order of arrival is part of that: we see a VolumeAttachment for the first
// time after another one, by an event or in a later list, only if it was written
// after it. So in no process does B's arrive before A's; in one that finds both
// in its first list they tie, and it refuses both. Arrival thus only ever lets A
// be admitted, the one written first, and never B. It is what keeps A admitted
// when its publish has to be repeated (the RDS was down) and Kubernetes, which
// counts only attached ones, makes B's within the skew. A restart forgets it:
// then A may be refused like B until one of the two is deleted; a standby that
// watched has not forgotten, and may admit A where the leader before it, which
// found both, refused both. The other way
// round there is nothing: what a process refuses because of others, its successor
// refuses.
//
// With two nodes allowed the same holds for the third: of three, the one
// written last sees both others ahead. So every refusal but FullError is a function of
// VolumeAttachments, words and the time alone, as long as nobody changes access modes.
// Intents repeat what those say, in case a clock is further off than allowed; as long
// as none is, they refuse nothing by themselves. When an admitted VolumeAttachment is
// gone its intent is gone too, as it would be after a restart.
//
// When access modes are changed an intent does refuse by itself, since it alone tells
// what was granted. In the next process rule 3 stands in for it, and refuses more,
// until all that waits was asked for. Then that process may admit whom its predecessor
// refused because of an intent: no yes is on its way any more.
//
// CSI does not say for which VolumeAttachment it asks, only volume and node.
// While our watch lags, a publish for a new VolumeAttachment could be taken for
// one of its predecessor, which is deleted but which we still see. Therefore an
// unpublish spends the VolumeAttachments of that pair that we see (rule 2), and
// one with a deletion timestamp, which every restart sees too, gives no right.
//
// That may spend too much: an attacher that repeats a detach from a stale cache
// spends the successor, and a late event or list without a deletion timestamp
// proves nothing, it may be older than the unpublish. So the refusal that follows
// carries a mark of the unpublish, which nobody knew before it. external-attacher
// writes the refusal into status.attachError [S]. When the mark comes back in a
// VolumeAttachment without a deletion timestamp, that one was written after the
// unpublish, and cannot be what it was for: the attacher detaches only what has
// the timestamp already, and none is ever taken away. It has its right again,
// until the next unpublish. An attacher that writes no errors leaves it refused
// until a restart or its deletion; that is the one answer that a restart turns
// from refused to admitted, and then by a consistent read.
//
// What remains is a VolumeAttachment that goes without any unpublish (its
// finalizer was removed by hand, or it was deleted before the attacher saw it)
// and is made again for the same node, beside one for another node, all while
// our watch lags: who removes a finalizer by hand answers for the node. So does
// who taints, or deletes, the Node of a machine that runs.
//
// # The number
//
// Volumes counts volumes with at least one attached VolumeAttachment: a volume
// that migrates has two and counts once. The number is kept in one atomic word,
// so that reading it costs the same with ten attachments and with ten thousand
// and waits for nobody. PerNode hands out a map that is never changed, in the same
// way. Neither needs the Nodes to be known.
package attach
