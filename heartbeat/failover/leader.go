// Package failover decides, for the Raft leader of one term, who gets a lease and who is promoted. It is pure: a
// Leader is fed facts with the time at which they were learned and answers with Actions; the node carries them out.
//
//	lease request --> round: every node is asked for its term and reports --> a majority of voters has our term,
//	                  and so have we, checked last (R8) --> grant, noted per volume before it is sent (R10)
//	tick          --> a volume whose last grant has run out, was given up, or whose process was replaced (R10)
//	                  --> reports asked for after that --> candidate (R6, R25) --> Promote, bound to our term (R7)
//
// A new Leader is made for each term and knows nothing of earlier grants: it waits a full lease before it takes a
// volume from anyone. Granting and promoting exclude each other per volume.
package failover

import (
	"maps"
	"slices"
	"time"

	"hacluster/heartbeat/cluster"
)

// Instant is the leader's CLOCK_BOOTTIME.
type Instant = cluster.Instant

// Config is what a Leader is made with.
type Config struct {
	Self string // this node
	Term uint64
	// Lease is the length of every grant. SetLease changes it.
	Lease time.Duration
	// Drift is by how much one machine's clock may run faster than another's, as a fraction; default 0.01.
	Drift float64
	// RoundTimeout is after how long an unanswered round is given up so that the next can start; default Lease/4.
	RoundTimeout time.Duration
	// ColdFor is for how long, where fencing is required, the node that served last is given to boot after a start of the whole cluster;
	// default 5 min.
	ColdFor time.Duration
}

// Leader is what one Raft leader knows in one term. Not safe for concurrent use.
type Leader struct {
	cfg   Config
	since Instant // when the term began for us: earlier grants count from here
	ready bool    // our barrier has been applied

	longest time.Duration // of any lease that may be in force, of earlier leaders too; Lease or more

	state     *cluster.State
	names     []string   // of its volumes, sorted
	books     []*account // of the volumes, in the order of names
	primaries map[string][]led
	voters    []string
	sites     Sites

	accepted map[string]requestID // newest request or give-up of each node
	pending  []cluster.LeaseRequest
	waiting  Instant // since when one of pending waits
	round    round
	lastNum  uint64

	accounts map[string]*account
	// calmUntil is until when no volume needs a look for time's sake: every one is led under a lease that surely runs till then, and
	// nothing else is known of it. It is found anew whenever an account changes but by a grant, which only makes leases longer.
	calmUntil Instant
	newest    Instant // when the newest epoch was seen first
	sent      map[string]sent
	reports   map[string]answer // the newest reports of each node
	orders    map[string]Order  // what a person asked for, by volume
	relayed   map[string]relay  // nodes whose requests came by way of another
	moved     Instant           // when leadership was last moved away

	off     map[string]offSince // nodes of which a process is off
	liars   map[string]liar     // those that answer all the same
	fencing map[string]Fence    // what was asked for
	beside  map[string]beside   // likewise, beside a promotion that did not wait for it, and is not over
	myself  bool                // it is we who are to be fenced, which another does
}

// led is a volume that a node is primary of.
type led struct {
	name    string
	epoch   cluster.Epoch
	process uint64
	book    *account
}

// relay is the node that passed a request on, and when.
type relay struct {
	by string
	at Instant
}

type requestID struct{ start, number uint64 }

func (r requestID) older(o requestID) bool {
	return r.start < o.start || r.start == o.start && r.number <= o.number
}

