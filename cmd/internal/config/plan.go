package config

import (
	"fmt"
	"slices"
	"strings"
)

// StepKind tells what a step of a plan means for the running cluster.
type StepKind string

// The kinds.
const (
	StepChange  StepKind = "change online"
	StepRestart StepKind = "needs restart" // is applied; takes effect when haclusterd is started anew on each server
	StepAdd     StepKind = "add volume"
	StepRemove  StepKind = "remove volume"
	StepShrink  StepKind = "shrink volume" // what lies behind its new end is lost
	StepRefused StepKind = "refused"       // nothing of the plan is done
)

// Step is one difference between what runs and what a file says.
type Step struct {
	Kind StepKind `json:"kind"`
	What string   `json:"what"` // "rto", "volume pgdata: suspend_limit"
	Text string   `json:"text"` // from what to what, or why not
	Line int      `json:"line"` // of the new file; 0: what it is about is not in there any more
}

// Plan orders the steps from c, which runs, to next: settings, then volumes that come, then volumes that go. It is a pure
// function of the two. Nothing is to be done if one step is refused.
func (c *Config) Plan(next *Config) []Step {
	p := &plan{}
	p.cluster(c, next)
	p.nodes(c, next)
	p.links(c, next)
	p.volumes(c, next)
	if len(p.steps) == 0 && c.Hash() != next.Hash() {
		p.add(StepRefused, pos{line: next.Cluster.at.line}, "file", "it differs in what cannot be changed in a running cluster yet")
	}
	order := map[StepKind]int{StepRefused: 0, StepChange: 1, StepRestart: 1, StepAdd: 2, StepShrink: 3, StepRemove: 4}
	slices.SortStableFunc(p.steps, func(a, b Step) int { return order[a.Kind] - order[b.Kind] })
	return p.steps
}

// Refused are the steps that keep a plan from being carried out.
func Refused(steps []Step) (no []Step) {
	for _, s := range steps {
		if s.Kind == StepRefused {
			no = append(no, s)
		}
	}
	return no
}

type plan struct{ steps []Step }

func (p *plan) add(kind StepKind, at pos, what, format string, args ...any) {
	p.steps = append(p.steps, Step{Kind: kind, What: what, Text: fmt.Sprintf(format, args...), Line: at.line})
}

// differs adds a step if a setting has another value.
func differs[T comparable](p *plan, kind StepKind, at pos, what string, old, next T, why string) {
	if old == next {
		return
	}
	text := fmt.Sprintf("%v -> %v", shown(old), shown(next))
	if why != "" {
		text += ": " + why
	}
	p.add(kind, at, what, "%s", text)
}

func shown(v any) any {
	if s := fmt.Sprint(v); s == "" {
		return "none"
	}
	return v
}

func (p *plan) cluster(old, next *Config) {
	at := next.Cluster.at
	differs(p, StepRefused, at, "cluster", old.Cluster.Name, next.Cluster.Name, "the name of a cluster cannot be changed")
	differs(p, StepChange, next.Cluster.rtoAt, "rto", old.Cluster.RTO, next.Cluster.RTO,
		fmt.Sprintf("lease %s -> %s, and all other timers with it", ms(old.Timers.Lease), ms(next.Timers.Lease)))
	if a, b := old.Timers, next.Timers; a.RaftHeartbeat != b.RaftHeartbeat && !raftFollows(a, b) {
		p.add(StepRestart, next.Cluster.rtoAt, "rto", "Raft's heartbeat %s -> %s: it follows as far as it can at once, the rest of the way when haclusterd is started anew",
			ms(a.RaftHeartbeat), ms(b.RaftHeartbeat))
	}
	differs(p, StepChange, next.Cluster.diskAt, "disk_deadline", old.Cluster.DiskDeadline, next.Cluster.DiskDeadline, "")
	for _, d := range limitTable {
		kind, why := StepRestart, "for what is opened when haclusterd is started anew"
		if d.Online {
			kind, why = StepChange, ""
		}
		if d.Online && d.ForClients() {
			why = "for clients that connect from then on"
		}
		differs(p, kind, at, "limits: "+d.Name, d.Text(d.Value(old.Cluster.Limits)), d.Text(d.Value(next.Cluster.Limits)), why)
	}
}

