package appliance

import (
	"encoding/json"
	"fmt"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// record is one row of a print, as `:serialize to=json` writes it. Its values are decoded one by one, and only those that
// are needed: a row that is not ours may hold anything, and must not spoil the list.
type record map[string]json.RawMessage

// records reads the rows in line i of a reply. Only a parsed, empty array means that there are none (B15).
func records(reply routeros.Reply, i int) ([]record, error) {
	var rows []record
	if err := reply.JSON(i, &rows); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if rows == nil {
		return nil, fmt.Errorf("%w: nothing where a list was to be", ErrAnswer)
	}
	return rows, nil
}

// text is a property as text; absent reads as empty.
func (r record) text(key string) string {
	var s routeros.String
	if json.Unmarshal(r[key], &s) != nil {
		return ""
	}
	return string(s)
}

// truth is a property as yes or no, and what to assume where it is absent or unreadable.
func (r record) truth(key string, otherwise bool) bool {
	var b routeros.Bool
	if json.Unmarshal(r[key], &b) != nil {
		return otherwise
	}
	return bool(b)
}

// number is a property as a whole number.
func (r record) number(key string) (int64, bool) {
	var n routeros.Int
	if json.Unmarshal(r[key], &n) != nil {
		return 0, false
	}
	return int64(n), true
}

// path is a property as a path; what our grammar does not admit reads as zero, which is nowhere.
func (r record) path(key string) Path {
	p, err := ParsePath(r.text(key))
	if err != nil {
		return Path{}
	}
	return p
}

// size is what the item offers to a host: "size" is the device's, "file-size" the image's; they are equal for a plain
// file [R].
func (r record) size() (int64, bool) {
	if n, ok := r.number("size"); ok && n > 0 {
		return n, true
	}
	if n, ok := r.number("file-size"); ok && n > 0 {
		return n, true
	}
	return 0, false
}
