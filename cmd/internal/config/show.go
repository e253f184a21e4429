package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Document is the evaluated configuration as scripts read it: sizes in bytes, times in milliseconds, and no secrets,
// since the options of fence agents hold passwords: their values are left out.
type Document struct {
	Cluster        string         `json:"cluster"`
	Node           string         `json:"node"`
	Hash           string         `json:"hash"`
	Version        uint64         `json:"version"` // of the applied configuration; 0: this is a file
	RTOMs          int64          `json:"rto_ms"`
	DiskDeadlineMs int64          `json:"disk_deadline_ms"`
	Timers         DocumentTimers `json:"timers"`
	// Limits by their names; bytes, and milliseconds where the name ends in _ms.
	Limits  map[string]int64 `json:"limits"`
	Nodes   []DocumentNode   `json:"nodes"`
	Volumes []DocumentVolume `json:"volumes"`
	// Fencing is lease | required. Left out, with the agents, where there is nothing but the end of the lease.
	Fencing string          `json:"fencing,omitempty"`
	Fences  []DocumentFence `json:"fences,omitempty"`
	Links   []DocumentLink  `json:"links"` // what is set for two nodes each
}

// DocumentTimers are the timers that follow from the RTO target, and the two figures that prove them.
type DocumentTimers struct {
	LeaseMs                float64 `json:"lease_ms"`
	RenewMs                float64 `json:"renew_ms"`
	TickMs                 float64 `json:"tick_ms"`
	RaftHeartbeatMs        float64 `json:"raft_heartbeat_ms"`
	RaftElectionMs         float64 `json:"raft_election_ms"`
	RaftLeaderLeaseMs      float64 `json:"raft_leader_lease_ms"`
	DropAfterMs            float64 `json:"drop_after_ms"`
	FailoverMs             float64 `json:"failover_ms"`
	FailoverWithElectionMs float64 `json:"failover_with_election_ms"`
	Arithmetic             string  `json:"arithmetic"`
}

// DocumentNode is one node.
type DocumentNode struct {
	Name    string   `json:"name"`
	Role    string   `json:"role"`
	Address string   `json:"address"`
	Links   []string `json:"links"`
	HTTP    string   `json:"http"`
	Site    string   `json:"site,omitempty"`
	DataDir string   `json:"data_dir"`
}

// DocumentLink is what holds for the block data between two nodes.
type DocumentLink struct {
	Nodes          []string         `json:"nodes"`
	RateBytesPerS  int64            `json:"rate_bytes_per_s"` // 0: no limit
	ReservePercent int              `json:"reserve_percent"`  // of the rate, that a resync never takes
	Calendar       []DocumentWindow `json:"calendar"`
	Compress       string           `json:"compress"` // auto | on | off
}

// DocumentWindow is a part of the week, in UTC, in which another rate holds.
type DocumentWindow struct {
	Days          []string `json:"days"`
	From          string   `json:"from"`
	To            string   `json:"to"` // not behind from: of the next day
	RateBytesPerS int64    `json:"rate_bytes_per_s"`
}

// DocumentVolume is one volume.
type DocumentVolume struct {
	Name           string            `json:"name"`
	Group          string            `json:"group,omitempty"` // the consistency group that it is part of
	Size           int64             `json:"size"`
	Mode           string            `json:"mode"`
	IO             string            `json:"io"`
	Read           string            `json:"read"` // local | balance
	SuspendLimitMs int64             `json:"suspend_limit_ms"`
	SiteFailover   string            `json:"site_failover"`   // manual | auto: whether its role goes to another site by itself
	UndoLimit      int64             `json:"undo_limit"`      // bytes; 0: as much as the whole volume takes
	VerifySchedule string            `json:"verify_schedule"` // in UTC; empty: none
	VerifyRepair   bool              `json:"verify_repair"`
	Resync         DocumentResync    `json:"resync"`
	Async          DocumentAsync     `json:"async"` // counts while the mode is async
	Replicas       []DocumentReplica `json:"replicas"`
}

