package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Duration reads a Go duration ("2s", "10m") or a whole number of seconds. -1, bare or with a unit, stands for
// "never" where a setting allows it, as in the kernel's own ctrl_loss_tmo.
type Duration struct {
	time.Duration
	set   bool
	fault string // kept rather than returned: the decoder would stop at the first one
}

// UnmarshalJSON never fails: a fault waits for the check that knows the key's path.
func (d *Duration) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	d.set = true
	text := string(data)
	var quoted string
	if json.Unmarshal(data, &quoted) == nil {
		text = quoted
	}
	var err error
	if d.Duration, err = ParseDuration(text); err != nil {
		d.fault = err.Error()
	}
	return nil
}

// ParseDuration reads the one notation used by the file and by StorageClass parameters.
func ParseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a duration like 2s or 10m nor a number of seconds", text)
	}
	return d, nil
}

// CheckCtrlLossTimeout says what the kernel's ctrl_loss_tmo can carry: whole seconds, and any negative number as "never
// give up" [R drivers/nvme/host/fabrics.c].
func CheckCtrlLossTimeout(d time.Duration) error {
	if d < 0 {
		return nil
	}
	return wholeSeconds(d, 24*time.Hour)
}

// CheckReconnectDelay refuses 0, which the kernel refuses too.
func CheckReconnectDelay(d time.Duration) error { return wholeSeconds(d, 10*time.Minute) }

// CheckKeepAlive refuses 0: it would turn the keep-alive off, and a dead target would go unnoticed.
func CheckKeepAlive(d time.Duration) error { return wholeSeconds(d, 10*time.Minute) }

func wholeSeconds(d, most time.Duration) error {
	switch {
	case d < time.Second, d > most:
		return fmt.Errorf("%s is outside 1s to %s", d, most)
	case d%time.Second != 0:
		return errors.New("the kernel takes whole seconds only")
	}
	return nil
}
