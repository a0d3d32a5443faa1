package appliance

import (
	"fmt"
	"slices"
)

// Fleet is all configured RDSs; one of them is the default.
type Fleet struct{ all []*RDS }

// NewFleet checks that the names differ and that one RDS is the default.
func NewFleet(all ...*RDS) (*Fleet, error) {
	defaults := 0
	for i, r := range all {
		if slices.ContainsFunc(all[:i], func(other *RDS) bool { return other.Name() == r.Name() }) {
			return nil, fmt.Errorf("%w: two rds are called %s", ErrInvalid, r.Name())
		}
		if r.settings.Default {
			defaults++
		}
	}
	if defaults != 1 {
		return nil, fmt.Errorf("%w: %d rds are the default, there must be one", ErrInvalid, defaults)
	}
	return &Fleet{all: slices.Clone(all)}, nil
}

// RDS finds one by its name; "" is the default.
func (f *Fleet) RDS(name string) (*RDS, error) {
	i := slices.IndexFunc(f.all, func(r *RDS) bool { return r.Name() == name || (name == "" && r.settings.Default) })
	if i < 0 {
		return nil, fmt.Errorf("%w: %q is not in the configuration", ErrUnknownRDS, name)
	}
	return f.all[i], nil
}

// All are the RDSs in the order of the configuration.
func (f *Fleet) All() []*RDS { return slices.Clone(f.all) }
