package nvme

import (
	"fmt"
	"slices"
	"strings"
)

// Session is one controller of this host to a volume's subsystem.
type Session struct {
	NQN, State string
	Target     string // address and port, for people
}

// Live says that I/O flows.
func (s Session) Live() bool { return s.State == "live" }

// Sessions lists this host's NVMe/TCP controllers that lead to volumes, ordered by target and NQN.
func (i *Initiator) Sessions() ([]Session, error) {
	dirs, err := i.class("nvme")
	if err != nil {
		return nil, err
	}
	var sessions []Session
	for _, dir := range dirs {
		state, ours, err := i.ours(dir)
		if err != nil {
			return nil, err
		}
		if !ours {
			continue
		}
		nqn, err := attribute(dir, "subsysnqn")
		if vanished(err) || err == nil && !strings.HasPrefix(nqn, volumePrefix) {
			continue
		}
		if err != nil {
			return nil, err
		}
		c, err := readController(dir)
		if vanished(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, Session{NQN: nqn, State: state, Target: c.target()})
	}
	slices.SortFunc(sessions, func(a, b Session) int {
		return strings.Compare(a.Target+" "+a.NQN, b.Target+" "+b.NQN)
	})
	return sessions, nil
}

// target is where a controller leads to, as people write it.
func (c controller) target() string {
	fields := c.fields()
	if fields["traddr"] == "" {
		return "an unknown address"
	}
	return fmt.Sprintf("%s port %s", fields["traddr"], fields["trsvcid"])
}

func (c controller) fields() map[string]string {
	fields := map[string]string{}
	for f := range strings.SplitSeq(c.address, ",") {
		k, v, _ := strings.Cut(f, "=")
		fields[k] = v
	}
	return fields
}