// account is the leader's book on one volume's lease.
type account struct {
	epoch    cluster.Epoch
	led      bool    // the volume has a primary
	began    Instant // when the epoch was seen first
	until    Instant // when the last grant that named the volume has surely run out at its holder
	granted  bool    // a grant of this term has named the volume in this epoch
	released string  // why no lease is in force although until has not come; empty: none
	gaveUp   map[string]requestID
	proven   bool      // given up: surely the primary's last word, not one that an earlier leader's grant overtook
	handTo   string    // a hand-over names its target
	gaveTo   string    // likewise, of a volume that was given up: no order that was cancelled meanwhile
	attached bool      // the new process of the old primary has a device in use that waits for it
	failed   bool      // the old primary gave up because its own disk failed
	fence    string    // why the primary's node is to be turned off, for a promotion waits for that; empty: it is not
	beside   *Fence    // the primary's node is to be turned off once the promotion that is on its way has been applied
	deciding *decision // a command is on its way: nobody is granted the volume until the record moves
	asked    Instant   // when the reports were last asked for on this volume's account
	ended    Instant   // since when the lease is known to have ended; zero: not
	after    uint64    // the newest round then: what later ones bring was said after the end (R25)
	took     map[string]took
	first    Instant      // when a member was heard first of those, in async; zero: none yet
	lag      *cluster.Lag // what the primary said last of what others lack, in async
	lagAt    Instant      // when that was
}

// took is what a process had taken from the primary when it was heard first after the end of the lease.
type took struct {
	process uint64
	epoch   cluster.Epoch
	entry   uint64
}

// tookFirst notes what a report tells, if it is the first one of its process, and is what the first one told.
func (a *account) tookFirst(node string, r *cluster.Report) uint64 {
	t, ok := a.took[node]
	if !ok || t.process != r.Process || t.epoch != r.Epoch {
		t = took{r.Process, r.Epoch, r.Taken}
		if a.took == nil {
			a.took = map[string]took{}
		}
		a.took[node] = t
	}
	return t.entry
}

type decision struct {
	epoch   cluster.Epoch
	version uint64
}

// answer is what a node said of its replicas, when it was asked for that, and when it was asked last for anything.
type answer struct {
	round   uint64
	asked   Instant
	reports map[string]cluster.Report
}

// Order is a person's word on one volume.
type Order struct {
	To string
	// Force promotes To although it is no member; the person consented to the loss.
	Force bool
	// Epoch in which it was given: in a later one it is void (R7). 0: in any.
	Epoch cluster.Epoch
}

// NewLeader begins a term at now.
func NewLeader(cfg Config, now Instant) *Leader {
	if cfg.Drift == 0 {
		cfg.Drift = 0.01
	}
	if cfg.RoundTimeout == 0 {
		cfg.RoundTimeout = cfg.Lease / 4
	}
	if cfg.ColdFor == 0 {
		cfg.ColdFor = 5 * time.Minute
	}
	return &Leader{cfg: cfg, longest: cfg.Lease, since: now, state: cluster.NewState(),
		accepted: map[string]requestID{}, accounts: map[string]*account{}, reports: map[string]answer{}, orders: map[string]Order{}, relayed: map[string]relay{}, sent: map[string]sent{},
		off: map[string]offSince{}, liars: map[string]liar{}, beside: map[string]beside{}}
}

// Actions. The node carries them out in order.
type (
	// Ask puts the round's question to every other node: its current term and, if Reports, what it says of its replicas. While nobody
	// is to be promoted that is nobody's concern, and of a thousand volumes it is much to say several times a second.
	Ask struct {
		Round   uint64
		Reports bool
	}
	// CheckSelf asks for our own term and role, read now, to be given to Confirm without delay (R8: ours is last).
	CheckSelf struct{ Round uint64 }
	// Reply answers a lease request.
	Reply struct{ Grant cluster.Grant }
	// Propose hands a command to Raft. Its outcome is seen in the applied state.
	Propose struct{ Command cluster.Command }
	// HandOver asks the primary to give the volume up in order (R30).
	HandOver struct {
		Volume, Primary, To string
		Epoch               cluster.Epoch
	}
	// MoveLeadership transfers Raft leadership to a node that is no primary, or that every primary reaches.
	MoveLeadership struct{ To string }
)

// Action is one of Ask, CheckSelf, Reply, Propose, HandOver, MoveLeadership, Fence, Spare, Refute.
type Action any

