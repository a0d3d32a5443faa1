package console

import (
	"strconv"
	"strings"
)

// textLimit bounds what one value may grow to as text; an array that holds itself twice, sixty times over, is cheap to
// build and endless to print.
const textLimit = 16 << 20

// nothing is the value of what does not exist: an absent property, a missing element, [:nothing]. RouterOS tells it
// from nil, the value of what has none yet, by its type name only.
type nothing struct{}

// code is what [:parse] yields.
type code struct{ text string }

func empty(v Value) bool {
	switch v.(type) {
	case nil, nothing:
		return true
	}
	return false
}

// Text is a value as :put shows it: nothing quoted, nothing escaped, arrays joined with ';' however deep they are [R].
func Text(v Value) string {
	var b strings.Builder
	render(&b, v)
	return b.String()
}

func render(b *strings.Builder, v Value) {
	if b.Len() > textLimit {
		return
	}
	switch v := v.(type) {
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case string:
		b.WriteString(v)
	case ID:
		b.WriteString(string(v))
	case code:
		b.WriteString(v.text)
	case []Value:
		renderList(b, v)
	case *Map:
		renderMap(b, v)
	}
}

func renderList(b *strings.Builder, list []Value) {
	for i, v := range list {
		if b.Len() > textLimit {
			return
		}
		if i > 0 {
			b.WriteByte(';')
		}
		render(b, v)
	}
}

func renderMap(b *strings.Builder, m *Map) {
	for i, k := range m.keys {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(k)
		b.WriteByte('=')
		render(b, m.values[k])
	}
}

// Number reads a number that was computed or written. Suffixes are not the console's business.
func Number(v Value) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case string:
		return parseNumber(v)
	}
	return 0, false
}

// Bool reads a truth value that was computed or written.
func Bool(v Value) (value, ok bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case string:
		return parseBool(v)
	}
	return false, false
}

func parseNumber(s string) (int64, bool) {
	digits, base := strings.TrimPrefix(s, "-"), 10
	if hex, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = hex, 16
	}
	if digits == "" || strings.ContainsAny(digits, "+-_") {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, base, 64)
	if err != nil {
		return 0, false
	}
	if strings.HasPrefix(s, "-") {
		n = -n
	}
	return n, true
}

func parseBool(s string) (value, ok bool) {
	switch s {
	case "yes", "true":
		return true, true
	case "no", "false":
		return false, true
	}
	return false, false
}

// parseID reads an internal number. Lower-case digits are not one [I: the device prints and takes upper case].
func parseID(s string) (ID, bool) {
	digits, ok := strings.CutPrefix(s, "*")
	if !ok || digits == "" || strings.Trim(digits, "0123456789ABCDEF") != "" {
		return "", false
	}
	return ID(s), true
}

// typed gives a word written without quotes the type it looks like; a list with commas becomes an array.
func typed(word string) Value {
	if strings.Contains(word, ",") {
		var list []Value
		for part := range strings.SplitSeq(word, ",") {
			list = append(list, typed(part))
		}
		return list
	}
	if n, ok := parseNumber(word); ok {
		return n
	}
	if b, ok := parseBool(word); ok {
		return b
	}
	if id, ok := parseID(word); ok {
		return id
	}
	return word
}

func typeName(v Value) string {
	switch v.(type) {
	case nothing:
		return "nothing"
	case bool:
		return "bool"
	case int64:
		return "num"
	case string:
		return "str"
	case ID:
		return "id"
	case []Value, *Map:
		return "array"
	case code:
		return "code"
	}
	return "nil"
}

// outward replaces what must not leave the package.
func outward(v Value) Value {
	switch v := v.(type) {
	case nothing:
		return nil
	case code:
		return v.text
	}
	return v
}
