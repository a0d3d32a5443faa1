package sim

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// arguments are those of one command; the last of a name wins.
type arguments map[string]console.Value

func newArguments(list []console.Arg) arguments {
	a := arguments{}
	for _, one := range list {
		a[one.Name] = one.Value
	}
	return a
}

func (a arguments) has(name string) bool {
	_, ok := a[name]
	return ok
}

func (a arguments) text(name string) string { return console.Text(a[name]) }

// boolean, number and size leave what they point to alone when the argument was not given.
func (a arguments) boolean(name string, to *bool) error {
	if !a.has(name) {
		return nil
	}
	v, ok := console.Bool(a[name])
	if !ok {
		return fmt.Errorf("input does not match any value of %s", name)
	}
	*to = v
	return nil
}

func (a arguments) number(name string, lowest, highest int64, to *int64) error {
	if !a.has(name) {
		return nil
	}
	v, ok := console.Number(a[name])
	if !ok {
		return fmt.Errorf("invalid value for argument %s", name)
	}
	if v < lowest || v > highest {
		return fmt.Errorf("value of %s out of range (%d..%d)", name, lowest, highest)
	}
	*to = v
	return nil
}

func (a arguments) string(name string, to *string) {
	if a.has(name) {
		*to = a.text(name)
	}
}

func (a arguments) size(name string, to *int64) error {
	if !a.has(name) {
		return nil
	}
	v, err := ParseSize(a.text(name))
	if err != nil {
		return fmt.Errorf("invalid value for argument %s", name)
	}
	*to = v
	return nil
}

// first is the first error of several: the device reports one.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

var errSize = errors.New("not a size")

// ParseSize reads bytes, or a number with a binary suffix: file-size=1T is 1 099 511 627 776 [R]. What file-size does
// with fractions and with "GiB" is not known [U]; they are refused.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "kKMGTP")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || len(s)-len(digits) > 1 {
		return 0, errSize
	}
	if digits == s {
		return n, nil
	}
	power := strings.IndexByte("KMGTP", strings.ToUpper(s)[len(s)-1]) + 1
	unit := int64(1) << (10 * power)
	if n > math.MaxInt64/unit {
		return 0, errSize
	}
	return n * unit, nil
}

// grouped writes a number as print does: 53 687 091 200 [R].
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// sized writes bytes as print shows a file-size. Samples of devices are 1024.0GiB, 50.0GiB, 1024.0MiB, 11.7MiB and
// 3016.1KiB [R]: the next unit is taken at 10 000 of this one [I].
func sized(n int64) string {
	if n < 10000 {
		return strconv.FormatInt(n, 10)
	}
	v, units := float64(n)/1024, []string{"KiB", "MiB", "GiB"}
	for v >= 10000 && len(units) > 1 {
		v, units = v/1024, units[1:]
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + units[0]
}

// uptime writes a duration as /system/resource does: 1w2d03:04:05 [R].
func uptime(t time.Duration) string {
	const day = 24 * time.Hour
	s := ""
	if w := t / (7 * day); w > 0 {
		s += fmt.Sprintf("%dw", w)
	}
	if d := t % (7 * day) / day; d > 0 {
		s += fmt.Sprintf("%dd", d)
	}
	t %= day
	return s + fmt.Sprintf("%02d:%02d:%02d", t/time.Hour, t%time.Hour/time.Minute, t%time.Minute/time.Second)
}

var errPath = errors.New("invalid path")

// cleanPath turns a path as written, with or without a leading slash, into the form that /file uses: none.
func cleanPath(written string) (string, error) {
	for part := range strings.SplitSeq(written, "/") {
		if part == ".." || part == "." || len(part) > 255 {
			return "", errPath
		}
	}
	if strings.ContainsFunc(written, unicode.IsControl) || strings.ToValidUTF8(written, "") != written {
		return "", errPath
	}
	clean := strings.Trim(path.Clean("/"+written), "/")
	if clean == "" {
		return "", errPath
	}
	return clean, nil
}