// raftFollows reports whether Raft's own timers can be changed to the wanted ones while it runs: its leader lease cannot,
// and the heartbeat must stay within one to three times that.
func raftFollows(old, next Timers) bool {
	return next.RaftHeartbeat >= old.RaftLeaderLease && next.RaftHeartbeat <= RaftReach*old.RaftLeaderLease
}

// RaftReach is by how much Raft's heartbeat may exceed the leader lease that it was started with. A leader that hears
// nobody for a leader lease steps down, and it is heard each fifth of a heartbeat at the latest.
const RaftReach = 3

func (p *plan) nodes(old, next *Config) {
	for _, n := range next.Nodes {
		what := "node " + n.Name
		o, ok := old.Node(n.Name)
		if !ok {
			p.add(StepRefused, n.at, what, "the nodes of a running cluster cannot be changed by apply")
			continue
		}
		differs(p, StepRefused, n.at, what+": role", o.Role, n.Role, "it cannot be changed in a running cluster")
		differs(p, StepChange, n.at, what+": site", o.Site, n.Site, "from the next failover on")
		differs(p, StepRefused, n.addressAt, what+": address", o.Address, n.Address, "it cannot be changed in a running cluster")
		differs(p, StepRefused, n.at, what+": links", strings.Join(o.Links, " "), strings.Join(n.Links, " "), "they cannot be changed in a running cluster")
		differs(p, StepRefused, next.Cluster.at, what+": data_dir", o.DataDir, n.DataDir, "state does not move by itself")
		differs(p, StepRestart, next.Cluster.at, what+": attach_dir", orDefault(o.AttachDir), orDefault(n.AttachDir), "when haclusterd is started anew there and the device is attached anew")
		differs(p, StepRestart, n.at, what+": http", o.HTTP, n.HTTP, "when haclusterd is started anew there")
	}
	for _, o := range old.Nodes {
		if _, ok := next.Node(o.Name); !ok {
			p.add(StepRefused, next.Cluster.at, "node "+o.Name, "it is not in the file: the nodes of a running cluster cannot be changed by apply; `ha-admin node remove` takes one out")
		}
	}
	p.services(old, next)
	p.fences(old, next)
}

// services compares them as each node evaluates them, for one that changes on any is stopped there.
func (p *plan) services(old, next *Config) {
	find := func(c *Config, node, name string) *Service {
		for _, s := range c.services[node] {
			if s.Name == name {
				return &s
			}
		}
		return nil
	}
	for _, s := range next.Services {
		what, changed := "service "+s.Name, false
		if why := moves(old, next, s); why != "" {
			p.add(StepRefused, s.at, what, "%s: another node may run it still when it is started here; leave it out, apply, and add it again when `ha-admin status` does not show it any more", why)
			continue
		}
		if find(old, old.reads(), s.Name) == nil {
			p.add(StepChange, s.at, what, "new: it is started where volume %s is primary", strings.Join(s.Volumes, ", "))
			continue
		}
		for _, n := range next.Nodes {
			o, now := find(old, n.Name, s.Name), find(next, n.Name, s.Name)
			changed = changed || o == nil || now == nil || !o.Same(*now)
		}
		if changed {
			p.add(StepChange, s.at, what, "it is stopped as it was and started as it is now")
		}
	}
	for _, s := range old.Services {
		if find(next, next.reads(), s.Name) == nil {
			p.add(StepChange, next.Cluster.at, "service "+s.Name, "removed: it is stopped")
		}
	}
}

