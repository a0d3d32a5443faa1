// Package config reads the one configuration file that the controller and the node plugin share.
//
// A file is checked as a whole: every fault is reported at once, each with the path of its key, so that an
// administrator repairs it in one pass and not in one restart per mistake.
package config

import (
	"errors"
	"fmt"
	"os"
)

// Role says how much of the file a process depends on.
type Role int

const (
	// Controller needs everything.
	Controller Role = iota
	// Node needs driverName, clusterID, topology and node. The addresses of a volume reach it with each request, so it
	// works with a file that has no rds section, and it never opens the key of an RDS: a key on every node would
	// make each of them an administrator of the storage.
	Node
)

// Config is the configuration file.
type Config struct {
	DriverName string     `json:"driverName"`
	ClusterID  string     `json:"clusterID"` // empty: the UID of namespace kube-system
	RDS        []RDS      `json:"rds"`
	Topology   []Reach    `json:"topology"`
	Node       NodeConfig `json:"node"`
	Reconcile  Reconcile  `json:"reconcile"`
	Metrics    Metrics    `json:"metrics"`
}

// RDS is one appliance. No address has a default: a guessed one reaches somebody else's device.
type RDS struct {
	Name               string `json:"name"`
	Default            bool   `json:"default"`
	Address            string `json:"address"` // management, host:port
	User               string `json:"user"`
	PrivateKeyFile     string `json:"privateKeyFile"`
	PasswordFile       string `json:"passwordFile"`
	KnownHostsFile     string `json:"knownHostsFile"`
	HostKeyFingerprint string `json:"hostKeyFingerprint"` // SHA256:...
	NVMe               NVMe   `json:"nvme"`
	Pool               Pool   `json:"pool"`
	SSH                SSH    `json:"ssh"`
}

// Reach names the nodes that reach an RDS over NVMe/TCP. An RDS of which nothing is said is reached by all.
type Reach struct {
	RDS   string   `json:"rds"`
	Nodes []string `json:"nodes"` // names, or patterns as in path.Match
}

// NVMe is where the nodes reach the exports of an RDS.
type NVMe struct {
	Address string `json:"address"` // an IP address: the kernel's fabrics interface resolves no names
	Port    int    `json:"port"`
}

// Pool is the directory that volumes are made in.
type Pool struct {
	Path string `json:"path"`
}

// SSH tunes the console connection. Zero values leave the choice to the client.
type SSH struct {
	MaxChannels    int      `json:"maxChannels"`
	SerializeOpen  bool     `json:"serializeOpen"`
	DialTimeout    Duration `json:"dialTimeout"`
	CommandTimeout Duration `json:"commandTimeout"`
	KeepAlive      Duration `json:"keepAlive"`
}

// NodeConfig is how a node holds its connections unless a StorageClass says otherwise.
type NodeConfig struct {
	CtrlLossTimeout Duration `json:"ctrlLossTimeout"` // negative: never give up
	ReconnectDelay  Duration `json:"reconnectDelay"`
	KeepAlive       Duration `json:"keepAlive"`
	MaxVolumes      int      `json:"maxVolumes"` // attached at once; 0: what the node's kernel can hold
}

// Reconcile is how the controller looks after what is attached.
type Reconcile struct {
	Interval Duration `json:"interval"` // between two looks at an RDS
	Grace    Duration `json:"grace"`    // for how long a contradiction must have been seen before it counts
}

// Metrics tunes what the controller shows.
type Metrics struct {
	VolumeSeries int `json:"volumeSeries"` // attached volumes with rds_disk_* series of their own, at most
}

// Load reads and checks the file at path for one role.
func Load(path string, role Role) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	cfg, err := Parse(data, role)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return cfg, nil
}

// Parse checks the text of a file for one role. The error joins every fault found.
func Parse(data []byte, role Role) (Config, error) {
	cfg, faults := decode(data)
	cfg.setDefaults()
	faults = append(faults, cfg.check(role)...)
	if len(faults) > 0 {
		return Config{}, errors.Join(faults...)
	}
	return cfg, nil
}

// DefaultRDS names the appliance that serves requests which name none. Empty when there is no rds section.
func (c Config) DefaultRDS() string {
	for _, r := range c.RDS {
		if r.Default {
			return r.Name
		}
	}
	return ""
}

// NodesByRDS is the topology as a map: who reaches what is not reached by all. Empty when all is.
func (c Config) NodesByRDS() map[string][]string {
	nodes := map[string][]string{}
	for _, r := range c.Topology {
		nodes[r.RDS] = r.Nodes
	}
	return nodes
}
