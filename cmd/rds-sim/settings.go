package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/rds-csi/rds-csi/internal/sim"
)

// settings are what flags and the file of --config say. A flag wins over the file; quirks and faults add to it.
type settings struct {
	SSHAddress     string            `json:"sshAddress"`
	Data           string            `json:"data"`
	AuthorizedKeys string            `json:"authorizedKeys"`
	HostKey        string            `json:"hostKey"`
	NVMeAddress    string            `json:"nvmeAddress"`
	NVMePort       int               `json:"nvmePort"`
	Version        string            `json:"version"`
	Identity       string            `json:"identity"`
	Quirks         map[string]string `json:"quirks"`
	Faults         []string          `json:"faults"`
	Pools          []poolSetting     `json:"pools"`

	pools []sim.Pool
}

type poolSetting struct {
	Slot       string `json:"slot"`
	Filesystem string `json:"filesystem"`
	Size       string `json:"size"` // bytes, or with a binary suffix: 8T
}

// settingsFrom reads the command line. It returns flag.ErrHelp after printing the help.
func settingsFrom(args []string, stderr io.Writer) (settings, error) {
	given := settings{Quirks: map[string]string{}}
	set := flags(&given)
	configFile := set.String("config", "", "YAML `FILE` with the same settings")
	set.SetOutput(stderr)
	set.Usage = func() { usage(set, stderr) }
	if err := set.Parse(args); err != nil {
		return settings{}, err
	}
	if set.NArg() > 0 {
		return settings{}, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	s, err := fromFile(*configFile)
	if err != nil {
		return settings{}, err
	}
	s.override(given)
	return s.complete()
}

func flags(to *settings) *flag.FlagSet {
	set := flag.NewFlagSet("rds-sim", flag.ContinueOnError)
	set.StringVar(&to.SSHAddress, "ssh-address", "", "`HOST:PORT` to answer SSH at (default 127.0.0.1:2222)")
	set.StringVar(&to.Data, "data", "", "`DIR` for what outlives a power loss: configuration, pools, keys (required)")
	set.StringVar(&to.AuthorizedKeys, "authorized-keys", "",
		"`FILE` of public keys that log in as csi and as admin (default: keys are made in DIR/keys)")
	set.StringVar(&to.HostKey, "host-key", "", "private key `FILE` of the device (default: RSA, made in DIR)")
	set.StringVar(&to.NVMeAddress, "nvme-address", "",
		"`IP` at which exports appear, through the kernel's NVMe target where it has one")
	set.IntVar(&to.NVMePort, "nvme-port", 0, "TCP `PORT` for the printed configuration (default 4420)")
	set.StringVar(&to.Version, "version", "", "RouterOS `RELEASE` to imitate (default 7.24)")
	set.Func("quirk", "`NAME=VALUE` of a switch, see below; may be repeated", func(v string) error {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			return errors.New("want NAME=VALUE")
		}
		to.Quirks[name] = value
		return nil
	})
	set.Func("fault", "`SPEC` of something that goes wrong, see below; may be repeated", func(v string) error {
		to.Faults = append(to.Faults, v)
		return nil
	})
	return set
}

func usage(set *flag.FlagSet, w io.Writer) {
	_, _ = fmt.Fprintln(w, "rds-sim simulates a MikroTik RDS: its console over SSH, its disks and their exports.\n\nFlags:")
	set.PrintDefaults()
	_, _ = fmt.Fprintln(w, "\nQuirks: what is not known of the real device, or differs. NAME VALUES (DEFAULT)")
	_ = sim.PrintQuirks(w)
	_, _ = fmt.Fprintln(w, "\nFaults: kind[=value][@command-substring][:count], as in drop-after@/disk/add:1")
	for _, k := range sim.FaultKinds() {
		_, _ = fmt.Fprintf(w, "  %-22s %s\n", k[0], k[1])
	}
}

func fromFile(name string) (settings, error) {
	s := settings{}
	if name == "" {
		return s, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return s, err
	}
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (s *settings) override(given settings) {
	for _, one := range []struct {
		to   *string
		from string
	}{
		{&s.SSHAddress, given.SSHAddress}, {&s.Data, given.Data}, {&s.AuthorizedKeys, given.AuthorizedKeys},
		{&s.HostKey, given.HostKey}, {&s.NVMeAddress, given.NVMeAddress}, {&s.Version, given.Version},
	} {
		if one.from != "" {
			*one.to = one.from
		}
	}
	if given.NVMePort != 0 {
		s.NVMePort = given.NVMePort
	}
	if s.Quirks == nil {
		s.Quirks = map[string]string{}
	}
	maps.Copy(s.Quirks, given.Quirks)
	s.Faults = append(s.Faults, given.Faults...)
}

// complete fills in defaults and reads what is still text.
func (s settings) complete() (settings, error) {
	if s.Data == "" {
		return s, errors.New("--data is required: the directory for what the device remembers")
	}
	data, err := filepath.Abs(s.Data)
	if err != nil {
		return s, err
	}
	s.Data = data
	if s.SSHAddress == "" {
		s.SSHAddress = "127.0.0.1:2222"
	}
	if s.NVMePort == 0 {
		s.NVMePort = 4420
	}
	if s.NVMePort < 1 || s.NVMePort > 65535 {
		return s, fmt.Errorf("--nvme-port %d: not a TCP port", s.NVMePort)
	}
	if s.Version == "" {
		s.Version = "7.24"
	}
	for _, p := range s.Pools {
		size, err := sim.ParseSize(p.Size)
		if err != nil {
			return s, fmt.Errorf("pool %s: size %q: want bytes, or a number with K, M, G, T or P", p.Slot, p.Size)
		}
		s.pools = append(s.pools, sim.Pool{Slot: p.Slot, Filesystem: p.Filesystem, SizeBytes: size})
	}
	return s, nil
}
