//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// story writes plain lines with the seconds since the start before them.
type story struct {
	w     io.Writer
	began time.Time
}

func newStory(w io.Writer) story { return story{w: w, began: time.Now()} }

func (s story) say(format string, args ...any) {
	s.plain("[%5.1fs] %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// quote shows what something else printed, as it printed it.
func (s story) quote(text string) {
	for l := range strings.Lines(strings.TrimSpace(text)) {
		s.plain("         | %s", strings.TrimRight(l, " \r\n"))
	}
}

func (s story) heading(name string) { s.plain("\n-- %s", name) }

func (s story) plain(format string, args ...any) {
	_, _ = fmt.Fprintf(s.w, format+"\n", args...) // there is nobody to tell
}

func (s story) table(lines []line) {
	s.plain("\n%-14s  %-76s %7s", "step", "result", "time")
	for _, l := range lines {
		s.plain("%-14s  %-76s %6.1fs", l.name, l.result, l.took.Seconds())
	}
	s.plain("%-14s  %-76s %6.1fs\n", "", "", time.Since(s.began).Seconds())
}
