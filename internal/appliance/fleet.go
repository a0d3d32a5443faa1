package appliance

import (
	"fmt"
	"slices"
)

// Fleet is all configured RDSs; one of them is the default.
type Fleet struct {
	defaultName string
	all         []*RDS
}

// NewFleet takes the RDSs over; it must be called before they are used.
func NewFleet(defaultName string, rds ...*RDS) (*Fleet, error) {
	f := &Fleet{defaultName: defaultName, all: slices.Clone(rds)}
	for i, r := range rds {
		if slices.ContainsFunc(rds[:i], func(other *RDS) bool { return other.Name() == r.Name() }) {
			return nil, fmt.Errorf("%w: two rds are called %s", ErrInvalid, r.Name())
		}
		r.isDefault = r.Name() == defaultName
	}
	if _, err := f.RDS(defaultName); err != nil {
		return nil, fmt.Errorf("%w: the default rds: %w", ErrInvalid, err)
	}
	return f, nil
}

// RDS finds one by its name; "" is the default.
func (f *Fleet) RDS(name string) (*RDS, error) {
	if name == "" {
		name = f.defaultName
	}
	for _, r := range f.all {
		if r.Name() == name {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%w: %q is not in the configuration", ErrUnknownRDS, name)
}

// All are the RDSs in the order of the configuration.
func (f *Fleet) All() []*RDS { return slices.Clone(f.all) }

// ParseID reads a volume handle; a bare one lies on the default RDS.
func (f *Fleet) ParseID(handle string) (ID, error) { return ParseID(handle, f.defaultName) }
