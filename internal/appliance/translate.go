package appliance

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// These are what our own scripts say when they refuse, by :error. RouterOS may add where it happened.
const (
	sayForeign  = "rds-csi-foreign"
	sayLeftover = "rds-csi-leftover"
	sayNoPool   = "rds-csi-no-pool"
	sayAbsent   = "rds-csi-absent"
	sayNamed    = "rds-csi-named"
	sayBase     = "rds-csi-base"
	saySize     = "rds-csi-size"

	saySubvolume = "rds-csi-subvolume"
	sayFull      = "rds-csi-full"
	sayLarge     = "rds-csi-large"
	saySource    = "rds-csi-source"
	sayCopying   = "rds-csi-copying"
	sayJob       = "rds-csi-job"
	sayMounted   = "rds-csi-mounted"
	saySeveral   = "rds-csi-several"
	sayWritable  = "rds-csi-writable"
	sayApart     = "rds-csi-apart"
	sayImage     = "rds-csi-image"
	sayUnseen    = "rds-csi-unseen"
	sayUnowned   = "rds-csi-unowned"
)

// translate makes an error of a script one of ours. What it wraps stays readable for errors.As.
func (r *RDS) translate(subject string, err error) error {
	advice, sentinel := classify(err)
	var failed *routeros.CommandError
	// A text that has a class keeps it: "already in use" is about a name, "in use" about the thing itself.
	if errors.As(err, &failed) && failed.Err == nil {
		advice, sentinel = refusal(failed.Text)
	}
	return fmt.Errorf("rds %s: %s: %w: %s: %w", r.settings.Name, subject, sentinel, advice, err)
}

func classify(err error) (advice string, sentinel error) {
	switch {
	case errors.Is(err, routeros.ErrUnsupportedVersion):
		return "update RouterOS to 7.21 or newer", ErrUnsupported
	case errors.Is(err, routeros.ErrUnreachable):
		return "nothing was changed; repeat when it answers", ErrUnavailable
	case errors.Is(err, routeros.ErrOutcomeUnknown):
		return "repeat the call, it settles what became of this one", ErrOutcomeUnknown
	case errors.Is(err, routeros.ErrNoSpace):
		return "free space on the pool or use another", ErrNoSpace
	case errors.Is(err, routeros.ErrPermission):
		return policies(err), ErrPermission
	case errors.Is(err, routeros.ErrExists):
		return "repeat the call to see what is there", ErrExists
	case errors.Is(err, routeros.ErrNotFound):
		// Something went away between two statements. It is not a proof that the volume is absent (B15).
		return "the rds was changed meanwhile; repeat the call", ErrOutcomeUnknown
	case errors.Is(err, routeros.ErrInvalid):
		return "it cannot be sent", ErrInvalid
	default:
		return "see the text of the rds", ErrAnswer
	}
}

// policies says what to give the driver's user. RouterOS does not say which one is missing.
func policies(err error) string {
	var failed *routeros.CommandError
	if errors.As(err, &failed) && failed.Command == trafficCommand {
		return "give the driver's group the policy test, which monitor commands need, beside ssh and read; volumes work without it"
	}
	return "give the driver's group the policies ssh, read, write"
}

// refusal recognises what our scripts and the device say when something stands in the way.
func refusal(text string) (advice string, sentinel error) {
	for _, known := range refusals() {
		if strings.Contains(strings.ToLower(text), known.text) {
			return known.advice, known.sentinel
		}
	}
	return "see the text of the rds", ErrAnswer
}

type saying struct {
	text     string
	sentinel error
	advice   string
}

// refusals are the known texts. "stop using it first" is from the manual [V], the others of the device are guesses [U].
func refusals() []saying {
	const inUse = "detach it from every node, then repeat"
	return []saying{
		{sayForeign, ErrForeign, "another cluster or a person made the item in this slot; nothing was touched"},
		{sayLeftover, ErrLeftover, "a file is already where its image belongs, and no disk item names it; what is not proven to be empty is not overwritten: move or remove the file by hand"},
		{sayNoPool, ErrPoolNotFound, "nothing is mounted there; check the pool path in the configuration and the state of the pool"},
		{sayAbsent, ErrNotFound, "the rds has no disk item in this slot"},
		{sayNamed, ErrInUse, "another disk item names its image file; nothing was touched"},
		{sayBase, ErrForeign, "its image file is not called after the slot, so somebody has changed the item; nothing was touched"},
		{saySize, ErrAnswer, "the rds does not say how large its image is; nothing was changed"},
		{sayLarge, ErrOutOfRange, "its source is larger than the limit that was asked for"},
		{saySource, ErrNotFound, "its source, a volume, is not there"},
		{sayFull, ErrNoSpace, "the pool has no room for a full copy; free space on it or use another"},
		{sayCopying, ErrCopying, "it is being copied on the rds, and nobody may write to it before that is done; repeat"},
		{sayMounted, ErrMounted, "the rds has mounted its file system, or may at any moment (mount-filesystem=yes), so a copy is of no point in time: set mount-filesystem=no for it on the rds, or attach it once, which does that; then repeat"},
		{sayUnowned, ErrForeign, "the source has no owner yet, or another one: attach it once first, it gets its owner then; nothing was copied"},
		{saySeveral, ErrLeftover, "there are several subvolumes of that name, and nobody knows which one is meant: rename or remove the wrong ones by hand"},
		{sayWritable, ErrLeftover, "the snapshot is not read-only any more, so nobody knows what is in it; delete it by hand and take another one"},
		{sayApart, ErrLeftover, "there is a subvolume of that name in which the volume does not lie: rename or remove it by hand"},
		{sayImage, ErrLeftover, "the image that the volume is to be made of is not there, or not as large as its source, so nothing was made of it: remove by hand what is in its place, then repeat"},
		{sayUnseen, ErrAnswer, "the rds took the command, yet the snapshot is not seen as what it is to be; repeat, and look at the place if that does not help"},
		{sayJob, ErrAnswer, "the rds does not say that it has begun the copy, so the attempt was taken back; repeat"},
		{saySubvolume, ErrUnsupported, "the rds cannot make a subvolume there: if the pool directory is a plain directory, remove it when it is empty (the driver makes a subvolume in its place), or configure another one"},
		{"stop using it first", ErrInUse, inUse},
		{"in use", ErrInUse, inUse},
		{"busy", ErrInUse, inUse},
	}
}