// SetLease changes the length of grants. longest is that of any that may be in force from before, of other leaders too:
// so long is waited for those (R10).
func (l *Leader) SetLease(length, longest time.Duration) {
	if l.cfg.RoundTimeout == l.cfg.Lease/4 {
		l.cfg.RoundTimeout = length / 4
	}
	l.cfg.Lease, l.longest = length, max(length, longest)
}

// Applied tells the state of the Raft log as far as we applied it, and who votes. ready: the barrier of this term is
// behind it. The Leader keeps the state and reads it only.
func (l *Leader) Applied(now Instant, s *cluster.State, voters []string, ready bool) (out []Action) {
	l.forget(s)
	l.state, l.voters, l.ready = s, voters, ready
	l.names, l.books, l.primaries = slices.Sorted(maps.Keys(s.Volumes)), nil, map[string][]led{} // sorted, so that a run replays
	l.calmUntil, l.newest = 0, 0
	l.learnFences(now)
	for _, name := range l.names {
		v, a := s.Volumes[name], l.account(name)
		a.led = v.Primary != ""
		l.books = append(l.books, a)
		l.primaries[v.Primary] = append(l.primaries[v.Primary], led{name, v.Epoch, v.Process, a})
		if d := a.deciding; d != nil && (v.Epoch != d.epoch || v.Version != d.version) {
			a.deciding = nil // decided, or void: either way the outcome is applied
		}
		out = append(out, l.besides(&v, a)...)
		if a.epoch != v.Epoch {
			// A new epoch starts a new book. Its primary has a lease's time to ask for its first grant.
			*a = account{epoch: v.Epoch, led: a.led, began: now, gaveUp: a.gaveUp, until: now.Add(l.withDrift(l.longest))}
			delete(l.orders, name)
		}
		if a.led {
			l.newest = max(l.newest, a.began)
		}
	}
	maps.DeleteFunc(l.accounts, func(name string, _ *account) bool { _, ok := s.Volumes[name]; return !ok })
	return append(out, l.evaluate(now)...)
}

// forget drops what was heard of nodes that were removed: one that is added again counts its processes from the start.
func (l *Leader) forget(s *cluster.State) {
	for n, old := range l.state.Nodes {
		if now, ok := s.Nodes[n]; ok && now.DataDir == old.DataDir {
			continue
		}
		delete(l.accepted, n)
		delete(l.reports, n)
		delete(l.relayed, n)
		delete(l.sent, n)
		for _, a := range l.accounts {
			delete(a.gaveUp, n)
		}
	}
}

func (l *Leader) account(volume string) *account {
	a := l.accounts[volume]
	if a == nil {
		a = &account{gaveUp: map[string]requestID{}}
		l.accounts[volume] = a
	}
	return a
}

// Tick lets time act.
func (l *Leader) Tick(now Instant) []Action { return l.evaluate(now) }

// Rest is for how long time alone will have nothing to decide, a quarter of a lease at most; 0: it may have at once. What
// is asked, answered or applied meanwhile is evaluated when it comes, and may shorten it.
func (l *Leader) Rest(now Instant) time.Duration {
	if !l.ready || len(l.orders) > 0 {
		return 0
	}
	rest := l.cfg.Lease / 4
	if len(l.names) > 0 {
		if l.calmUntil.Sub(now) < rest {
			l.findCalm(now)
		}
		rest = min(rest, l.calmUntil.Sub(now))
	}
	switch {
	case l.round.open:
		rest = min(rest, l.round.asked.Add(l.cfg.RoundTimeout).Sub(now))
	case l.round.wanted:
		return 0
	case len(l.pending) > 0:
		rest = min(rest, l.waiting.Add(l.cfg.Lease/4).Sub(now))
	}
	return max(rest, 0)
}

func (l *Leader) evaluate(now Instant) (out []Action) {
	if !l.ready {
		return nil
	}
	if now >= l.calmUntil {
		for i, a := range l.books {
			if a.led && a.released == "" && l.runs(now, a) {
				if a.deciding == nil {
					a.ended, a.fence = 0, ""
				}
				continue // what decide would find, of a thousand volumes at once
			}
			v := l.state.Volumes[l.names[i]]
			out = append(out, l.decide(now, &v)...)
		}
		out = append(out, l.fences()...)
		l.findCalm(now)
	}
	out = append(out, l.startRound(now)...)
	return append(out, l.moveAway(now)...)
}

