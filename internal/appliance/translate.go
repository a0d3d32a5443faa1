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
)

// translate makes an error of a script one of ours. What it wraps stays readable for errors.As.
func (r *RDS) translate(what string, err error) error {
	sentinel, advice := classify(err)
	return fmt.Errorf("rds %s: volume %s: %w: %s: %w", r.settings.Name, what, sentinel, advice, err)
}

func classify(err error) (sentinel error, advice string) {
	if sentinel, advice = refusal(err); sentinel != nil {
		return sentinel, advice
	}
	switch {
	case errors.Is(err, routeros.ErrUnsupportedVersion):
		return ErrUnsupported, "update RouterOS to 7.21 or newer"
	case errors.Is(err, routeros.ErrUnreachable):
		return ErrUnavailable, "nothing was changed; repeat when it answers"
	case errors.Is(err, routeros.ErrOutcomeUnknown):
		return ErrOutcomeUnknown, "repeat the call, it settles what became of this one"
	case errors.Is(err, routeros.ErrNoSpace):
		return ErrNoSpace, "free space on the pool or use another"
	case errors.Is(err, routeros.ErrPermission):
		return ErrPermission, "give the driver's group the policies ssh, read, write"
	case errors.Is(err, routeros.ErrExists):
		return ErrExists, "repeat the call to see what is there"
	case errors.Is(err, routeros.ErrNotFound):
		// Something went away between two statements. It is not a proof that the volume is absent (B15).
		return ErrOutcomeUnknown, "the rds was changed meanwhile; repeat the call"
	case errors.Is(err, routeros.ErrInvalid):
		return ErrInvalid, "it cannot be sent"
	default:
		return ErrAnswer, "see the text of the rds"
	}
}

// refusal recognises what our scripts and the device say when something stands in the way.
func refusal(err error) (sentinel error, advice string) {
	var failed *routeros.CommandError
	if !errors.As(err, &failed) {
		return nil, ""
	}
	for _, known := range refusals() {
		if strings.Contains(strings.ToLower(failed.Text), known.text) {
			return known.sentinel, known.advice
		}
	}
	return nil, ""
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
		{"stop using it first", ErrInUse, inUse},
		{"in use", ErrInUse, inUse},
		{"busy", ErrInUse, inUse},
	}
}
