package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// Settings are what is configured for one RDS.
type Settings struct {
	Name        string // in handles, errors and logs
	Default     bool   // bare handles, those of the existing driver, lie on this one
	ClusterID   string // whose volumes are ours
	Pool        Path   // directory for images, unless the request names one
	NVMeAddress string
	NVMePort    int
}

// Runner runs scripts on the RDS.
type Runner interface {
	// Run sends one script and returns what it printed; errors wrap the sentinels of routeros.
	Run(context.Context, routeros.Script) (routeros.Reply, error)
	// Down answers at once why no script can be sent, when that is known; see routeros.Client.
	Down() error
}

// RDS is one appliance. It holds no state but its settings; it may be used by many goroutines. Locks per volume are the
// caller's: without them concurrent calls for one volume are safe, but may fail and have to be repeated.
type RDS struct {
	settings Settings
	owned    string // what the comments of our items begin with
	runner   Runner
}

// NewRDS checks the settings; it does no I/O.
func NewRDS(settings Settings, runner Runner) (*RDS, error) {
	switch {
	case !validRDSName(settings.Name):
		return nil, fmt.Errorf("rds %q: %w: the name must be letters, digits, dots, underscores and hyphens", settings.Name, ErrInvalid)
	case settings.ClusterID == "" || len(settings.ClusterID) > maxName:
		return nil, fmt.Errorf("rds %s: %w: the cluster id must have 1 to %d bytes: it tells our volumes from others'", settings.Name, ErrInvalid, maxName)
	case settings.Pool.IsZero():
		return nil, fmt.Errorf("rds %s: %w: no pool path", settings.Name, ErrInvalid)
	case settings.NVMeAddress == "" || settings.NVMePort < 1 || settings.NVMePort > 65535:
		return nil, fmt.Errorf("rds %s: %w: no nvme address or port", settings.Name, ErrInvalid)
	}
	return &RDS{settings: settings, owned: owned(settings.ClusterID), runner: runner}, nil
}

// Name is the RDS's name in the configuration.
func (r *RDS) Name() string { return r.settings.Name }

// Down answers at once, without asking the RDS, why it cannot be asked; nil when it may be. ErrUnavailable.
func (r *RDS) Down() error {
	if err := r.runner.Down(); err != nil {
		return r.translate("its console", err)
	}
	return nil
}

// volume reads one row. Owner is decided by the comment alone, as on the device. SizeBytes is zero when the RDS does not
// say it, as when the image or its pool is gone.
func (r *RDS) volume(row *diskRow) Volume {
	slot := row.Slot.Text()
	size, _ := row.size()
	port, _ := row.Port.Int()
	comment := parseTag(row.Comment.Text())
	return Volume{
		ID:        ID{RDS: r.settings.Name, Slot: slot, bare: r.settings.Default && adoptableSlot(slot)},
		Name:      comment.name,
		Claim:     comment.claim,
		SizeBytes: size,
		NQN:       row.NQN.Text(),
		Address:   r.settings.NVMeAddress,
		Port:      cmp.Or(int(port), r.settings.NVMePort),
		Path:      row.FilePath.path(),
		Exported:  row.Export.truth(false),
		// Absent reads as yes, the default of RouterOS [V]: only a "no" that was read is a no.
		MountFilesystem: row.MountFilesystem.truth(true),
		Mounted:         row.Mounted.truth(false),
		Empty:           row.Empty.truth(false),
		Owner:           r.owner(row),
		Source:          comment.source(),
		Unfinished:      comment.unfinished,
		GrownTo:         comment.grownTo,
	}
}

func (r *RDS) owner(row *diskRow) Owner {
	switch comment := row.Comment.Text(); {
	case strings.HasPrefix(comment, r.owned):
		return OwnerOurs
	case comment == "" && adoptableSlot(row.Slot.Text()):
		return OwnerNone
	default:
		return OwnerForeign
	}
}

// one reads the first line of a reply, which is to hold the item of one slot.
func (r *RDS) one(reply routeros.Reply, slot string) (Volume, error) {
	items, err := rows[diskRow](reply, 0)
	switch {
	case err != nil:
		return Volume{}, r.about(volumeOf(slot), err)
	case len(items) == 0:
		return Volume{}, r.errorf(slot, ErrNotFound, "the rds has no disk item in this slot")
	case len(items) > 1:
		return Volume{}, r.errorf(slot, ErrAnswer, "the rds has %d disk items in this slot; remove the wrong ones by hand", len(items))
	case items[0].Slot.Text() != slot:
		return Volume{}, r.errorf(slot, ErrAnswer, "the rds answered about slot %q", items[0].Slot.Text())
	case items[0].Type.Text() != "file":
		return Volume{}, r.errorf(slot, ErrForeign, "the item in this slot is of type %q, not a file", items[0].Type.Text())
	}
	v := r.volume(&items[0])
	if v.SizeBytes == 0 {
		return Volume{}, r.errorf(slot, ErrAnswer, "the rds does not say how large it is: look whether its image and its pool are there")
	}
	return v, nil
}

// run sends one script. The subject, "volume x" or "pool y", is what errors speak of.
func (r *RDS) run(ctx context.Context, subject string, build *routeros.Builder) (routeros.Reply, error) {
	script, err := build.Build()
	if err != nil {
		return routeros.Reply{}, r.translate(subject, err)
	}
	reply, err := r.runner.Run(ctx, script)
	if err != nil {
		return routeros.Reply{}, r.translate(subject, err)
	}
	return reply, nil
}

// read runs a script that changes nothing. A lost reply is asked for once more: with a connection that dies, several
// commands lose theirs. A reply that did not come in time is not: whoever waited has waited long enough.
func (r *RDS) read(ctx context.Context, subject string, build *routeros.Builder) (routeros.Reply, error) {
	reply, err := r.run(ctx, subject, build)
	if errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return r.run(ctx, subject, build)
	}
	return reply, err
}

// errorf is an error of ours about one volume.
func (r *RDS) errorf(slot string, sentinel error, format string, args ...any) error {
	return fmt.Errorf("rds %s: %s: %w: %s", r.settings.Name, volumeOf(slot), sentinel, fmt.Sprintf(format, args...))
}

// about puts the subject before an error that is one of ours already.
func (r *RDS) about(subject string, err error) error {
	return fmt.Errorf("rds %s: %s: %w", r.settings.Name, subject, err)
}

func volumeOf(slot string) string { return "volume " + slot }
