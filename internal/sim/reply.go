package sim

import (
	"bytes"
	"io"
)

// reply is the output of a script. It passes on what is written at once, as the device does [R], unless it is to be
// spoilt first. A reader who has gone does not stop the script.
type reply struct {
	to   io.Writer
	hold bool
	held bytes.Buffer
	dead bool
}

// Write never fails.
func (r *reply) Write(p []byte) (int, error) {
	if r.hold {
		return r.held.Write(p)
	}
	if !r.dead {
		_, err := r.to.Write(p)
		r.dead = err != nil
	}
	return len(p), nil
}

// release writes what was held back, spoilt.
func (r *reply) release(garbage string) {
	if !r.hold {
		return
	}
	text := r.held.Bytes()
	switch garbage {
	case "cut":
		text = text[:len(text)/2]
	default:
		for i := range text {
			text[i] = text[i]*37 + byte(i)*11 | 0x80
		}
		text = append([]byte("\xff\x00\x1b["), text...)
	}
	_, _ = r.to.Write(text) // in vain when the reader has gone
}
