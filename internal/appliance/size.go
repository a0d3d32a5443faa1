package appliance

import (
	"fmt"
	"math"
)

const (
	mebibyte    = 1 << 20
	blockSize   = 4096
	defaultSize = 1 << 30
)

// SizeFor chooses the size in bytes to send: the required size rounded up to 1 MiB, or to 4 KiB where only that stays
// within the limit. Sizes always go out in bytes, since RouterOS reads "1G" as binary here and as decimal there [R][V].
func SizeFor(required, limit int64) (int64, error) {
	if required < 0 || limit < 0 || (limit > 0 && required > limit) {
		return 0, fmt.Errorf("%w: required %d, limit %d bytes", ErrOutOfRange, required, limit)
	}
	if required == 0 {
		required = defaultWithin(limit)
	}
	for _, unit := range []int64{mebibyte, blockSize} {
		if required <= 0 || required > math.MaxInt64-unit {
			break
		}
		size := (required + unit - 1) / unit * unit
		if limit == 0 || size <= limit {
			return size, nil
		}
	}
	return 0, fmt.Errorf("%w: no multiple of %d bytes lies between required %d and limit %d", ErrOutOfRange, blockSize, required, limit)
}

// defaultWithin is the size for a request that names none.
func defaultWithin(limit int64) int64 {
	switch {
	case limit == 0 || limit >= defaultSize:
		return defaultSize
	case limit >= mebibyte:
		return limit / mebibyte * mebibyte
	default:
		return limit / blockSize * blockSize
	}
}
