package driver

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
	"github.com/rds-csi/rds-csi/internal/attach"
	"github.com/rds-csi/rds-csi/internal/config"
	"github.com/rds-csi/rds-csi/internal/nvme"
)

// Keys of the volume context (kept in the PersistentVolume) and of the publish context (kept in the VolumeAttachment).
// nqn, nvmeAddress and nvmePort are also what the existing driver for this device wrote into its volumes.
const (
	keyNQN       = "nqn"
	keyAddress   = "nvmeAddress"
	keyPort      = "nvmePort"
	keySize      = "sizeBytes"
	keyCtrlLoss  = "ctrlLossTimeout"
	keyReconnect = "reconnectDelay"
	keyFSType    = "fsType"
	// keySource is the snapshot or the volume that a volume was made from. Such a one is never formatted.
	keySource = "source"
	// keyClassAddress keeps an address that the StorageClass named: it is the administrator's choice for this volume and
	// outlives a change of the RDS's own address, which every publish brings anew.
	keyClassAddress = "storageClassNVMeAddress"
	// keyVolume is for the controller, not for the node: it tells a VolumeAttachment's volume when its PersistentVolume is gone.
	keyVolume = "volume"
	// keyNodeUID tells for which Node object the volume was published: a Node that was made again under the same name is another.
	keyNodeUID = "nodeUID"
	// keyGranted tells as what the volume was granted (attach.Mode): the PersistentVolume may say something else by now.
	keyGranted = "grantedMode"
	// keyAdopted is a key that the existing driver wrote into all its volumes, and this one into none.
	keyAdopted = "volumePath"
	// keyMigration is how long two nodes may have the volume. keyMigrationSeconds is what the existing driver wrote.
	keyMigration        = "migrationTimeout"
	keyMigrationSeconds = "migrationTimeoutSeconds"
)

// The limits of a migration's time, in a StorageClass and in what the existing driver wrote.
const (
	leastMigration = 30 * time.Second
	mostMigration  = time.Hour
)

// Published reads from a publish context, as a VolumeAttachment keeps it in its status, the volume's canonical handle, the
// UID of the Node, and as what it was granted; each is empty when it is not there. A grant that is not understood is one for
// a single node.
func Published(context map[string]string) (handle, nodeUID string, granted attach.Grant) {
	granted, _ = attach.ParseGrant(context[keyGranted])
	return context[keyVolume], context[keyNodeUID], granted
}

// MigrationTimeout reads from a volume context, as a PersistentVolume keeps it, how long a migration may take; 0 when it
// does not say, or not well. The existing driver's number of seconds is brought within the limits.
func MigrationTimeout(context map[string]string) time.Duration {
	if d, err := parseMigration(context[keyMigration]); err == nil {
		return d
	}
	seconds, err := strconv.ParseInt(context[keyMigrationSeconds], 10, 32)
	if err != nil || seconds <= 0 {
		return 0
	}
	return min(max(time.Duration(seconds)*time.Second, leastMigration), mostMigration)
}

func parseMigration(text string) (time.Duration, error) {
	d, err := config.ParseDuration(text)
	switch {
	case err != nil:
		return 0, err
	case d < leastMigration || d > mostMigration:
		return 0, fmt.Errorf("%s is not from %s to %s", text, leastMigration, mostMigration)
	}
	return d, nil
}

// volumeContext is what the node has to know of a volume for all its life.
func volumeContext(v appliance.Volume, p parameters, from content) map[string]string {
	context := connectionContext(v)
	for key, value := range map[string]string{
		keyCtrlLoss:     p.ctrlLossTimeout,
		keyReconnect:    p.reconnectDelay,
		keyFSType:       p.fsType,
		keySource:       from.String(),
		keyClassAddress: p.nvmeAddress,
		keyMigration:    p.migrationTimeout,
		keySharing:      p.sharing,
	} {
		if value != "" {
			context[key] = value
		}
	}
	return context
}

