package metrics

import "time"

// Snapshot is what one node knows at one moment. Counts are since the start of its process unless they say otherwise.
type Snapshot struct {
	Node, Cluster string
	Version       string // of the program
	Ready         bool
	Services      []Service
	Lease         time.Duration // what is left of it
	ConfigVersion uint64        // of the configuration that this node runs with
	Raft          *Raft         // nil: not part of a group yet
	Links         []Link
	Lines         []Line
	Gossip        Gossip
	NBD           NBD
	// HandshakeRefusals of the node's port, by reason.
	HandshakeRefusals map[string]uint64
	Queues            []Queue
	Certificates      []Certificate // none without TLS
	Volumes           []Volume
	FencingRequired   bool
	Fences            []Fence
}

// Fence is how a node can be turned off, and what is known of that.
type Fence struct {
	Node     string
	Agents   int
	Attempts uint64
	Failed   int  // in a row
	Off      bool // its newest process is known to be off
}

// Latency is a histogram: Cumulative[i] took Bounds[i] seconds or less.
type Latency struct {
	Bounds     []float64
	Cumulative []uint64
	Count      uint64
	SumSeconds float64
}

// Raft is the node's part in the group.
type Raft struct {
	Leads        bool
	LeaderKnown  bool
	Term         uint64
	LastIndex    uint64
	CommitIndex  uint64
	AppliedIndex uint64
	LastContact  time.Duration // since a leader spoke to this node; zero on the leader
	Won          uint64        // elections
	Commits      Latency       // of commands that this node proposed as leader
}

// Link is one path to one peer.
type Link struct {
	Peer, Address          string
	Up                     bool
	RTT                    time.Duration
	ProbesSent, ProbesLost uint64
}

// Line is what block data of all volumes is sent to one peer on.
type Line struct {
	Peer   string
	Rate   int64 // bytes per second; 0: no limit
	Plain  uint64
	Sent   uint64
	Waited time.Duration // of all senders together
}

// Gossip counts packets of the heartbeat links.
type Gossip struct{ Copies, Unsent, Dropped, Garbage, Foreign uint64 }

// NBD is what clients do to the node as such.
type NBD struct {
	Connections   int
	BytesInFlight int64
	Refused, Slow uint64
}

// Queue is something that is bounded.
type Queue struct {
	Name, Volume  string // Volume is empty for the node's own
	Length, Limit float64
}

// Certificate is one that this node holds.
type Certificate struct {
	Name     string
	NotAfter time.Time
}

// Volume is one volume as this node sees it.
type Volume struct {
	Name string
	Size int64
	// Of the replicated state:
	Epoch             uint64
	Primary           string
	Drops, Admissions uint64
	Promotions        map[string]uint64 // by basis; every basis is there
	LastFailover      *Failover
	Replicas          []Replica
	// Of this node's replica; nil without one.
	Local *Local
	// Of this node as primary; nil when it is not.
	Serving *Serving
}

// Failover is the newest one of a volume.
type Failover struct {
	At       time.Time
	RTO      time.Duration
	Target   time.Duration
	RPOBytes int64 // at most; -1: not known
	RPO      time.Duration
	Stages   map[string]time.Duration
}

// Replica is one copy of a volume as the replicated state has it.
type Replica struct {
	Node   string
	Member bool
}

// Local is what the node's own replica counted.
type Local struct {
	Ops, Bytes                              map[string]uint64 // by operation
	Errors                                  uint64
	ChecksumErrors, DiskErrors, ReadRepairs uint64
	Failed, Inconsistent                    bool
	RescueImages                            int
	RescueBytes                             int64
	Verified                                Verified
	Stalled                                 bool
	Stages                                  map[string]Latency
	Acks                                    map[string]Latency // by peer
	ReadsAt                                 map[string]Reads   // by peer
}

// Reads are reads of clients that one replica answered.
type Reads struct{ Ops, Bytes uint64 }

// Verified is what comparisons by this node as primary found, in blocks, and how many came to their end.
type Verified struct{ Different, Unreadable, Repaired, Runs uint64 }

// Serving is what a primary tells.
type Serving struct {
	Suspended bool
	Peers     []Peer
	Async     *Async // nil in other modes
}

// Async is the bound on what a failover may lose, and how writers fare by it.
type Async struct {
	MaxLagBytes  int64
	MaxLag       time.Duration
	Slowed, Held bool
	SpoolBytes   int64
	SpoolFailed  bool
}

// Peer is one standby as its primary sees it.
type Peer struct {
	Node                    string
	Connected, Resyncing    bool
	LagBytes                int64
	Lag                     time.Duration
	DirtyBytes              int64
	ResyncTotal, ResyncDone int64
	ResyncRate              int64 // bytes per second
}

// Service is one that this node may run.
type Service struct{ Name, State string }
