package routeros

import (
	"encoding/json"
	"fmt"
)

// Reply is what a script printed before it was done.
type Reply struct {
	Lines []string
}

// JSON decodes line i, which the script printed with `:put [:serialize to=json ...]`. A line that is missing or is not
// JSON means that it is not known what the script found: the error wraps ErrOutcomeUnknown, and is never to be read as "nothing there".
func (r Reply) JSON(i int, v any) error {
	if i >= len(r.Lines) {
		return fmt.Errorf("%w: the reply has %d lines, line %d was to hold JSON", ErrOutcomeUnknown, len(r.Lines), i+1)
	}
	if err := json.Unmarshal([]byte(r.Lines[i]), v); err != nil {
		return fmt.Errorf("%w: line %d of the reply, %q: %w", ErrOutcomeUnknown, i+1, shorten(r.Lines[i]), err)
	}
	return nil
}

// shorten keeps an error message readable.
func shorten(s string) string {
	const limit = 300
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}