// DocumentAsync is the bound on what a standby may lack.
type DocumentAsync struct {
	MaxLagBytes int64 `json:"max_lag_bytes"`
	MaxLagMs    int64 `json:"max_lag_ms"`
	PatienceMs  int64 `json:"patience_ms"`
	// Spool is the folder of what memory does not hold; left out: the volume's own below data_dir.
	Spool string `json:"spool,omitempty"`
}

// String shows the bound to people.
func (d DocumentAsync) String() string {
	return Async{MaxLagBytes: d.MaxLagBytes, MaxLag: time.Duration(d.MaxLagMs) * time.Millisecond, Patience: time.Duration(d.PatienceMs) * time.Millisecond, Spool: d.Spool}.String()
}

// DocumentResync is what resyncs of a volume may take, in bytes a second; 0: the default, for max_rate no limit.
type DocumentResync struct {
	MinRate int64 `json:"min_rate"`
	MaxRate int64 `json:"max_rate"`
}

// usualMinRate is what a min_rate of 0 means: resync.DefaultMin.
const usualMinRate = 4 << 20

// String shows the bounds to people as they are in force: a max_rate below the usual min_rate lowers that.
func (r Resync) String() string {
	least, most := r.MinRate, "no limit"
	if least == 0 {
		least = usualMinRate
	}
	if r.MaxRate > 0 {
		least, most = min(least, r.MaxRate), bytesText(r.MaxRate)+"/s"
	}
	return "min_rate " + bytesText(least) + "/s, max_rate " + most
}

// DocumentReplica is one copy of a volume.
type DocumentReplica struct {
	Node   string   `json:"node"`
	Device string   `json:"device"`
	Mode   string   `json:"mode"` // its own, or the volume's
	Via    string   `json:"via,omitempty"`
	NBD    []string `json:"nbd"`
	Attach string   `json:"attach"`
}

// Document shows the configuration.
func (c *Config) Document() Document {
	d := Document{
		Cluster: c.Cluster.Name, Node: c.Self, Hash: c.Hash(),
		RTOMs: c.Cluster.RTO.Milliseconds(), DiskDeadlineMs: c.Cluster.DiskDeadline.Milliseconds(),
		Timers: c.Timers.document(), Limits: c.Cluster.Limits.document(), Nodes: []DocumentNode{}, Volumes: []DocumentVolume{}, Links: []DocumentLink{},
	}
	for _, n := range c.Nodes {
		d.Nodes = append(d.Nodes, DocumentNode{Name: n.Name, Role: string(n.Role), Address: n.Address,
			Links: append([]string{}, n.Links...), HTTP: n.HTTP, Site: n.Site, DataDir: n.DataDir})
	}
	for _, v := range c.Volumes {
		d.Volumes = append(d.Volumes, v.document())
	}
	for _, l := range c.Links {
		d.Links = append(d.Links, l.document())
	}
	for _, f := range c.Fences {
		d.Fences = append(d.Fences, f.document())
	}
	if len(c.Fences) > 0 || c.Cluster.Fencing != "" {
		d.Fencing = string(c.Fencing())
	}
	if slices.ContainsFunc(c.Volumes, func(v Volume) bool { return v.HasAsync() }) {
		d.Timers.Arithmetic += "\n" + c.Timers.ExplainAsync()
	}
	if len(c.Services) > 0 {
		d.Timers.Arithmetic += "\n" + c.Timers.ExplainServices()
	}
	return d
}

func (l Limits) document() map[string]int64 {
	out := map[string]int64{}
	for _, d := range limitTable {
		if v := d.Value(l); d.Unit == UnitDuration {
			out[d.Name+"_ms"] = time.Duration(v).Milliseconds()
		} else {
			out[d.Name] = v
		}
	}
	return out
}

