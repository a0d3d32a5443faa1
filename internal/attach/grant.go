package attach

// Grant is the mode in which a publish was granted, as the VolumeAttachment keeps it
// (status.attachmentMetadata). The zero value is that it does not tell.
type Grant int

// GrantOf is a grant in that mode.
func GrantOf(m Mode) Grant { return Grant(m) + 1 }

// ParseGrant reads what String wrote; what says nothing tells nothing. Of what is
// not understood only the strictest can be said: not ok, and a single node.
func ParseGrant(text string) (g Grant, ok bool) {
	if text == "" {
		return g, true
	}
	for _, m := range []Mode{SingleNode, MultiNode, Readers} {
		if m.String() == text {
			return GrantOf(m), true
		}
	}
	return GrantOf(SingleNode), false
}

// Mode is what was granted, if it is told.
func (g Grant) Mode() (m Mode, told bool) { return Mode(g - 1), g > 0 }

// String is what the VolumeAttachment keeps; empty when nothing is told.
func (g Grant) String() string {
	if m, told := g.Mode(); told {
		return m.String()
	}
	return ""
}

// mode is on how many nodes the volume may be as far as h has a say: what the
// PersistentVolume says now and what was granted agree on. One that is attached and
// does not tell was granted by another driver, or by this one before it kept grants.
// It is not taken for a reader on the word of a PersistentVolume that may have been
// changed since: a writer taken for a reader loses data, a reader taken for a writer
// keeps others waiting.
func (h held) mode() Mode {
	granted, told := h.Granted.Mode()
	switch {
	case told:
		return h.Mode.And(granted)
	case h.Attached && h.Mode == Readers:
		return SingleNode
	default:
		return h.Mode
	}
}

// grant is what a publish that is admitted is answered: what the node has stands. To
// say anything else of a VolumeAttachment that is attached would change the record of
// what was mounted by it, or make one up.
func (v *volume) grant(node string, asked Mode) Grant {
	for _, h := range v.held {
		if h.Attached && h.Node == node {
			return h.Granted
		}
	}
	for _, i := range v.intents {
		if i.node == node {
			return GrantOf(i.mode)
		}
	}
	return GrantOf(asked)
}
