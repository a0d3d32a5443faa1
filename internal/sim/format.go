package sim

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// execWidth is the width that an exec channel formats for [R].
const execWidth = 80

type widthKey struct{}

// widthOf is the width that a session asked for with a suffix of its login name, "admin+cet512w" [S].
func widthOf(ctx context.Context) int {
	if w, ok := ctx.Value(widthKey{}).(int); ok {
		return w
	}
	return execWidth
}

// Of the width two columns stay free: every break in the samples of 80 and of 240 columns agrees with that [I].
const margin = 2

// In the sample of 80 columns, continuation lines of print detail stand at 15; on a wide terminal, below the first
// property [R].
const execIndent = 15

const eol = "\r\n"

// listing is a human form of print: detail, terse, or a table of columns.
type listing struct {
	flags   [][2]string // letters and names, in their order
	inUse   []*row      // whose flags the header explains, if no row is printed
	columns []string
	width   int
}

func (l listing) print(w io.Writer, chosen []*row, style console.PrintStyle) error {
	if style.Proplist != nil {
		l.columns = style.Proplist
	}
	var b strings.Builder
	switch {
	case style.Form == console.Detail:
		l.header(&b, chosen)
		l.detail(&b, chosen, style.Proplist)
	case style.Form == console.Terse && !slices.Contains(style.Flags, "stats"): // stats ignores terse [R]
		l.terse(&b, chosen, style.Proplist)
	default:
		l.header(&b, chosen)
		l.table(&b, chosen)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// header explains the flags in use: those of the rows printed [R]. It comes even when there is none [R]; then it is
// taken to explain those of the whole menu [I].
func (l listing) header(b *strings.Builder, chosen []*row) {
	if len(l.flags) == 0 {
		return
	}
	if len(chosen) == 0 {
		chosen = l.inUse
	}
	var parts []string
	for _, f := range l.flags {
		if strings.Contains(l.letters(chosen), f[0]) {
			parts = append(parts, f[0]+" - "+f[1])
		}
	}
	b.WriteString("Flags: " + strings.Join(parts, "; ") + eol)
}

// letters are the flags that get a column.
func (l listing) letters(chosen []*row) string {
	s := ""
	for _, f := range l.flags {
		if slices.ContainsFunc(chosen, func(r *row) bool { return strings.Contains(r.flags, f[0]) }) {
			s += f[0]
		}
	}
	return s
}

// mark writes the flags of a row, each in its column.
func mark(r *row, letters string) string {
	s := ""
	for _, c := range letters {
		if strings.ContainsRune(r.flags, c) {
			s += string(c)
		} else {
			s += " "
		}
	}
	return s
}

// detail writes name=value, wrapped, with an empty line between items [R].
func (l listing) detail(b *strings.Builder, chosen []*row, proplist []string) {
	letters := l.letters(chosen)
	for i, r := range chosen {
		if i > 0 {
			b.WriteString(eol)
		}
		first := fmt.Sprintf("%2d %s ", r.index, mark(r, letters))
		indent := len(first)
		if l.width == execWidth {
			indent = execIndent
		}
		lines := wrapper{b: b, limit: l.width - margin, indent: indent, at: len(first)}
		b.WriteString(first)
		for _, f := range visible(r, proplist) {
			if f.shape == comment {
				b.WriteString(";;; " + console.Text(f.get()))
				lines.newline()
				continue
			}
			lines.put(f.name + "=" + f.show())
		}
		b.WriteString(eol)
	}
}

// visible are the fields that print shows.
func visible(r *row, proplist []string) []field {
	var list []field
	for _, f := range r.fields {
		if f.shape != hidden && (proplist == nil || slices.Contains(proplist, f.name)) {
			list = append(list, f)
		}
	}
	return list
}

// show writes a value as print does.
func (f field) show() string {
	v := f.get()
	switch v := v.(type) {
	case bool:
		if v {
			return yes
		}
		return no
	case int64:
		if f.shape == spaced {
			return grouped(v)
		}
		if f.shape == human {
			return sized(v)
		}
	}
	if f.shape == quoted {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(console.Text(v)) + `"`
	}
	return console.Text(v)
}

// bare writes a value without quotes, as tables do.
func (f field) bare() string {
	if f.shape == quoted {
		f.shape = word
	}
	return f.show()
}

// wrapper breaks lines between properties, and within one that is longer than a line [R].
type wrapper struct {
	b      *strings.Builder
	limit  int
	indent int
	at     int
	begun  bool // something stands on this line already
}

func (w *wrapper) put(s string) {
	if w.begun && w.at+1+len(s) > w.limit {
		w.newline()
	}
	if w.begun {
		w.b.WriteByte(' ')
		w.at++
	}
	for w.at+len(s) > w.limit {
		n := w.limit - w.at
		w.b.WriteString(s[:n])
		s = s[n:]
		w.newline()
	}
	w.b.WriteString(s)
	w.at += len(s)
	w.begun = true
}

func (w *wrapper) newline() {
	w.b.WriteString(eol + strings.Repeat(" ", w.indent))
	w.at, w.begun = w.indent, false
}

// terse writes one item per line.
func (l listing) terse(b *strings.Builder, chosen []*row, proplist []string) {
	letters := l.letters(chosen)
	for _, r := range chosen {
		fmt.Fprintf(b, "%2d %s", r.index, mark(r, letters))
		for _, f := range visible(r, proplist) {
			b.WriteString(" " + f.name + "=" + f.bare())
		}
		b.WriteString(eol)
	}
}

// table writes columns two spaces apart, numbers to the right, every line padded to the end [R].
func (l listing) table(b *strings.Builder, chosen []*row) {
	if len(chosen) == 0 {
		return
	}
	letters := l.letters(chosen)
	digits := len(strconv.Itoa(chosen[len(chosen)-1].index))
	left := func(number, flags string) string {
		if letters == "" {
			return fmt.Sprintf("%-*s", digits, number)
		}
		return fmt.Sprintf("%-*s %-*s", digits, number, len(letters), flags)
	}
	lines := []string{left("#", "")}
	for _, r := range chosen {
		lines = append(lines, left(strconv.Itoa(r.index), mark(r, letters)))
	}
	var shown []string
	for _, name := range l.columns {
		if column, ok := columnOf(name, chosen); ok {
			gap := "  "
			if len(shown) == 0 {
				gap = " "
			}
			for i := range lines {
				lines[i] += gap + column[i]
			}
			shown = append(shown, strings.ToUpper(name))
		}
	}
	b.WriteString("Columns: " + strings.Join(shown, ", ") + eol)
	for _, line := range lines {
		b.WriteString(line + eol)
	}
}

// columnOf is a column with its heading, padded; a column that no row has does not appear.
func columnOf(name string, chosen []*row) (cells []string, found bool) {
	cells, right := make([]string, 1, 1+len(chosen)), false
	cells[0] = strings.ToUpper(name)
	for _, r := range chosen {
		cell := ""
		for _, f := range r.fields {
			if f.name == name {
				cell, found = f.bare(), true
				right = right || f.shape == spaced || f.shape == human
			}
		}
		cells = append(cells, cell)
	}
	width := 0
	for _, c := range cells {
		width = max(width, len(c))
	}
	for i, c := range cells {
		if right {
			cells[i] = fmt.Sprintf("%*s", width, c)
		} else {
			cells[i] = fmt.Sprintf("%-*s", width, c)
		}
	}
	return cells, found
}
