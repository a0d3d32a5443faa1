package routeros

import (
	"fmt"
	"strconv"
	"strings"
)

// Dialect names the RouterOS versions between which something differs that this driver uses.
type Dialect int

// The dialects. 7.21 brought nvme-tcp-server-nqn, 7.23 /file/copy and stricter parameters, 7.24 stricter ones again.
const (
	DialectUnknown Dialect = iota
	Dialect721
	Dialect723
	Dialect724
)

func (d Dialect) String() string {
	switch d {
	case Dialect721:
		return "7.21"
	case Dialect723:
		return "7.23"
	case Dialect724:
		return "7.24"
	default:
		return "unknown"
	}
}

// dialectOf reads a version such as "7.24.4 (stable)" or "7.26beta4 (development)". A beta or a release candidate counts
// as its release: it is newer than anything before it, which is what the gates are about [I].
func dialectOf(version string) (Dialect, error) {
	major, rest, ok := strings.Cut(strings.TrimSpace(version), ".")
	x, errMajor := strconv.Atoi(major)
	y, errMinor := strconv.Atoi(leadingDigits(rest))
	if !ok || errMajor != nil || errMinor != nil {
		return DialectUnknown, fmt.Errorf("%q is no RouterOS version", version)
	}
	switch {
	case x > 7 || x == 7 && y >= 24:
		return Dialect724, nil
	case x == 7 && y >= 23:
		return Dialect723, nil
	case x == 7 && y >= 21:
		return Dialect721, nil
	default:
		return DialectUnknown, fmt.Errorf("%w: the RDS runs RouterOS %s, this driver needs 7.21 or newer (nvme-tcp-server-nqn): upgrade the RDS", ErrUnsupportedVersion, version)
	}
}

func leadingDigits(s string) string {
	for i, r := range s {
		if r < '0' || r > '9' {
			return s[:i]
		}
	}
	return s
}
