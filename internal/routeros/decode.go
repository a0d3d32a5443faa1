package routeros

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// RouterOS is not of one mind about types: a boolean may be true, "true" or "yes", a number may be a string of digits or,
// when it was a string that looked like a number, a float such as 1234.000000 [V], and nil is [] [R]. The types below read all of these
// and refuse everything else. A key that is absent leaves them zero.

// Bool is a RouterOS boolean.
type Bool bool

// UnmarshalJSON reads true, "true" and "yes", and their opposites.
func (b *Bool) UnmarshalJSON(raw []byte) error {
	switch s, _ := scalar(raw); s {
	case "true", "yes":
		*b = true
	case "false", "no", "":
		*b = false
	default:
		return fmt.Errorf("%s is no RouterOS boolean", shorten(string(raw)))
	}
	return nil
}

// Int is a RouterOS number.
type Int int64

// UnmarshalJSON reads 5, "5" and 5.0. A number that is not whole, or does not fit, is an error.
func (n *Int) UnmarshalJSON(raw []byte) error {
	s, _ := scalar(raw)
	if s == "" {
		*n = 0
		return nil
	}
	// big.Rat, because a float64 would silently change sizes above 2^53. Its syntax has more than numbers in it.
	value, ok := new(big.Rat), len(s) <= 40 && strings.Trim(s, "0123456789+-.eE") == "" && !strings.ContainsAny(s, "eE")
	if ok {
		_, ok = value.SetString(s)
	}
	if !ok || !value.IsInt() || !value.Num().IsInt64() {
		return fmt.Errorf("%s is no RouterOS number", shorten(string(raw)))
	}
	*n = Int(value.Num().Int64())
	return nil
}

// String is a RouterOS string, also when it looks like something else: a slot named 1234, a comment that says yes.
type String string

// UnmarshalJSON reads a string, and takes numbers and booleans by their text.
func (t *String) UnmarshalJSON(raw []byte) error {
	s, ok := scalar(raw)
	if !ok {
		return fmt.Errorf("%s is no RouterOS string", shorten(string(raw)))
	}
	*t = String(s)
	return nil
}

// scalar returns the text of a JSON string, number or boolean. RouterOS's nil, an empty array [R], and null are the empty text.
func scalar(raw []byte) (string, bool) {
	raw = bytes.TrimSpace(raw)
	if bytes.Equal(raw, []byte("[]")) || bytes.Equal(raw, []byte("null")) {
		return "", true
	}
	switch {
	case len(raw) > 0 && raw[0] == '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err == nil
	case len(raw) > 0 && (raw[0] == '[' || raw[0] == '{'):
		return string(raw), false
	default:
		return string(raw), true
	}
}
