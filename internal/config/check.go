package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/internal/appliance"
)

// What the file need not say.
const (
	// DefaultDriverName is the name that the volumes of the existing driver for this device carry.
	DefaultDriverName = "rds.csi.srvlab.io"
	// DefaultNVMePort is the port registered for NVMe/TCP.
	DefaultNVMePort = 4420
	sshPort         = "22"
	// neverGiveUp: a finite loss timeout turns an RDS reboot into I/O errors under live mounts.
	neverGiveUp    = -1 * time.Second
	reconnectDelay = 2 * time.Second
	keepAlive      = 5 * time.Second
	// A look costs four console commands; twice a look is the least after which a contradiction is more than a moment's.
	reconcileInterval = time.Minute
	reconcileGrace    = 2 * time.Minute
	// maxVolumeSeries bounds what the opt-in costs: seven series per volume, and a console command that names every slot.
	maxVolumeSeries = 100
)

func (c *Config) setDefaults() {
	if c.DriverName == "" {
		c.DriverName = DefaultDriverName
	}
	if len(c.RDS) == 1 {
		c.RDS[0].Default = true
	}
	for i := range c.RDS {
		r := &c.RDS[i]
		if r.NVMe.Port == 0 {
			r.NVMe.Port = DefaultNVMePort
		}
		if _, _, err := net.SplitHostPort(r.Address); err != nil && r.Address != "" {
			r.Address = net.JoinHostPort(strings.Trim(r.Address, "[]"), sshPort)
		}
	}
	c.Node.CtrlLossTimeout.orElse(neverGiveUp)
	c.Node.ReconnectDelay.orElse(reconnectDelay)
	c.Node.KeepAlive.orElse(keepAlive)
	c.Reconcile.Interval.orElse(reconcileInterval)
	c.Reconcile.Grace.orElse(reconcileGrace)
}

func (d *Duration) orElse(def time.Duration) {
	if !d.set {
		d.Duration = def
	}
}

var errRequired = errors.New("is required")

// faults collects what is wrong, each with the path of its key.
type faults []error

func (f *faults) add(path, format string, args ...any) {
	*f = append(*f, fault(path, fmt.Sprintf(format, args...)))
}

func (f *faults) check(path string, err error) {
	if err != nil {
		*f = append(*f, fault(path, err.Error()))
	}
}

func (f *faults) duration(path string, d Duration, check func(time.Duration) error) {
	switch {
	case d.fault != "":
		f.add(path, "%s", d.fault)
	case d.set:
		f.check(path, check(d.Duration))
	}
}

func (c *Config) check(role Role) []error {
	var f faults
	// The form that the CSI specification gives to driver names.
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`).MatchString(c.DriverName) {
		f.add("driverName", "%q is not a domain-like name of at most 63 characters a-z, 0-9, dot and hyphen", c.DriverName)
	}
	// It becomes part of the comment of every volume on the RDS and of the key that slots are derived from.
	if c.ClusterID != "" && !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`).MatchString(c.ClusterID) {
		f.add("clusterID", "%q has characters other than A-Z, a-z, 0-9, dot, underscore and hyphen, or more than 63", c.ClusterID)
	}
	c.checkTopology(role, &f)
	f.duration("node.ctrlLossTimeout", c.Node.CtrlLossTimeout, CheckCtrlLossTimeout)
	f.duration("node.reconnectDelay", c.Node.ReconnectDelay, CheckReconnectDelay)
	f.duration("node.keepAlive", c.Node.KeepAlive, CheckKeepAlive)
	if c.Node.MaxVolumes < 0 {
		f.add("node.maxVolumes", "%d is negative", c.Node.MaxVolumes)
	}
	if role == Controller {
		c.checkAppliances(&f)
		c.checkReconcile(&f)
	}
	return f
}

// checkTopology: the names of RDSs are known to the controller only.
func (c *Config) checkTopology(role Role, f *faults) {
	seen := map[string]int{}
	for i, r := range c.Topology {
		at := fmt.Sprintf("topology[%d]", i)
		known := slices.ContainsFunc(c.RDS, func(one RDS) bool { return one.Name == r.RDS })
		j, dup := seen[r.RDS]
		switch {
		case r.RDS == "":
			f.check(at+".rds", errRequired)
		case dup:
			f.add(at+".rds", "%q stands in topology[%d] already", r.RDS, j)
		case role == Controller && !known:
			f.add(at+".rds", "%q is the name of no rds", r.RDS)
		}
		seen[r.RDS] = i
		if len(r.Nodes) == 0 {
			f.check(at+".nodes", errors.New("needs at least one name of a node, or a pattern such as rack-b-*"))
		}
		for k, pattern := range r.Nodes {
			if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
				f.add(fmt.Sprintf("%s.nodes[%d]", at, k), "%q is neither a name nor a pattern with *, ? and [a-z]", pattern)
			}
		}
	}
}

