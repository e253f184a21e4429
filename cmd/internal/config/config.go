// Package config reads cluster.hcl, the one file that is the same on every server, into a typed Config. It is the only
// reader of that file. It refuses what it does not know, what has the wrong type, what is there twice and what
// contradicts itself, all at once and each with its line; it touches nothing on the machine but the file itself, and
// the directory entries of device paths (to find one device behind two names).
//
// The daemon calls Load, `ha-admin config check` calls Check, ha-admin calls AdminSocket to find the local daemon.
//
// A Config holds what the file means for every node at once: what may differ between nodes stands in Node and Replica,
// evaluated for that node. Only Self, Services and what the command line said belong to the node that reads. That is
// why Hash is equal on all servers with the same file.
package config

import (
	"path/filepath"
	"time"

	"hacluster/cmd/internal/schedule"
)

// Config is what cluster.hcl says, evaluated and checked.
type Config struct {
	// File is the path that it was read from.
	File string `json:"-"`
	// Self is the node that reads; empty when the file was checked for no particular node.
	Self string `json:"-"`
	// Insecure: no TLS and no gossip key, because every address is a loopback address.
	Insecure bool `json:"-"`
	// PKI is the folder of certificates and keys that the command line names; they count unless Insecure.
	PKI string `json:"-"`

	Cluster Cluster
	// Nodes and Volumes are in the order of the file.
	Nodes   []Node
	Volumes []Volume
	// Links are what is set for two nodes each. Without any the hash is that of files from before there were such blocks.
	Links []Link `json:",omitempty"`
	// Services and Fences are evaluated for Self (for the first node when there is none).
	Services []Service `json:"-"`
	Fences   []Fence   `json:"-"`
	// Timers follow from Cluster.RTO.
	Timers Timers `json:"-"`

	dataDir  string         // the command line's --data-dir, which goes before the file
	source   []byte         // the text
	index    map[string]int // of Volumes, by name
	services map[string][]Service
	fences   map[string][]Fence
}

// Cluster is what holds for all nodes.
type Cluster struct {
	Name string
	// RTO is the target for every failover. Default 3s.
	RTO time.Duration
	// DiskDeadline: a disk operation that takes longer counts as an error (R26). Default 5s. Shorter finds a hung
	// disk sooner, and takes a slow one for hung.
	DiskDeadline time.Duration
	// Limits are the named bounds of what others can make grow (R28).
	Limits Limits
	// Fencing is what a promotion in another's place waits for. Default lease; left out then, so that files without it have the hash
	// that they had before there was this key.
	Fencing Fencing `json:",omitempty"`

	at, rtoAt, diskAt, fencingAt pos
}

// Role is what a node is there for.
type Role string

// The roles.
const (
	RoleData    Role = "data"
	RoleWitness Role = "witness" // votes, holds no data
)

// Node is one machine of the cluster.
type Node struct {
	Name    string
	Role    Role
	Address string   // host:port, TCP: replication, admin, Raft
	Links   []string // host:port each, heartbeat links; may be empty
	HTTP    string   // host:port, or empty for off
	Site    string   `json:",omitempty"` // nodes of one are together; empty: of one with all others without
	DataDir string   // cluster.data_dir, evaluated for this node
	// AttachDir is cluster.attach_dir likewise; empty: /dev/hacluster. So files without it have the hash that they always had.
	AttachDir string `json:",omitempty"`

	at, addressAt, httpAt pos
	linksAt               []pos
}

// Mode is when a write is acknowledged.
type Mode string

// The modes, DRBD's protocols C, B and A.
const (
	ModeSync     Mode = "sync"
	ModeSemisync Mode = "semisync"
	ModeAsync    Mode = "async"
)

// IO is how a backing is read and written.
type IO string

// The ways: auto lets the backend choose.
const (
	IOAuto     IO = "auto"
	IOBuffered IO = "buffered"
	IODirect   IO = "direct"
)

// Read is who answers reads of clients.
type Read string

// The ways: local is the primary's disk alone; with balance, members in sync answer some reads where it is what they wait for.
const (
	ReadLocal   Read = "local"
	ReadBalance Read = "balance"
)

// Volume is one replicated block device.
type Volume struct {
	Name     string
	Size     int64 // bytes, a multiple of 4096
	Mode     Mode
	IO       IO
	Replicas []Replica
	Async    Async
	Verify   Verify `json:",omitzero"` // without one, the hash is that of files from before there were any
	Resync   Resync `json:",omitzero"` // likewise
	// Group names the consistency group that the volume is part of; empty: none (group.go).
	Group string `json:",omitempty"`
	// SuspendLimit: suspended for longer, clients' connections are closed (R11). Default 60s.
	SuspendLimit time.Duration
	// UndoLimit is how many bytes the undo area of each replica may take. Default 0: as much as the old content of the
	// whole volume needs. Less saves room in data_dir; a resync that reaches it goes on without a way back (R18).
	// SiteFailover: its role goes to another site by itself. Otherwise only a person moves it there.
	SiteFailover bool `json:",omitempty"`
	// Read is empty where it is local.
	Read      Read  `json:",omitempty"`
	UndoLimit int64 `json:",omitempty"` // so that files without it have the hash that they had before there was this key

	at, modeAt, sizeAt, ioAt, suspendAt, readAt, undoAt, verifyAt, resyncAt, groupAt pos
	asyncAt                                                                          asyncAt
}

