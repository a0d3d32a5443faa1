package routeros

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Property is one property of a row, before anybody says what it should be. RouterOS is not of one mind about types: a boolean may be true,
// "true" or "yes", a number may be a string of digits or, when it was a string that looked like a number, a float such as 1234.000000 [V],
// and nil is [] [R]. What it is read as takes all of these and nothing else; what nobody reads may be anything.
//
// The zero Property is a property that is absent.
type Property struct {
	text string
	form form
}

type form uint8

const (
	absent form = iota
	scalar      // a string, a number, a boolean or nil
	nested
)

// PropertyOf is a string, as if the RDS had written it.
func PropertyOf(text string) Property { return Property{text, scalar} }

// UnmarshalJSON takes any JSON. Of a property that is there twice the last one counts.
func (v *Property) UnmarshalJSON(raw []byte) error {
	switch raw = bytes.TrimSpace(raw); {
	case bytes.Equal(raw, []byte("[]")), bytes.Equal(raw, []byte("null")): // nil
		*v = Property{form: scalar}
	case len(raw) > 0 && raw[0] == '"':
		text, err := unquote(raw)
		*v = Property{text, scalar}
		return err
	case len(raw) > 0 && (raw[0] == '[' || raw[0] == '{'):
		*v = Property{form: nested}
	default:
		*v = Property{string(raw), scalar}
	}
	return nil
}

// unquote reads a JSON string. Most have nothing to decode, and many are one of a few words: a list of a thousand disks has some twenty
// thousand of these.
func unquote(raw []byte) (text string, err error) {
	if len(raw) >= 2 && bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		switch word := raw[1 : len(raw)-1]; string(word) { // compares, and makes no string
		case "true":
			return "true", nil
		case "false":
			return "false", nil
		case "file":
			return "file", nil
		default:
			return string(word), nil
		}
	}
	err = json.Unmarshal(raw, &text)
	return text, err
}

// Text is the property as text, also when it looks like something else: a slot named 1234, a comment that says yes. Nil, what is absent
// and what is no text read as empty.
func (v Property) Text() string { return v.text }

// Bool is the property as yes or no; not ok if it is neither, or absent. Nil is no.
func (v Property) Bool() (yes, ok bool) {
	switch v.text {
	case "true", "yes":
		return true, true
	case "false", "no", "":
		return false, v.form == scalar
	default:
		return false, false
	}
}

// Int is the property as a number, of 5, "5" or 5.0. Not ok if it is none, not whole, does not fit or is absent. Nil is zero.
func (v Property) Int() (n int64, ok bool) {
	if v.text == "" {
		return 0, v.form == scalar
	}
	if n, err := strconv.ParseInt(v.text, 10, 64); err == nil {
		return n, true
	}
	// big.Rat, because a float64 would silently change sizes above 2^53. Its syntax has more than numbers in it.
	if len(v.text) > 40 || strings.Trim(v.text, "0123456789+-.") != "" {
		return 0, false
	}
	value, ok := new(big.Rat).SetString(v.text)
	if !ok || !value.IsInt() || !value.Num().IsInt64() {
		return 0, false
	}
	return value.Num().Int64(), true
}
