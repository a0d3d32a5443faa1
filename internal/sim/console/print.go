package console

import (
	"bytes"
	"context"
	"errors"
	"strings"
)

// print shows items, or yields them as a value.
func (f *frame) print(ctx context.Context, c *command) (Value, error) {
	items, err := f.selected(ctx, c)
	if err != nil {
		return nil, err
	}
	style, err := f.printStyle(ctx, c)
	if err != nil {
		return nil, err
	}
	switch {
	case c.has("count-only"): // shown and returned, both [R]
		f.run.out.line(Text(int64(len(items))))
		return int64(len(items)), nil
	case c.has("as-value"): // not shown since 7.10 [S]
		return asValue(c.menu, items, valueProps(c, style)), nil
	case c.has("file"):
		return nil, f.printFile(ctx, c, items, style)
	}
	return nothing{}, c.menu.Print(ctx, f.run.out, items, style)
}

func (f *frame) printStyle(ctx context.Context, c *command) (PrintStyle, error) {
	style := PrintStyle{}
	v, err := f.argument(ctx, c, "proplist")
	if err != nil {
		return style, err
	}
	for _, name := range elementsOf(v) {
		style.Proplist = append(style.Proplist, strings.Split(Text(name), ",")...)
	}
	for _, a := range c.args {
		switch {
		case !a.flag:
		case a.name == "detail":
			style.Form = Detail
		case a.name == "terse":
			style.Form = Terse
		default:
			style.Flags = append(style.Flags, a.name)
		}
	}
	return style, nil
}

// valueProps are the properties that as-value yields: those asked for; all with `detail`; else the table's columns.
func valueProps(c *command, style PrintStyle) []string {
	if style.Proplist != nil || style.Form == Detail {
		return style.Proplist
	}
	if t, ok := c.menu.(Tabular); ok {
		return t.Columns()
	}
	return nil
}

func asValue(menu Menu, items []Item, props []string) Value {
	if singleton(menu) && len(items) == 1 {
		return asMap(items[0], props)
	}
	rows := make([]Value, 0, len(items))
	for _, item := range items {
		rows = append(rows, asMap(item, props))
	}
	return rows
}

// asMap is an item as an array with keys; props nil means all. The id is always there.
func asMap(item Item, props []string) *Map {
	m := NewMap()
	if id := item.ID(); id != "" {
		m.Set(".id", id)
	}
	if props == nil {
		props = item.Props()
	}
	for _, name := range props {
		if v, ok := item.Get(name); ok {
			m.Set(name, v)
		}
	}
	return m
}

func (f *frame) printFile(ctx context.Context, c *command, items []Item, style PrintStyle) error {
	store, ok := f.run.device.(Storer)
	if !ok {
		return errors.New("failure: cannot write file")
	}
	v, err := f.argument(ctx, c, "file")
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := c.menu.Print(ctx, &text, items, style); err != nil {
		return err
	}
	return store.Store(ctx, Text(v), text.Bytes())
}