// Replica is one node's copy of a volume.
type Replica struct {
	Node   string
	Device string // absolute path of a block device or a file
	Export Export // evaluated for this node
	// Mode of this replica; empty: the volume's. Between two replicas the weaker one of both counts.
	Mode Mode `json:",omitempty"` // so that files without it have the hash that they had before there was this key
	// Via is the node of another replica, which carries on what a primary sends to this one; empty: it is sent directly.
	Via string `json:",omitempty"`

	at, deviceAt, modeAt, viaAt pos
}

// Attach is how a volume appears as a local device on its primary.
type Attach string

// The ways to attach.
const (
	AttachAuto Attach = "auto"
	AttachUblk Attach = "ublk"
	AttachNBD  Attach = "nbd"
	AttachFUSE Attach = "fuse"
	AttachNone Attach = "none"
)

// Export is how programs reach the volume on one node.
type Export struct {
	NBD    []Listener
	Attach Attach

	at pos
}

// Listener is one place where NBD is served.
type Listener struct {
	Network string // "unix" or "tcp"
	Address string // an absolute path, or host:port

	at pos
}

// Async is the enforced bound on what may be lost; it counts only in async mode.
type Async struct {
	MaxLagBytes int64         // default 64 MiB; up to 128 MiB it lies in the primary's memory, beyond that in the spool
	MaxLag      time.Duration // default 5s; age of the oldest acknowledged write that a standby lacks
	Patience    time.Duration // default 10s: writers held at the bound for so long, the standby is dropped
	Spool       string        // a folder; empty: the volume's own below data_dir
}

// Verify is when the replicas of a volume are compared by themselves. The zero value: never.
type Verify struct {
	Schedule schedule.Schedule
	Repair   bool // consent: what differs is overwritten with the primary's content
}

// Resync bounds what resyncs of a volume take, in bytes a second. Between the bounds they give way to clients.
type Resync struct {
	MinRate int64 // copied whatever it costs the clients; 0: 4 MiB
	MaxRate int64 // never exceeded; 0: no limit
}

// Service is what follows the primary of its volumes: resources, started in order and stopped in reverse.
type Service struct {
	Name      string
	Volumes   []string
	Resources []Resource
	// Restarts is how many failures within RestartWindow are answered by a restart in place; one more, and another node is
	// asked for. Defaults 3 and 10m.
	Restarts      int
	RestartWindow time.Duration

	at pos
}

// Resource is one step of a service. Kind tells which of the other fields count.
type Resource struct {
	Kind      string // "mount", "address", "systemd" or "exec"
	Name      string // mount point, address with prefix length, unit, any name
	Volume    string // mount
	FS        string // mount
	Interface string // address

	// exec: programs with their arguments. Either Run, which stays in the foreground, or Start, which returns.
	Run, Start, Stop, Monitor []string `json:",omitempty"`

	// How long each operation may take, and the pause between two monitors; 0: it is not watched.
	StartTimeout, StopTimeout, MonitorTimeout, Interval time.Duration

	at pos
}

// Me is the node that reads. It panics on a Config that was read for no particular node.
func (c *Config) Me() Node {
	n, ok := c.Node(c.Self)
	if !ok {
		panic("config: Me of a configuration that was read for no particular node")
	}
	return n
}

// Node finds a node by its name.
func (c *Config) Node(name string) (Node, bool) {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// Volume finds a volume by its name.
func (c *Config) Volume(name string) (Volume, bool) {
	if i, ok := c.index[name]; ok && i < len(c.Volumes) && c.Volumes[i].Name == name {
		return c.Volumes[i], true
	}
	for i := range c.Volumes { // one that was made otherwise than by Load
		if c.Volumes[i].Name == name {
			return c.Volumes[i], true
		}
	}
	return Volume{}, false
}

// Replica finds the copy that a node holds.
func (v Volume) Replica(node string) (Replica, bool) {
	for _, r := range v.Replicas {
		if r.Node == node {
			return r, true
		}
	}
	return Replica{}, false
}

// DataDir is where the node that reads keeps its state: --data-dir, or what the file says.
func (c *Config) DataDir() string {
	if c.dataDir != "" {
		return c.dataDir
	}
	return c.Me().DataDir
}

// AttachDir is the folder of the links to this node's local devices.
func (c *Config) AttachDir() string {
	return orDefault(c.Me().AttachDir)
}

// AdminSocket is where the node that reads serves its local ha-admin.
func (c *Config) AdminSocket() string { return adminSocket(c.DataDir()) }

func adminSocket(dataDir string) string { return filepath.Join(dataDir, "admin.sock") }
