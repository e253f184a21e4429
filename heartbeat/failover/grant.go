package failover

import (
	"slices"
	"time"

	"hacluster/heartbeat/cluster"
)

// round is one confirmation round of R8: a question asked after the requests that it serves arrived.
type round struct {
	number  uint64
	open    bool
	asked   Instant
	serving []cluster.LeaseRequest
	said    map[string]bool // voters that answered with our term
	checked bool            // CheckSelf is out
	wanted  bool            // reports are wanted although nobody waits for a lease
	reports bool            // they were asked for
}

// Request takes a lease request, of any node by way of any node. One that is older than what its node sent before is
// ignored (R10).
func (l *Leader) Request(now Instant, r cluster.LeaseRequest) []Action {
	if n, ok := l.state.Nodes[r.Node]; !l.ready || !ok || n.DataDir != r.DataDir {
		return nil // not of this cluster, or another data directory under the same name
	}
	if l.stale(r.Node, requestID{r.Start, r.Number}) {
		return nil
	}
	l.noteNewProcess(r)
	l.noteLag(now, r.Node, r.Reports)
	if len(l.pending) == 0 {
		l.waiting = now
	}
	// One waiting request per node: a newer one takes the place of an older, and has waited as long.
	l.pending = slices.DeleteFunc(l.pending, func(p cluster.LeaseRequest) bool { return p.Node == r.Node })
	l.pending = append(l.pending, r)
	out := l.alive(now, r.Node, r.Start, 0)
	return append(out, l.evaluate(now)...)
}

// pressing reports whether somebody waits for whom a round must be held now. Who serves nothing has time: it is served by
// the round of one that does, so that an idle cluster confirms once for all of its nodes.
func (l *Leader) pressing(now Instant) bool {
	return len(l.pending) > 0 && (now.Sub(l.waiting) >= l.cfg.Lease/4 ||
		slices.ContainsFunc(l.pending, func(r cluster.LeaseRequest) bool { return l.leads(r.Node) }))
}

func (l *Leader) stale(node string, id requestID) bool {
	if id.older(l.accepted[node]) {
		return true
	}
	l.accepted[node] = id
	return false
}

// noteNewProcess applies R10's exception: a newer process of the primary's node that holds the backing under the same
// boot and the same data directory proves that the old process is gone.
func (l *Leader) noteNewProcess(r cluster.LeaseRequest) {
	for _, rep := range r.Reports {
		v, ok := l.state.Volumes[rep.Volume]
		if !ok || v.Primary != r.Node || r.Start <= v.Process || rep.Process != r.Start || !rep.Held {
			continue
		}
		if v.Members[v.Primary].Incarnation.Boot == r.Boot {
			if a := l.account(rep.Volume); a.deciding == nil && a.released == "" {
				a.released, a.ended, a.attached = replaced, 0, rep.Attached
				l.calmUntil = 0
			}
		}
	}
}

// Why a lease can be over before its time.
const (
	replaced = "its process was replaced"
	givenUp  = "given up"
)

// GiveUp takes a primary's word that it stopped serving a volume (R30): from here on only a request made afterwards
// is granted it. to is the wanted successor, empty: any member. failed: its own disk failed.
type GiveUp struct {
	Node          string `json:"node"`
	Start, Number uint64
	// Term is that of the newest grant that the node has applied. When it is the leader's own, no earlier leader can
	// have granted the volume again after the give-up.
	Term   uint64        `json:"term"`
	Volume string        `json:"volume"`
	Epoch  cluster.Epoch `json:"epoch"`
	To     string        `json:"to"`
	Failed bool          `json:"failed"`
}

// GiveUp notes one, and reports whether it counted. Telling the same again is harmless.
func (l *Leader) GiveUp(now Instant, g GiveUp) ([]Action, bool) {
	v, ok := l.state.Volumes[g.Volume]
	if !l.ready || !ok || v.Epoch != g.Epoch || v.Primary != g.Node || v.Process != g.Start {
		return nil, false
	}
	a, id := l.account(g.Volume), requestID{g.Start, g.Number}
	if a.gaveUp[g.Node] == id {
		return nil, true
	}
	if a.deciding != nil || l.stale(g.Node, id) {
		return nil, false
	}
	a.gaveUp[g.Node] = id
	a.released, a.ended, a.handTo, a.gaveTo, a.failed, a.proven = givenUp, 0, g.To, g.To, g.Failed, g.Term == l.cfg.Term
	l.calmUntil = 0
	return l.evaluate(now), true
}

// startRound asks when somebody waits, or when reports are wanted, and no question is out.
func (l *Leader) startRound(now Instant) []Action {
	r := &l.round
	if r.open && now.Sub(r.asked) < l.cfg.RoundTimeout {
		return nil
	}
	if !r.open && !r.wanted && !l.pressing(now) {
		return nil
	}
	serving := l.pending
	if r.open { // timed out: who still waits is served by the next; a newer request of the same node replaces it
		for _, old := range r.serving {
			if !slices.ContainsFunc(serving, func(p cluster.LeaseRequest) bool { return p.Node == old.Node }) {
				serving = append(serving, old)
			}
		}
	}
	if len(serving) == 0 && !r.wanted {
		r.open = false
		return nil
	}
	l.lastNum++
	l.pending = nil
	*r = round{number: l.lastNum, open: true, asked: now, serving: serving, said: map[string]bool{}, reports: r.wanted || l.promotes()}
	return append([]Action{Ask{Round: r.number, Reports: r.reports}}, l.majority()...)
}

