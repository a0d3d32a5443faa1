package driver

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/filesystem"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// mapping is one row of the table of codes.
type mapping struct {
	sentinel error
	code     codes.Code
}

// table gives every sentinel of the domain its code; the first match counts. What a code makes of the sidecars matters
// as much as its name: external-provisioner forgets a volume after a final code, so whatever may have had an effect
// answers Unavailable, DeadlineExceeded or Aborted, which it retries.
func table() []mapping {
	return []mapping{
		{errBusy, codes.Aborted},

		{appliance.ErrUnsupported, codes.FailedPrecondition}, // first: what the RDS cannot do it may say in other words as well
		{appliance.ErrNotFound, codes.NotFound},
		{appliance.ErrExists, codes.AlreadyExists},
		{appliance.ErrIncompatible, codes.AlreadyExists},
		{appliance.ErrNoSpace, codes.ResourceExhausted},
		{appliance.ErrOutOfRange, codes.OutOfRange},
		{appliance.ErrInvalid, codes.InvalidArgument},
		{appliance.ErrForeign, codes.FailedPrecondition},
		{appliance.ErrInUse, codes.FailedPrecondition},
		{appliance.ErrAttached, codes.FailedPrecondition},
		{appliance.ErrCopying, codes.Aborted}, // the operation is pending: the sidecars come again, and forget nothing
		{appliance.ErrLeftover, codes.FailedPrecondition},
		{appliance.ErrMounted, codes.FailedPrecondition},
		{appliance.ErrPoolNotFound, codes.FailedPrecondition},
		{appliance.ErrPermission, codes.PermissionDenied},
		{appliance.ErrOutcomeUnknown, codes.Unavailable},
		{appliance.ErrUnavailable, codes.Unavailable},
		{appliance.ErrAnswer, codes.Unavailable}, // a garbled reply says nothing of what was done: ask again

		{attach.ErrUnknown, codes.Unavailable},
		// In Kubernetes a VolumeAttachment is what makes a node known for a volume. The specification's answer for a
		// node that is not known is NOT_FOUND, and the attacher comes again if the object was only slow to be seen.
		{attach.ErrNotSeen, codes.NotFound},

		{nvme.ErrNoNamespace, codes.Unavailable},
		{nvme.ErrNoPath, codes.Unavailable},
		{nvme.ErrNotLive, codes.Unavailable},
		{nvme.ErrRefused, codes.Unavailable},
		{nvme.ErrTimeout, codes.DeadlineExceeded},
		{nvme.ErrIdentity, codes.FailedPrecondition},
		{nvme.ErrInUse, codes.FailedPrecondition},
		{nvme.ErrOldSize, codes.FailedPrecondition}, // kubelet then tries again when the volume is staged next
		{nvme.ErrNotConnected, codes.FailedPrecondition},
		{nvme.ErrUnsupported, codes.FailedPrecondition},
		{nvme.ErrInvalid, codes.InvalidArgument},

		{filesystem.ErrTimeout, codes.DeadlineExceeded},
		{filesystem.ErrUnreadable, codes.Unavailable},
		{filesystem.ErrBusy, codes.FailedPrecondition},
		{filesystem.ErrForeignSignature, codes.FailedPrecondition},
		{filesystem.ErrNotBlank, codes.FailedPrecondition},
		{filesystem.ErrNoData, codes.FailedPrecondition},
		{filesystem.ErrReadOnly, codes.FailedPrecondition},
		{filesystem.ErrShared, codes.FailedPrecondition},
		{filesystem.ErrNotMounted, codes.FailedPrecondition},
		{filesystem.ErrTarget, codes.FailedPrecondition},
		{filesystem.ErrWrongDevice, codes.FailedPrecondition},
		{filesystem.ErrIncompatible, codes.AlreadyExists},
		{filesystem.ErrFsType, codes.InvalidArgument},
		{filesystem.ErrOption, codes.InvalidArgument},
		{filesystem.ErrFormat, codes.Internal},
		{filesystem.ErrGrow, codes.Internal},
		{filesystem.ErrMount, codes.Internal},

		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
	}
}

// code is the gRPC code of an error of any layer. What nobody foresaw is Internal.
func code(err error) codes.Code {
	var refused *refusal
	var conflict *attach.ConflictError
	var expired *attach.MigrationExpiredError
	var full *attach.FullError
	switch {
	case err == nil:
		return codes.OK
	case errors.As(err, &refused):
		return refused.code
	case errors.As(err, &conflict), errors.As(err, &expired):
		return codes.FailedPrecondition
	case errors.As(err, &full):
		return codes.ResourceExhausted // Kubernetes then asks the node again how many volumes it can hold (KEP-4876)
	}
	for _, m := range table() {
		if errors.Is(err, m.sentinel) {
			return m.code
		}
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return codes.Internal
}

// refusal is an answer that this package itself gives, by its reading of the request.
type refusal struct {
	code codes.Code
	text string
}

func (r *refusal) Error() string { return r.text }

func refuse(c codes.Code, format string, args ...any) error {
	return &refusal{code: c, text: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error {
	return refuse(codes.InvalidArgument, format, args...)
}
