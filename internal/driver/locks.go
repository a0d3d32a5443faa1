package driver

import (
	"errors"
	"fmt"
	"sync"
)

// errBusy answers a call for a volume that another call is working on. The CSI specification wants ABORTED, and the
// caller to come again; waiting here would pile up callers behind one dead volume.
var errBusy = errors.New("another operation on this volume is still running")

// locks lets one operation at a time work on a volume, and never makes one volume wait for another.
type locks struct {
	mu   sync.Mutex
	held map[string]string // key: the operation that holds it
}

// lock takes key for an operation; the returned function gives it back.
func (l *locks) lock(key, operation string) (unlock func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if holder, busy := l.held[key]; busy {
		return nil, fmt.Errorf("%s: %s waits for %s: %w; try again", key, operation, holder, errBusy)
	}
	if l.held == nil {
		l.held = map[string]string{}
	}
	l.held[key] = operation
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, key)
	}, nil
}
