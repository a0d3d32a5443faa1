package console

import "slices"

// Map is an array with keys. It keeps the order in which keys were first set.
type Map struct {
	keys   []string
	values map[string]Value
}

// NewMap returns an empty map.
func NewMap() *Map { return &Map{values: map[string]Value{}} }

// Set sets a key.
func (m *Map) Set(key string, v Value) {
	if _, ok := m.values[key]; !ok {
		m.keys = append(m.keys, key)
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