// moves says what of a service follows another volume by now than it did; empty: nothing. Whoever is primary of the one says nothing of
// who is of the other (R31).
func moves(old, next *Config, s Service) string {
	for _, o := range old.Services {
		if old.Mirrored(o.Volumes[0]) == next.Mirrored(s.Volumes[0]) { // volumes of one group have one primary
			continue
		}
		if o.Name == s.Name {
			return fmt.Sprintf("it follows volume %s and would follow %s", strings.Join(o.Volumes, ", "), strings.Join(s.Volumes, ", "))
		}
		for _, r := range s.Resources {
			if r.Kind != "exec" && slices.ContainsFunc(o.Resources, func(was Resource) bool { return was.Kind == r.Kind && was.Name == r.Name }) {
				return fmt.Sprintf("%s %q is part of service %q, which follows volume %s", r.Kind, r.Name, o.Name, strings.Join(o.Volumes, ", "))
			}
		}
	}
	return ""
}

// reads is the node for which Services is evaluated.
func (c *Config) reads() string {
	if c.Self != "" {
		return c.Self
	}
	return c.Nodes[0].Name
}

func (p *plan) volumes(old, next *Config) {
	p.groups(old, next)
	for _, v := range next.Volumes {
		if o, ok := old.Volume(v.Name); ok {
			p.volume(o, v)
			continue
		}
		var where []string
		for _, r := range v.Replicas {
			where = append(where, r.Node+" "+r.Device)
		}
		p.add(StepAdd, v.at, "volume "+v.Name, "%s, %s, on %s; an absent or sparse file is new and healthy at once, one with content waits for `ha-admin volume create`",
			bytesText(v.Size), v.modesText(), strings.Join(where, " and "))
	}
	for _, o := range old.Volumes {
		if _, ok := next.Volume(o.Name); !ok {
			p.add(StepRemove, pos{}, "volume "+o.Name, "%s: clients are cut off, it is flushed and closed on every node", bytesText(o.Size))
		}
	}
}

// asyncTaken is when another bound counts.
func asyncTaken(v Volume) string {
	if !v.HasAsync() {
		return "it counts in async mode only"
	}
	return "for the next write; what was acknowledged before may exceed a tighter bound until the standby has it"
}

// modeTaken is when another mode counts.
func modeTaken(m Mode) string {
	const when = "the role stays and no client is cut off; in force when every replica in sync has all that was acknowledged, and until then the stronger of both counts"
	switch m {
	case ModeSemisync:
		return when + "; from then on a lost primary whose standby's process ended too may cost what was not flushed"
	case ModeAsync:
		return when + "; from then on a failover may lose what the bound allows"
	}
	return when
}

func (p *plan) volume(o, v Volume) {
	what := "volume " + v.Name + ": "
	if v.Size < o.Size {
		differs(p, StepShrink, v.sizeAt, what+"size", bytesText(o.Size), bytesText(v.Size), "its last "+bytesText(o.Size-v.Size)+" are lost: make what is on it smaller first (resize2fs); the role is handed over once, and clients are cut off; wants --accept-data-loss")
	} else {
		differs(p, StepChange, v.sizeAt, what+"size", bytesText(o.Size), bytesText(v.Size), "every backing must hold it; the role is handed over once, and clients see the new size when they connect again")
	}
	differs(p, StepChange, v.modeAt, what+"mode", o.Mode, v.Mode, modeTaken(v.Mode))
	differs(p, StepRestart, v.ioAt, what+"io", o.IO, v.IO, "when haclusterd is started anew")
	differs(p, StepChange, v.suspendAt, what+"suspend_limit", o.SuspendLimit, v.SuspendLimit, "")
	differs(p, StepChange, v.readAt, what+"read", o.ReadText(), v.ReadText(), "")
	differs(p, StepChange, v.at, what+"site_failover", siteFailoverText(o.SiteFailover), siteFailoverText(v.SiteFailover), "from the next failover on")
	differs(p, StepRestart, v.undoAt, what+"undo_limit", undoText(o.UndoLimit), undoText(v.UndoLimit), "when haclusterd is started anew")
	differs(p, StepChange, v.asyncAt.bytes, what+"async", o.Async, v.Async, asyncTaken(v))
	differs(p, StepChange, v.verifyAt, what+"verify", o.Verify, v.Verify, "from the next minute on")
	differs(p, StepChange, v.resyncAt, what+"resync", o.Resync.String(), v.Resync.String(), "")
	for _, r := range v.Replicas {
		if was, ok := o.Replica(r.Node); ok {
			p.replica(what, was, r)
			differs(p, StepChange, r.modeAt, what+"replica "+r.Node+": mode", orOfVolume(was.Mode), orOfVolume(r.Mode), modeTaken(v.ModeOf(r)))
			differs(p, StepChange, r.viaAt, what+"replica "+r.Node+": via", orDirectly(was.Via), orDirectly(r.Via), "its stream is closed once and opened that way")
		} else {
			p.joins(o, v, r)
		}
	}
	for _, was := range o.Replicas {
		if _, ok := v.Replica(was.Node); !ok {
			p.parts(o, v, was)
		}
	}
}

