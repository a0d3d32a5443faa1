package sim

import (
	"fmt"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// shape is how print shows a property; scripts see its plain value.
type shape int

const (
	word    shape = iota // bare: yes, raid10, 512, 8%
	quoted               // "x"
	spaced               // a number grouped with spaces: 53 687 091 200
	human                // bytes as 50.0GiB
	hidden               // not shown: flags stand before the properties, as letters
	comment              // shown as ";;; text" before all else
)

// field is one property of a row.
type field struct {
	name  string
	value console.Value
	shape shape
	later func() console.Value // computes the value when somebody asks for it
}

func (f field) get() console.Value {
	if f.later != nil {
		return f.later()
	}
	return f.value
}

// row is a snapshot of one item.
type row struct {
	id     console.ID
	index  int    // the number that print shows
	flags  string // letters that are set
	fields []field
	disk   *disk // of /disk: the item itself, nil for hardware and pools
	name   string
}

// ID, Get and Props make a row a console.Item.
func (r *row) ID() console.ID { return r.id }

// Get returns the value of a property.
func (r *row) Get(prop string) (console.Value, bool) {
	for _, f := range r.fields {
		if f.name == prop {
			return f.get(), true
		}
	}
	return nil, false
}

// Props lists the properties that are set.
func (r *row) Props() []string {
	names := make([]string, 0, len(r.fields))
	for _, f := range r.fields {
		names = append(names, f.name)
	}
	return names
}

func itemID(n int64) console.ID { return console.ID(fmt.Sprintf("*%X", n)) }

// rows turns what the console hands back into rows again.
func rows(items []console.Item) []*row {
	list := make([]*row, 0, len(items))
	for _, one := range items {
		if r, ok := one.(*row); ok {
			list = append(list, r)
		}
	}
	return list
}

func items(list []*row) []console.Item {
	out := make([]console.Item, 0, len(list))
	for i, r := range list {
		r.index = i
		out = append(out, r)
	}
	return out
}
