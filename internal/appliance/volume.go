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
	Owner           Owner
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
}

// Pool is the file system that holds the images.
type Pool struct {
	Path                 Path
	Slot                 string // of the disk item that is mounted there, for Traffic
	SizeBytes, FreeBytes int64
	Filesystem           string
	State                string // as the RDS words it, e.g. "clean" or "clean, sync:repair, resync = ..."
}
