package appliance

import "errors"

// The sentinels are what callers decide by; the message around one names the RDS, the volume and what to do next.
var (
	// ErrInvalid means that the request itself is outside the grammar; repeating it cannot help.
	ErrInvalid = errors.New("invalid request")
	// ErrOutOfRange means that no size satisfies both limits of the request.
	ErrOutOfRange = errors.New("capacity out of range")
	// ErrNotFound means that a parsed, empty answer said so; a failed look-up is never ErrNotFound.
	ErrNotFound = errors.New("not found")
	// ErrExists means that the RDS says the item exists already although it cannot be read as the one asked for.
	ErrExists = errors.New("already exists")
	// ErrIncompatible means that the volume of this name exists with other properties than asked for.
	ErrIncompatible = errors.New("exists with other properties")
	// ErrLeftover means that a file lies where the volume's image belongs, or stayed behind after its item went.
	ErrLeftover = errors.New("leftover file")
	// ErrForeign means that the item belongs to another cluster, or to nobody that we know; it was not touched.
	ErrForeign = errors.New("not owned by this cluster")
	// ErrMounted means that the RDS itself has mounted the volume's file system: a second writer beside the node.
	ErrMounted = errors.New("mounted by the rds")
	// ErrInUse means that the RDS refused because something still uses the item or its file.
	ErrInUse = errors.New("in use on the rds")
	// ErrAttached means that a volume cannot be copied because a node has it: a copy takes its time, and what a node writes
	// meanwhile would be in it in part. Only pools that cannot share blocks (all but Btrfs) ask for this.
	ErrAttached = errors.New("attached while it is to be copied")
	// ErrCopying means that a copy is under way on the RDS, and goes on there whoever asks: repeat the call to see it done.
	ErrCopying = errors.New("copy under way")
	// ErrNoSpace means that the pool has no room for the volume.
	ErrNoSpace = errors.New("no space on the pool")
	// ErrPoolNotFound means that the pool is not there or not mounted.
	ErrPoolNotFound = errors.New("pool not found")
	// ErrPermission means that the driver's user on the RDS lacks a policy.
	ErrPermission = errors.New("permission denied by the rds")
	// ErrUnsupported means that the RDS runs a RouterOS that cannot do this.
	ErrUnsupported = errors.New("not supported by the rds")
	// ErrUnavailable means that the RDS could not be asked; nothing was changed.
	ErrUnavailable = errors.New("rds unavailable")
	// ErrOutcomeUnknown means that a command was sent and no reply came; repeating the call is safe and settles it.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrAnswer means that the RDS answered in a way that cannot be trusted: garbled, contradictory, or not as told.
	ErrAnswer = errors.New("unusable answer of the rds")
)
