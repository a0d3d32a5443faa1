package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// runSerialize turns a value into JSON. Of the other formats that RouterOS knows nothing is here.
func runSerialize(ctx context.Context, f *frame, c *command) (Value, error) {
	to, err := f.argument(ctx, c, "to")
	if err != nil {
		return nil, err
	}
	if to != "json" {
		return nil, failf("input does not match any value of to")
	}
	pretty, keep, err := f.jsonOptions(ctx, c)
	if err != nil {
		return nil, err
	}
	v, err := f.argument(ctx, c, "value")
	if err != nil || empty(v) {
		return "", err // nothing serialises to nothing [R]
	}
	var b strings.Builder
	writeJSON(&b, v, keep)
	if !pretty {
		return limited(b.String())
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(b.String()), "", "    "); err != nil {
		return nil, failf("cannot serialize")
	}
	return limited(indented.String())
}

func (f *frame) jsonOptions(ctx context.Context, c *command) (pretty, keep bool, err error) {
	v, err := f.argument(ctx, c, "options")
	for _, o := range elementsOf(v) {
		switch Text(o) {
		case "json.pretty":
			pretty = true
		case "json.no-string-conversion":
			keep = true
		default:
			return false, false, failf("input does not match any value of options")
		}
	}
	return pretty, keep, err
}

// writeJSON writes one line. Without keep, strings that look like numbers become floats [V].
func writeJSON(b *strings.Builder, v Value, keep bool) {
	if b.Len() > textLimit {
		return
	}
	switch v := v.(type) {
	case bool, int64:
		b.WriteString(Text(v))
	case string:
		if n, ok := floating(v); ok && !keep {
			b.WriteString(n)
			return
		}
		quoteJSON(b, v)
	case ID, code:
		quoteJSON(b, Text(v))
	case []Value:
		writeJSONList(b, v, keep)
	case *Map:
		writeJSONMap(b, v, keep)
	default:
		b.WriteString("null") // [I]
	}
}

func writeJSONList(b *strings.Builder, list []Value, keep bool) {
	b.WriteByte('[')
	for i, v := range list {
		if b.Len() > textLimit {
			return
		}
		if i > 0 {
			b.WriteByte(',')
		}
		writeJSON(b, v, keep)
	}
	b.WriteByte(']')
}

func writeJSONMap(b *strings.Builder, m *Map, keep bool) {
	b.WriteByte('{')
	for i, k := range m.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		quoteJSON(b, k)
		b.WriteByte(':')
		writeJSON(b, m.values[k], keep)
	}
	b.WriteByte('}')
}

// floating writes a string that looks like a decimal number the way the device does: 1234 as 1234.000000 [V].
func floating(s string) (string, bool) {
	digits := strings.TrimLeft(strings.TrimPrefix(s, "-"), "0123456789")
	digits = strings.TrimLeft(strings.TrimPrefix(digits, "."), "0123456789")
	if digits != "" || !strings.ContainsAny(s, "0123456789") || strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") {
		return "", false
	}
	n, err := strconv.ParseFloat(s, 64)
	return strconv.FormatFloat(n, 'f', 6, 64), err == nil
}

// quoteJSON writes a JSON string. Bytes that are no UTF-8 are written as the code point of the same number, so that the
// line stays JSON; what a device does with them is not known [U].
func quoteJSON(b *strings.Builder, s string) {
	b.WriteByte('"')
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(b, `\u%04x`, s[i])
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			b.WriteString(escapeJSON(r))
		default:
			b.WriteRune(r)
		}
		i += size
	}
	b.WriteByte('"')
}

func escapeJSON(r rune) string {
	if i := slices.Index([]rune("\b\f\n\r\t"), r); i >= 0 {
		return `\` + "bfnrt"[i:i+1]
	}
	return fmt.Sprintf(`\u%04x`, r)
}
