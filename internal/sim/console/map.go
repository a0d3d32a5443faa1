package console

import "slices"

// Map is an array with keys. RouterOS keeps such arrays sorted by key [V], which is why ".id" comes first in as-value.
type Map struct {
	keys   []string
	values map[string]Value
}

// NewMap returns an empty map.
func NewMap() *Map { return &Map{values: map[string]Value{}} }

// Set sets a key.
func (m *Map) Set(key string, v Value) {
	if at, found := slices.BinarySearch(m.keys, key); !found {
		m.keys = slices.Insert(m.keys, at, key)
	}
	m.values[key] = v
}

// Get returns the value of a key.
func (m *Map) Get(key string) (Value, bool) {
	v, ok := m.values[key]
	return v, ok
}

// Keys returns the keys in order.
func (m *Map) Keys() []string { return slices.Clone(m.keys) }

// Len returns the number of keys.
func (m *Map) Len() int { return len(m.keys) }
