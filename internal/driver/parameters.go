package driver

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/config"
)

// parameters is a StorageClass, read.
type parameters struct {
	rds, fsType                     string
	pool                            appliance.Path // zero: the RDS's own
	nvmeAddress                     string
	nvmePort                        int
	ctrlLossTimeout, reconnectDelay string // as written, checked
	migrationTimeout                string // as written, checked
	sharing                         string // as written, checked
	namespace, claim                string
}

const (
	paramFSType    = "csi.storage.k8s.io/fstype"
	paramNamespace = "csi.storage.k8s.io/pvc/namespace"
	paramClaim     = "csi.storage.k8s.io/pvc/name"
	paramVolume    = "csi.storage.k8s.io/pv/name"
)

// parameterTable is what a StorageClass may say. The keys of a claim are added by external-provisioner
// (--extra-create-metadata), which also keeps the file system key to itself and passes it as a capability; a caller
// without that sidecar may pass it here.
func parameterTable() map[string]func(*parameters, string) error {
	return map[string]func(*parameters, string) error{
		"rds":         func(p *parameters, v string) error { p.rds = v; return nil },
		"poolPath":    (*parameters).setPool,
		paramFSType:   (*parameters).setFSType,
		"nvmeAddress": (*parameters).setAddress,
		"nvmePort":    (*parameters).setPort,
		keyCtrlLoss: func(p *parameters, v string) error {
			p.ctrlLossTimeout = v
			return checkDuration(v, config.CheckCtrlLossTimeout)
		},
		keyReconnect: func(p *parameters, v string) error {
			p.reconnectDelay = v
			return checkDuration(v, config.CheckReconnectDelay)
		},
		keyMigration: func(p *parameters, v string) error {
			p.migrationTimeout = v
			_, err := parseMigration(v)
			return err
		},
		keySharing:     func(p *parameters, v string) error { p.sharing = v; return checkSharing(v) },
		paramNamespace: func(p *parameters, v string) error { p.namespace = v; return nil },
		paramClaim:     func(p *parameters, v string) error { p.claim = v; return nil },
		paramVolume:    func(*parameters, string) error { return nil },
	}
}

// parseParameters refuses what it does not know: a mistyped key would silently put data elsewhere.
func parseParameters(given map[string]string) (parameters, error) {
	var p parameters
	known := parameterTable()
	for key, value := range given {
		set, ok := known[key]
		if !ok {
			return p, invalid("unknown StorageClass parameter %q; known are %s", key, knownParameters(known))
		}
		if err := set(&p, value); err != nil {
			return p, invalid("StorageClass parameter %s: %v", key, err)
		}
	}
	return p, nil
}

func knownParameters[V any](known map[string]V) string {
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (p *parameters) setPool(v string) (err error) {
	p.pool, err = appliance.ParsePath(v)
	return err
}

func (p *parameters) setFSType(v string) (err error) {
	p.fsType, err = checkFSType(v)
	return err
}

func (p *parameters) setAddress(v string) error {
	if _, err := netip.ParseAddr(v); err != nil {
		return fmt.Errorf("%q is not an IP address (the kernel resolves no names)", v)
	}
	p.nvmeAddress = v
	return nil
}

func (p *parameters) setPort(v string) (err error) {
	p.nvmePort, err = parsePort(v)
	return err
}

func parsePort(v string) (int, error) {
	port, err := strconv.Atoi(v)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", v)
	}
	return port, config.CheckPort(port)
}

func checkDuration(v string, check func(time.Duration) error) error {
	d, err := config.ParseDuration(v)
	if err != nil {
		return err
	}
	return check(d)
}

// owner is the claim as <namespace>/<name>, for the comment on the RDS; empty when the sidecar does not tell.
func (p parameters) owner() string {
	if p.claim == "" {
		return ""
	}
	return p.namespace + "/" + p.claim
}
