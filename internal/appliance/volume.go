package appliance

// Volume is one disk item, as the RDS described it in the reply to the command that returned it.
type Volume struct {
	ID        ID
	Name      string // the CSI name, from the comment; empty for an adopted volume
	Claim     string // namespace/name of the claim, from the comment; may be empty
	SizeBytes int64  // what the RDS says, not what was asked for; 0 only in a list, where it does not say
	NQN       string
	Address   string // where its subsystem is reached, from the settings or the request
	Port      int
	Path      Path
	Exported  bool
	// MountFilesystem is the danger, Mounted the accident: with yes, which is RouterOS's default [V], the RDS may mount
	// what a node has formatted, and there are two writers.
	MountFilesystem bool
	Mounted         bool
	// Empty says that the RDS shows no device behind the item: its image is gone, or the item is disabled [I].
	Empty bool
	Owner Owner
	// Repaired says in a few words what the call that returned the volume has put right on the RDS; empty for nothing.
	Repaired string
	// Source is what it was made from, from the comment. A volume that has one is never blank, so nothing may format it.
	Source Source
	// Unfinished says that a create was cut off before the volume was what was asked for; a repeated create completes it.
	Unfinished bool
	// GrownTo is how large it was made when that was after its last new export, so that it may be that even new connections see the
	// size it had before; otherwise 0.
	GrownTo int64
}

// Owner says whose an item is.
type Owner int

const (
	// OwnerForeign is another cluster's item, or somebody's own: look, never touch. It is the zero value on purpose.
	OwnerForeign Owner = iota
	// OwnerOurs is an item whose comment names this cluster.
	OwnerOurs
	// OwnerNone is an item of the existing driver: no comment, slot pvc-<uuid>. It may be adopted.
	OwnerNone
)

// String is for logs.
func (o Owner) String() string {
	switch o {
	case OwnerOurs:
		return "ours"
	case OwnerNone:
		return "none"
	default:
		return "foreign"
	}
}

// CreateRequest asks for a volume; zero fields mean the RDS's own settings.
type CreateRequest struct {
	Name          string // the CSI name; the slot is derived from it
	Claim         string // namespace/name, for people who read the comment on the RDS
	Pool          Path   // directory for the image
	RequiredBytes int64  // zero: 1 GiB, or the limit if that is lower
	LimitBytes    int64  // zero: none
	NVMeAddress   string
	NVMePort      int
	Source        Source // what to begin with; zero: nothing
	// SourceAttached says that some node has the source volume or may get it. Then a pool that has to copy refuses with
	// ErrAttached. Of a snapshot it is not asked.
	SourceAttached bool
}

// Source is where the content of a new volume comes from: a volume or a snapshot of the same RDS, or neither.
type Source struct {
	Volume   string // slot
	Snapshot string // id of the snapshot, as in Snapshot.ID.Slot
}

// IsZero says that there is no source: the volume begins empty.
func (s Source) IsZero() bool { return s == Source{} }
