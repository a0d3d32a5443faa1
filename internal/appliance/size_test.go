package appliance

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestSizeFor(t *testing.T) {
	const gib, tib = 1 << 30, 1 << 40
	for _, c := range []struct{ required, limit, want int64 }{ // want 0: ErrOutOfRange
		{gib, 0, gib},
		{gib + 1, 0, gib + mebibyte},
		{1536 * gib, 0, 1536 * gib}, // the existing driver made 1 TiB of it (B12)
		{2047 * gib, 2 * tib, 2047 * gib},
		{0, 0, gib},
		{0, 10 * mebibyte, 10 * mebibyte},
		{0, 10*mebibyte + 5000, 10 * mebibyte},
		{0, 2 * tib, gib},
		{0, 5000, 4096},
		{0, 4095, 0},
		{5 * mebibyte, 5 * mebibyte, 5 * mebibyte},
		{5*mebibyte + 1, 5*mebibyte + 8192, 5*mebibyte + 4096}, // 6 MiB would be above the limit
		{5*mebibyte + 1, 5*mebibyte + 2, 0},
		{2, 1, 0},
		{-1, 0, 0},
		{1, -1, 0},
		{math.MaxInt64, 0, 0},
		{math.MaxInt64 - mebibyte, 0, math.MaxInt64 - mebibyte + 1},
	} {
		got, err := SizeFor(c.required, c.limit)
		if c.want == 0 {
			if !errors.Is(err, ErrOutOfRange) {
				t.Errorf("SizeFor(%d, %d) = %d, %v, want ErrOutOfRange", c.required, c.limit, got, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("SizeFor(%d, %d) = %d, %v, want %d", c.required, c.limit, got, err, c.want)
		}
	}
}

// Never less than required, never more than the limit (B12).
func TestSizeForKeepsWithin_B12(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		required := rapid.Int64Range(0, math.MaxInt64).Draw(t, "required")
		limit := rapid.Int64Range(0, math.MaxInt64).Draw(t, "limit")
		size, err := SizeFor(required, limit)
		if err != nil {
			if limit == 0 && required < math.MaxInt64-mebibyte {
				t.Fatalf("SizeFor(%d, 0): %v", required, err)
			}
			return
		}
		if size < required || size <= 0 || size%blockSize != 0 || (limit > 0 && size > limit) || (required > 0 && size-required >= mebibyte) {
			t.Fatalf("SizeFor(%d, %d) = %d", required, limit, size)
		}
	})
}