// publishContext is what the RDS says at the time of the attachment; it wins over the volume context on the node, so
// that a moved portal needs no new PersistentVolume.
func publishContext(v appliance.Volume, volume map[string]string) map[string]string {
	context := connectionContext(v)
	context[keyAddress] = cmp.Or(volume[keyClassAddress], v.Address)
	context[keyVolume] = v.ID.Key()
	context[keySize] = strconv.FormatInt(v.SizeBytes, 10)
	return context
}

func connectionContext(v appliance.Volume) map[string]string {
	return map[string]string{keyNQN: v.NQN, keyAddress: v.Address, keyPort: strconv.Itoa(v.Port)}
}

// connection is how a node reaches a volume, read from the two contexts.
type connection struct {
	target    nvme.Target
	options   nvme.Options
	sizeBytes int64 // 0: not told
	fsType    string
	source    string // what its contents were made from
}

// parseConnection reads the contexts of a request for the volume whose subsystem must be nqn.
//
// The NQN of a volume follows from its slot. One that differs is refused here, and so unstage, which gets no context,
// can trust the derivation: a subsystem that this driver did not name is never connected, and never disconnected.
func parseConnection(nqn string, publish, volume map[string]string, defaults nvme.Options) (connection, error) {
	get := func(key string) string { return cmp.Or(publish[key], volume[key]) }
	c := connection{target: nvme.Target{NQN: nqn, Address: get(keyAddress)}, options: defaults, fsType: volume[keyFSType], source: volume[keySource]}
	if given := get(keyNQN); given != "" && given != nqn {
		return c, invalid("context names subsystem %q, but the volume's is %s: the node connects no other", given, nqn)
	}
	var p parameters
	if err := p.setAddress(c.target.Address); err != nil {
		return c, invalid("context key %s: %v", keyAddress, err)
	}
	var err error
	if c.target.Port, err = parsePort(cmp.Or(get(keyPort), strconv.Itoa(config.DefaultNVMePort))); err != nil {
		return c, invalid("context key %s: %v", keyPort, err)
	}
	if text := get(keySize); text != "" {
		if c.sizeBytes, err = strconv.ParseInt(text, 10, 64); err != nil || c.sizeBytes < 0 {
			return c, invalid("context key %s: %q is not a size in bytes", keySize, text)
		}
	}
	if volume[keyAdopted] != "" {
		c.options = adoptedOptions(volume, defaults)
		return c, nil
	}
	if err := override(&c.options.CtrlLossTimeout, get(keyCtrlLoss), config.CheckCtrlLossTimeout); err != nil {
		return c, invalid("context key %s: %v", keyCtrlLoss, err)
	}
	if err := override(&c.options.ReconnectDelay, get(keyReconnect), config.CheckReconnectDelay); err != nil {
		return c, invalid("context key %s: %v", keyReconnect, err)
	}
	return c, nil
}

// adoptedOptions are those that the existing driver wrote, in seconds. What is outside our limits does not keep such a volume
// from being used: nobody can correct the attributes of a PersistentVolume.
func adoptedOptions(volume map[string]string, options nvme.Options) nvme.Options {
	for key, o := range map[string]struct {
		d     *time.Duration
		check func(time.Duration) error
	}{
		"ctrlLossTmo":  {&options.CtrlLossTimeout, config.CheckCtrlLossTimeout},
		keyReconnect:   {&options.ReconnectDelay, config.CheckReconnectDelay},
		"keepAliveTmo": {&options.KeepAlive, config.CheckKeepAlive},
	} {
		if d, err := config.ParseDuration(volume[key]); err == nil && o.check(d) == nil {
			*o.d = d
		}
	}
	return options
}

func override(d *time.Duration, text string, check func(time.Duration) error) error {
	if text == "" {
		return nil
	}
	given, err := config.ParseDuration(text)
	if err != nil {
		return err
	}
	*d = given
	return check(given)
}
