// Package attach is the attachment ledger: it decides which node may have which
// volume, and counts the attached volumes. It is pure: events and questions go
// in, decisions come out. It does no I/O, has no clock, and keeps nothing that
// cannot be rebuilt in one call from its authority, the VolumeAttachment
// objects of Kubernetes.
//
// # The decision
//
// A publish of volume V to node N is admitted when
//
//  1. the authority was read (else ErrUnknown),
//  2. a VolumeAttachment of V and N is visible that is not being deleted and
//     was not unpublished since (else ErrNotSeen: the attacher asks again), and
//  3. fewer than the mode's limit of other nodes are ahead of N, and fewer than
//     that limit hold V (else ConflictError, which names them).
//
// Another node is ahead when one of its VolumeAttachments of V says attached, or
// was made before N's, or so close to it that API servers with different clocks
// could have stamped the two in the wrong order (Options.ClockSkew). Such a tie
// is broken when we saw N's arrive before the other's. Only attached ones are
// ahead of an N whose own already says attached.
//
// Another node holds V when one of its VolumeAttachments says attached, or when
// this process admitted it (an intent).
//
// There is no grace period: nothing becomes allowed because time went by (B3
// of the driver before this one was exactly that). A VolumeAttachment in the
// way, attached or not, is in the way until it is gone. Refusing is recoverable,
// two writers are not.
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
// then A may be refused like B until one of the two is deleted. The other way
// round there is nothing: what a process refuses because of others, its successor
// refuses.
//
// With two nodes allowed the same holds for the third: of three, the one
// written last sees both others ahead. So every refusal is a function of the
// VolumeAttachments alone. Intents repeat what those say, in case a clock is
// further off than allowed; as long as none is, they refuse nothing by
// themselves. When an admitted VolumeAttachment is gone its intent is gone too,
// as it would be after a restart.
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
// our watch lags: who removes a finalizer by hand answers for the node.
//
// # The number
//
// Volumes counts volumes with at least one attached VolumeAttachment: a volume
// that migrates has two and counts once. The number is kept in one atomic word,
// so that reading it costs the same with ten attachments and with ten thousand
// and waits for nobody.
package attach