func (c *Config) checkReconcile(f *faults) {
	f.duration("reconcile.interval", c.Reconcile.Interval, between(time.Second, time.Hour))
	f.duration("reconcile.grace", c.Reconcile.Grace, between(time.Second, 24*time.Hour))
	if n := c.Metrics.VolumeSeries; n < 0 || n > maxVolumeSeries {
		f.add("metrics.volumeSeries", "%d is outside 0 to %d", n, maxVolumeSeries)
	}
}

func between(least, most time.Duration) func(time.Duration) error {
	return func(d time.Duration) error {
		if d < least || d > most {
			return fmt.Errorf("%s is outside %s to %s", d, least, most)
		}
		return nil
	}
}

func (c *Config) checkAppliances(f *faults) {
	if len(c.RDS) == 0 {
		f.add("rds", "needs at least one appliance")
		return
	}
	defaults, seen := 0, map[string]int{}
	for i, r := range c.RDS {
		at := fmt.Sprintf("rds[%d]", i)
		if r.Default {
			defaults++
		}
		if j, dup := seen[r.Name]; dup && r.Name != "" {
			f.add(at+".name", "%q is the name of rds[%d] already", r.Name, j)
		}
		seen[r.Name] = i
		r.check(at, f)
	}
	if defaults != 1 {
		f.add("rds", "exactly one appliance must have default: true, %d have", defaults)
	}
}

func (r RDS) check(at string, f *faults) {
	// The name is the first half of volume handles, which outlive this file.
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`).MatchString(r.Name) {
		f.add(at+".name", "%q must be 1 to 32 characters a-z, 0-9 and hyphen, not first or last", r.Name)
	}
	f.check(at+".address", checkHostPort(r.Address))
	if r.User == "" {
		f.check(at+".user", errRequired)
	}
	if r.PrivateKeyFile == "" && r.PasswordFile == "" {
		f.add(at+".privateKeyFile", "is required (or passwordFile)")
	}
	r.checkHostKey(at, f)
	f.check(at+".nvme.address", checkIP(r.NVMe.Address))
	f.check(at+".nvme.port", CheckPort(r.NVMe.Port))
	f.check(at+".pool.path", checkPool(r.Pool.Path))
	r.SSH.check(at+".ssh", f)
}

func checkIP(address string) error {
	if address == "" {
		return errRequired
	}
	if _, err := netip.ParseAddr(address); err != nil {
		return fmt.Errorf("%q is not an IP address (the kernel resolves no names)", address)
	}
	return nil
}

// checkPool uses the one grammar of paths, that of the appliance.
func checkPool(path string) error {
	if path == "" {
		return errRequired
	}
	_, err := appliance.ParsePath(path)
	return err
}

// checkHostKey: the host key is always pinned, in exactly one way. There is no insecure mode.
func (r RDS) checkHostKey(at string, f *faults) {
	switch {
	case r.KnownHostsFile == "" && r.HostKeyFingerprint == "":
		f.add(at+".knownHostsFile", "is required (or hostKeyFingerprint): the host key is always pinned")
	case r.KnownHostsFile != "" && r.HostKeyFingerprint != "":
		f.add(at+".hostKeyFingerprint", "cannot stand beside knownHostsFile: give one of them")
	case r.HostKeyFingerprint != "":
		sum, ok := strings.CutPrefix(r.HostKeyFingerprint, "SHA256:")
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(sum, "="))
		if !ok || err != nil || len(raw) != 32 {
			f.add(at+".hostKeyFingerprint", "must look like SHA256:... as ssh-keygen -l prints it")
		}
	}
}

func (s SSH) check(at string, f *faults) {
	if s.MaxChannels < 0 || s.MaxChannels > 20 { // 20 is the device's own max-sessions [V]
		f.add(at+".maxChannels", "%d is outside 1 to 20", s.MaxChannels)
	}
	positive := between(100*time.Millisecond, time.Hour)
	f.duration(at+".dialTimeout", s.DialTimeout, positive)
	f.duration(at+".commandTimeout", s.CommandTimeout, positive)
	f.duration(at+".keepAlive", s.KeepAlive, positive)
}

func checkHostPort(address string) error {
	if address == "" {
		return errRequired
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || strings.ContainsAny(host, " /@") {
		return fmt.Errorf("%q is not host:port", address)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("%q: the port is not a number", address)
	}
	return CheckPort(n)
}

// CheckPort accepts what TCP has.
func CheckPort(port int) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("%d is not a TCP port", port)
	}
	return nil
}