// findCalm sets calmUntil; 0: some volume is to be looked at whenever anything happens.
func (l *Leader) findCalm(now Instant) {
	l.calmUntil = 0
	until := now.Add(time.Hour)
	for _, a := range l.books {
		if !a.led || a.deciding != nil || a.released != "" || a.ended != 0 || !l.runs(now, a) {
			return
		}
		until = min(until, l.runsUntil(a))
	}
	l.calmUntil = until
}

// moveAway keeps leadership on a node that is not primary, so that losing a primary does not also cost an election, and
// that every primary reaches: what it proposes goes to the leader directly, and what is decided comes from there.
func (l *Leader) moveAway(now Instant) []Action {
	if len(l.orders) > 0 || len(l.fencing) > 0 && !l.myself || len(l.beside) > 0 {
		return nil // the next leader would not know of them, and would ask the agents that run once more
	}
	// A new primary is to be granted its volumes first, and its node stores a new epoch of each.
	if l.newest != 0 && now.Sub(l.newest) < l.cfg.Lease {
		return nil
	}
	for _, a := range l.books {
		if now < l.calmUntil {
			break
		}
		// The next leader counts a full lease anew: nobody is to wait for that. A volume that has waited longer, for a
		// replica or a person, must not keep all others from being moved for.
		if a.deciding != nil || a.released != "" || a.ended != 0 && now.Sub(a.ended) < 4*l.cfg.Lease {
			return nil
		}
	}
	to := l.between(now)
	if to == "" {
		to = l.successor(now)
	}
	if to == "" {
		return nil
	}
	l.moved = now
	return []Action{MoveLeadership{To: to}}
}

// successor is who is to lead instead of a primary; empty: nobody.
func (l *Leader) successor(now Instant) (best string) {
	if !l.leads(l.cfg.Self) || now.Sub(l.since) < 2*l.cfg.Lease || now.Sub(l.moved) < 4*l.cfg.Lease {
		return ""
	}
	for _, n := range l.voters {
		if n == l.cfg.Self || l.leads(n) || !l.near(n, now, l.cfg.Lease) {
			continue
		}
		if best == "" || l.state.Nodes[n].Witness {
			best = n
		}
	}
	return best
}

// near reports whether a node has answered us directly of late.
func (l *Leader) near(node string, now Instant, within time.Duration) bool {
	heard := l.reports[node].asked
	return heard != 0 && now.Sub(heard) <= within
}

// Relayed tells, before a request of node, that it came by way of another node.
func (l *Leader) Relayed(now Instant, node, by string) { l.relayed[node] = relay{by, now} }

// between is the voter through which alone a primary reaches us; empty: none. While that lasts, the primary's lease is
// renewed, so nobody takes its place; but it cannot drop a member that does not answer, which may be us (R4), and nothing
// that is decided reaches it. The one in between reaches both. Leadership stays for two leases at least, so that where
// nobody reaches all it does not swing faster than that.
func (l *Leader) between(now Instant) string {
	if now.Sub(l.since) < 2*l.cfg.Lease || l.moved != 0 && now.Sub(l.moved) < 4*l.cfg.Lease {
		return ""
	}
	for _, node := range slices.Sorted(maps.Keys(l.relayed)) {
		r := l.relayed[node]
		if now.Sub(r.at) <= l.cfg.Lease/2 && l.leads(node) && node != l.cfg.Self && !l.near(node, now, l.cfg.Lease/2) &&
			slices.Contains(l.voters, r.by) && l.near(r.by, now, l.cfg.Lease/2) {
			return r.by
		}
	}
	return ""
}

func (l *Leader) leads(node string) bool { return len(l.primaries[node]) > 0 }
