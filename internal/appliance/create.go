package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// plan is a create request with every choice made.
type plan struct {
	request       CreateRequest
	slot, comment string
	dir           Path // that the volume is to lie in
	flat, within  Path // its image there, as the pool is
	size          int64
	port          int
}

// maxCSIName is the longest name that the CSI specification allows, in bytes.
const maxCSIName = 128

func (r *RDS) plan(req CreateRequest) (plan, error) {
	switch {
	case req.Name == "" || len(req.Name) > maxCSIName || !utf8.ValidString(req.Name):
		return plan{}, r.errorf(req.Name, ErrInvalid, "a name must be 1 to %d bytes of UTF-8", maxCSIName)
	case req.NVMePort < 0 || req.NVMePort > 65535:
		return plan{}, r.errorf(req.Name, ErrInvalid, "nvme port %d is outside 1 to 65535", req.NVMePort)
	}
	size, err := r.sizeOf(req)
	if err != nil {
		return plan{}, r.about(volumeOf(req.Name), err)
	}
	slot := SlotFor(r.settings.ClusterID, req.Name)
	comment := tag{cluster: r.settings.ClusterID, name: req.Name, from: req.Source.name(), claim: req.Claim}
	p := plan{
		request: req, slot: slot, comment: comment.String(), dir: r.pool(req.Pool), size: size,
		port: cmp.Or(req.NVMePort, r.settings.NVMePort),
	}
	if p.flat, err = flat(p.dir, slot); err == nil {
		p.within, err = within(p.dir, slot)
	}
	if err != nil {
		return plan{}, r.about(volumeOf(req.Name), err)
	}
	return p, nil
}

// sizeOf is the size to ask for. A volume that is made from another one has that one's size if nothing more was asked for.
func (r *RDS) sizeOf(req CreateRequest) (int64, error) {
	source := req.Source
	switch {
	case source.IsZero():
		return SizeFor(req.RequiredBytes, req.LimitBytes)
	case source.Volume != "" && source.Snapshot != "", source.Volume != "" && !ValidSlot(source.Volume):
		return 0, fmt.Errorf("%w: the source %q %q is not one volume and not one snapshot", ErrInvalid, source.Volume, source.Snapshot)
	case source.Volume == "" && !strings.HasPrefix(source.Snapshot, snapshotsOf(r.settings.ClusterID)):
		return 0, fmt.Errorf("%w: snapshot %s, the source, is not of this cluster", ErrNotFound, source.Snapshot)
	case source.Volume == "" && !ValidSnapshotID(source.Snapshot):
		return 0, fmt.Errorf("%w: %q, the source, is not a snapshot", ErrInvalid, source.Snapshot)
	case req.RequiredBytes == 0 && req.LimitBytes >= 0:
		return 0, nil
	}
	return SizeFor(req.RequiredBytes, req.LimitBytes)
}

// pool is the asked directory, or the configured one.
func (r *RDS) pool(asked Path) Path {
	if asked.IsZero() {
		return r.settings.Pool
	}
	return asked
}

// Create makes the volume, or finds the one that an earlier call of the same name made. One command; a second one reads
// again when the reply was lost or another create of the same volume was faster. With a source it may have to be repeated until
// a copy is done: see createFrom.
func (r *RDS) Create(ctx context.Context, req CreateRequest) (Volume, error) {
	p, err := r.plan(req)
	if err != nil {
		return Volume{}, err
	}
	v, err := r.make(ctx, p)
	if err != nil {
		return Volume{}, err
	}
	if err := r.fits(v, p); err != nil {
		return Volume{}, err
	}
	v, err = r.settle(ctx, v, false)
	v.Address = cmp.Or(req.NVMeAddress, v.Address)
	return v, err
}

func (r *RDS) make(ctx context.Context, p plan) (Volume, error) {
	if p.request.Source.IsZero() {
		return r.add(ctx, p)
	}
	return r.createFrom(ctx, p)
}

// add runs the script, and looks again where its error does not say what is there now.
func (r *RDS) add(ctx context.Context, p plan) (Volume, error) {
	reply, err := r.run(ctx, volumeOf(p.slot), createScript(p))
	switch {
	case err == nil:
		v, err := r.one(reply, p.slot)
		if errors.Is(err, ErrNotFound) {
			return Volume{}, r.errorf(p.slot, ErrAnswer, "the rds took the command, yet the item is not there")
		}
		return v, err
	case errors.Is(err, ErrOutcomeUnknown), errors.Is(err, ErrExists):
		return r.reread(ctx, p.slot, err)
	default:
		return Volume{}, err
	}
}

// reread settles what a lost or contradictory reply left open. If the item is not there, the cause is the answer: the
// caller repeats the whole, which is safe.
func (r *RDS) reread(ctx context.Context, slot string, cause error) (Volume, error) {
	v, err := r.Get(ctx, slot)
	if err != nil {
		return Volume{}, fmt.Errorf("%w; looking again: %v", cause, err) //nolint:errorlint // the second error must not decide: it may say "not found"
	}
	return v, nil
}

// fits says whether the volume is one that the request may have: the size read back decides, not the one sent (B12).
func (r *RDS) fits(v Volume, p plan) error {
	req := p.request
	switch {
	case v.Owner != OwnerOurs:
		return r.errorf(p.slot, ErrForeign, "the item in this slot has another owner; remove it or rename the claim's volume")
	case v.Source != req.Source:
		return r.errorf(p.slot, ErrIncompatible, "it was made from %q, asked for is %q", v.Source.name(), req.Source.name())
	case v.SizeBytes < req.RequiredBytes || (req.LimitBytes > 0 && v.SizeBytes > req.LimitBytes):
		return r.errorf(p.slot, ErrIncompatible, "it has %d bytes, asked for are at least %d and at most %d (0: any)", v.SizeBytes, req.RequiredBytes, req.LimitBytes)
	case !req.Pool.IsZero() && v.Path.home(p.slot) != p.dir:
		return r.errorf(p.slot, ErrIncompatible, "it lies at %s, asked for is %s", v.Path, p.dir)
	case req.NVMePort != 0 && v.Port != req.NVMePort:
		return r.errorf(p.slot, ErrIncompatible, "it is exported on port %d, asked for is %d", v.Port, req.NVMePort)
	}
	return nil
}