// promotes reports whether a volume's lease is over: each round is to bring what it rests on who follows, until that is applied.
func (l *Leader) promotes() bool {
	for _, a := range l.books {
		if a.ended != 0 {
			return true
		}
	}
	return false
}

// Answer takes a node's answer to a round: its own current term, read after the question, and its reports. An answer
// to an earlier round tells nothing; one that comes after the majority still brings its reports.
func (l *Leader) Answer(now Instant, node string, number, term uint64, reports []cluster.Report) []Action {
	r := &l.round
	if number != r.number {
		return nil
	}
	if _, ok := l.state.Nodes[node]; !ok {
		return nil
	}
	a := l.reports[node]
	a.asked = r.asked
	if r.reports {
		a.round, a.reports = number, make(map[string]cluster.Report, len(reports))
		for _, rep := range reports {
			a.reports[rep.Volume] = rep
		}
	}
	l.reports[node] = a
	l.noteLag(r.asked, node, reports)
	var lies []Action
	if len(reports) > 0 {
		lies = l.alive(now, node, reports[0].Process, number)
	}
	if r.open && term == l.cfg.Term {
		r.said[node] = true
	}
	return append(append(lies, l.majority()...), l.evaluate(now)...)
}

func (l *Leader) majority() []Action {
	r := &l.round
	if !r.open || r.checked || !l.enough() {
		return nil
	}
	r.checked = true
	return []Action{CheckSelf{Round: r.number}}
}

// enough reports whether a majority of those who vote now answered with our term, we ourselves among them: we are
// checked last.
func (l *Leader) enough() bool {
	votes := 0
	for _, v := range l.voters {
		if v == l.cfg.Self || l.round.said[v] {
			votes++
		}
	}
	return 2*votes > len(l.voters)
}

// Confirm ends a round: leading and term are our own, read after a majority had answered. The grants are noted before
// they are handed out.
func (l *Leader) Confirm(now Instant, number, term uint64, leading bool) (out []Action) {
	r := &l.round
	if !r.open || !r.checked || number != r.number {
		return nil
	}
	r.open = false
	if !leading || term != l.cfg.Term || !l.enough() {
		return nil
	}
	for _, q := range r.serving {
		out = append(out, Reply{Grant: l.grant(now, q)})
	}
	r.serving = nil
	return append(out, l.evaluate(now)...)
}

func (l *Leader) grant(now Instant, q cluster.LeaseRequest) cluster.Grant {
	g := cluster.Grant{Node: q.Node, Start: q.Start, Number: q.Number, Term: l.cfg.Term, Length: l.cfg.Lease}
	id := requestID{q.Start, q.Number}
	before := l.sent[q.Node]
	same := before.start == q.Start
	var named []led
	for _, v := range l.primaries[q.Node] {
		a := v.book
		if v.process != q.Start || id.older(a.gaveUp[q.Node]) || l.countsAsOff(q.Node, q.Start) {
			continue
		}
		if a.deciding != nil || a.released != "" {
			continue // the volume goes to another, or back to its primary, only by a decision
		}
		a.until = max(a.until, now.Add(l.withDrift(l.cfg.Lease)))
		a.granted, a.ended = true, 0
		named = append(named, v)
		e, ok := before.volumes[v.name]
		same = same && ok && e == v.epoch
	}
	if !same || len(named) != len(before.volumes) {
		before = sent{start: q.Start, from: q.Number, volumes: make(map[string]cluster.Epoch, len(named))}
		for _, v := range named {
			before.volumes[v.name] = v.epoch
		}
	}
	if q.HasTerm == l.cfg.Term && q.Has >= before.from && q.Has <= before.to {
		g.Same = q.Has
	} else {
		g.Volumes = before.volumes
	}
	before.to = q.Number
	l.sent[q.Node] = before
	return g
}

// sent is what the newest grants of a node named, all the same, from one request's to another's. A thousand names several times a
// second are much to say to who knows them.
type sent struct {
	start, from, to uint64
	volumes         map[string]cluster.Epoch // in grants that are out: never changed
}

func (l *Leader) withDrift(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + l.cfg.Drift))
}

// MayDrop reports whether a drop proposed by node may go to Raft (R4): by the replica itself, or by the primary while
// a grant naming the volume is in force.
func (l *Leader) MayDrop(now Instant, c cluster.Command) bool {
	d := c.Drop
	if c.By == d.Node {
		return true
	}
	a := l.account(d.Volume)
	return l.ready && a.granted && a.epoch == d.Epoch && a.deciding == nil && a.released == "" && now < a.until
}