// joins is for a replica that comes.
func (p *plan) joins(o, v Volume, r Replica) {
	what := "volume " + v.Name + ": replica " + r.Node
	switch {
	case r.Mode != "" && r.Mode != v.Mode:
		p.add(StepRefused, r.modeAt, what, "a replica is added with the mode of its volume: leave its mode out, apply, and change it when the replica is in sync")
	case v.Size != o.Size || v.Mode != o.Mode:
		p.add(StepRefused, r.at, what, "the replicas of a volume are not changed together with its size or mode: apply one after the other")
	default:
		p.add(StepChange, r.at, what, "new, on %s: it is resynced while the volume is served, and then in sync; an absent or sparse file is taken, one with content is not", r.Device)
	}
}

// parts is for a replica that goes.
func (p *plan) parts(o, v Volume, was Replica) {
	what := "volume " + v.Name + ": replica " + was.Node
	if v.Size != o.Size || v.Mode != o.Mode {
		p.add(StepRefused, v.at, what, "the replicas of a volume are not changed together with its size or mode: apply one after the other")
		return
	}
	when := ""
	if slices.ContainsFunc(v.Replicas, func(r Replica) bool { _, was := o.Replica(r.Node); return !was }) {
		when = " (the last other one in sync when one that comes is)"
	}
	p.add(StepChange, v.at, what, "removed: it leaves the in-sync set%s, handing the role over before if it is the primary; its data stays in %s, its metadata is set aside", when, was.Device)
}

// orOfVolume shows the mode of a replica.
func orOfVolume(m Mode) Mode {
	if m == "" {
		return "the volume's"
	}
	return m
}

// orDefault is the folder of devices that is meant.
func orDefault(dir string) string {
	if dir == "" {
		return defaultAttachDir
	}
	return dir
}

// The choices of site_failover.
const (
	siteManual = "manual"
	siteAuto   = "auto"
)

func siteFailoverText(auto bool) string {
	if auto {
		return siteAuto
	}
	return siteManual
}

func undoText(limit int64) string {
	if limit == 0 {
		return "none"
	}
	return bytesText(limit)
}

func (p *plan) replica(what string, was, r Replica) {
	what += "replica " + r.Node + ": "
	differs(p, StepRefused, r.deviceAt, what+"device", was.Device, r.Device, "data does not move by itself")
	differs(p, StepChange, r.Export.at, what+"attach", was.Export.Attach, r.Export.Attach, "the device appears, or goes as soon as nobody uses it")
	has := func(all []Listener, l Listener) bool {
		return slices.ContainsFunc(all, func(o Listener) bool { return o.String() == l.String() })
	}
	for _, l := range r.Export.NBD {
		if !has(was.Export.NBD, l) {
			p.add(StepChange, l.at, what+"nbd", "%s is listened on", l)
		}
	}
	for _, l := range was.Export.NBD {
		if !has(r.Export.NBD, l) {
			p.add(StepChange, r.Export.at, what+"nbd", "%s is closed, and its clients cut off, unless another volume is served there", l)
		}
	}
}