func (v Volume) document() DocumentVolume {
	d := DocumentVolume{Name: v.Name, Group: v.Group, Size: v.Size, Mode: string(v.Mode), IO: string(v.IO), Read: v.ReadText(),
		SuspendLimitMs: v.SuspendLimit.Milliseconds(), SiteFailover: siteFailoverText(v.SiteFailover), UndoLimit: v.UndoLimit, VerifySchedule: string(v.Verify.Schedule), VerifyRepair: v.Verify.Repair, Resync: DocumentResync(v.Resync),
		Async:    DocumentAsync{MaxLagBytes: v.Async.MaxLagBytes, MaxLagMs: v.Async.MaxLag.Milliseconds(), PatienceMs: v.Async.Patience.Milliseconds(), Spool: v.Async.Spool},
		Replicas: []DocumentReplica{}}
	for _, r := range v.Replicas {
		rep := DocumentReplica{Node: r.Node, Device: r.Device, Mode: string(v.ModeOf(r)), Via: r.Via, NBD: []string{}, Attach: string(r.Export.Attach)}
		for _, l := range r.Export.NBD {
			rep.NBD = append(rep.NBD, l.String())
		}
		d.Replicas = append(d.Replicas, rep)
	}
	return d
}

// String is the listener as the file has it.
func (l Listener) String() string { return l.Network + "://" + l.Address }

func (t Timers) document() DocumentTimers {
	ms := func(d time.Duration) float64 {
		return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
	}
	return DocumentTimers{
		LeaseMs: ms(t.Lease), RenewMs: ms(t.Renew), TickMs: ms(t.Tick),
		RaftHeartbeatMs: ms(t.RaftHeartbeat), RaftElectionMs: ms(t.RaftElection), RaftLeaderLeaseMs: ms(t.RaftLeaderLease),
		DropAfterMs: ms(t.DropAfter), FailoverMs: ms(t.Failover()), FailoverWithElectionMs: ms(t.FailoverWithElection()),
		Arithmetic: t.Explain(),
	}
}

// JSON is the document as it travels and as `-o json` prints it.
func (d Document) JSON() []byte {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic("config: document of a configuration: " + err.Error())
	}
	return append(text, '\n')
}

// Table is the document for people.
func (d Document) Table() string {
	var out strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	p("cluster %s, as read by %s", d.Cluster, orNone(d.Node))
	p("hash    %s", d.Hash)
	if d.Version > 0 {
		p("version %d of the applied configuration", d.Version)
	}
	for _, n := range d.Nodes {
		site := ""
		if n.Site != "" {
			site = ", site " + n.Site
		}
		p("node %s: %s%s, address %s, links %s, http %s, data_dir %s", n.Name, n.Role, site, n.Address, orNone(strings.Join(n.Links, " ")),
			orNone(n.HTTP), n.DataDir)
	}
	for _, l := range d.Links {
		p("link %s: %s", strings.Join(l.Nodes, " "), l)
	}
	for _, v := range d.Volumes {
		p("volume %s: %d bytes, mode %s, io %s, suspend_limit %v, undo_limit %s", v.Name, v.Size, v.Mode, v.IO, time.Duration(v.SuspendLimitMs)*time.Millisecond, undoText(v.UndoLimit))
		if v.Read != string(ReadLocal) {
			p("  read %s", v.Read)
		}
		if v.Group != "" {
			p("  group %s", v.Group)
		}
		if v.VerifySchedule != "" {
			p("  verify %q in UTC, repair %t", v.VerifySchedule, v.VerifyRepair)
		}
		p("  resync: %s", Resync(v.Resync))
		if v.SiteFailover == siteAuto {
			p("  site_failover: %s", v.SiteFailover)
		}
		if slices.ContainsFunc(v.Replicas, func(r DocumentReplica) bool { return r.Mode == string(ModeAsync) }) {
			p("  async: %s", v.Async)
		}
		for _, r := range v.Replicas {
			own := ""
			if r.Mode != v.Mode {
				own = ", mode " + r.Mode
			}
			if r.Via != "" {
				own += ", via " + r.Via
			}
			p("  replica %s: %s%s, nbd %s, attach %s", r.Node, r.Device, own, orNone(strings.Join(r.NBD, " ")), r.Attach)
		}
	}
	t := d.Timers
	p("timers: lease %gms, renewed each %gms, tick %gms, heartbeat %gms, leader lease %gms, a silent member is dropped after %gms",
		t.LeaseMs, t.RenewMs, t.TickMs, t.RaftHeartbeatMs, t.RaftLeaderLeaseMs, t.DropAfterMs)
	p("%s", t.Arithmetic)
	for _, name := range slices.Sorted(maps.Keys(d.Limits)) {
		p("limit %s: %d", name, d.Limits[name])
	}
	return out.String()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
