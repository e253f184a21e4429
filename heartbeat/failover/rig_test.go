package failover

import (
	"slices"
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

const (
	second = Instant(time.Second)
	lease  = 3 * time.Second
	full   = lease + lease/100 // with drift
	term   = 5
)

var (
	incA = cluster.Incarnation{Boot: "a", Attachment: "1"}
	incB = cluster.Incarnation{Boot: "b", Attachment: "1"}
)

// rig is a Leader on w, the nodes around it, and everything that the Leader asked for.
type rig struct {
	t      *testing.T
	l      *Leader
	now    Instant
	state  *cluster.State
	term   uint64
	voters []string

	reach   map[string]bool // who answers
	terms   map[string]uint64
	reports map[string]cluster.Report // on volume v, by node
	numbers map[string]uint64         // of requests
	starts  map[string]uint64
	deposed bool // what CheckSelf finds
	mute    bool // CheckSelf is not answered

	grants    []cluster.Grant
	proposals []cluster.Command
	asks      int
	orders    []HandOver
	moves     []string
	fences    []Action // Fence, Spare, Refute
}

// newRig is a leader long enough in its term that no earlier one counts; p is primary of v in epoch 3 with s a member.
func newRig(t *testing.T) *rig {
	t.Helper()
	g := youngRig(t)
	g.now = g.now.Add(full)
	return g
}

func youngRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{t: t, now: 1000 * second, term: term, voters: []string{"p", "s", "w"}, state: cluster.NewState(), reach: map[string]bool{},
		terms: map[string]uint64{}, reports: map[string]cluster.Report{}, numbers: map[string]uint64{}, starts: map[string]uint64{}}
	init := &cluster.Init{ID: "c"}
	for _, n := range g.voters {
		init.Nodes = append(init.Nodes, cluster.Node{Name: n, Witness: n == "w", DataDir: "d" + n, Start: 1, Boot: "a"})
		g.reach[n], g.starts[n] = true, 1
	}
	init.Volumes = []cluster.CreateVolume{{Name: "v", Size: 1 << 20, Replicas: []cluster.Replica{{Node: "p"}, {Node: "s"}}}}
	g.state.Apply(1, term, cluster.Command{Init: init})
	v := g.state.Volumes["v"]
	v.Epoch, v.Version, v.Primary, v.Process = 3, 10, "p", 1
	v.Members = map[string]cluster.Member{"p": {Incarnation: incA, Process: 1}, "s": {Incarnation: incA, Process: 1}}
	g.state.Volumes["v"] = v
	for _, n := range []string{"p", "s"} {
		g.reports[n] = cluster.Report{Volume: "v", Incarnation: incA, Process: 1, Epoch: 3, Held: true}
	}
	g.l = NewLeader(Config{Self: "w", Term: term, Lease: lease}, g.now)
	g.applied()
	return g
}

func (g *rig) vol() cluster.Volume { return g.state.Volumes["v"] }

// change edits the record as committed entries would have.
func (g *rig) change(f func(v *cluster.Volume)) {
	g.state = g.state.Clone()
	v := g.state.Volumes["v"]
	f(&v)
	g.state.Volumes["v"] = v
	g.applied()
}

func (g *rig) applied() { g.run(g.l.Applied(g.now, g.state, g.voters, true)) }

// commit applies a command as an entry of the current term.
func (g *rig) commit(c cluster.Command) cluster.Result {
	g.state = g.state.Clone()
	r := g.state.Apply(g.state.Index+1, g.term, c)
	g.applied()
	return r
}

// run carries actions out: everybody within reach answers at once.
func (g *rig) run(acts []Action) {
	for len(acts) > 0 {
		a := acts[0]
		acts = acts[1:]
		switch a := a.(type) {
		case Ask:
			g.asks++
			for _, n := range g.voters {
				if g.reach[n] && n != "w" {
					acts = append(acts, g.answer(n, a.Round)...)
				}
			}
		case CheckSelf:
			if !g.mute {
				acts = append(acts, g.l.Confirm(g.now, a.Round, g.term, !g.deposed)...)
			}
		case Reply:
			g.grants = append(g.grants, a.Grant)
		case Propose:
			g.proposals = append(g.proposals, a.Command)
		case HandOver:
			g.orders = append(g.orders, a)
		case MoveLeadership:
			g.moves = append(g.moves, a.To)
		case Fence, Spare, Refute:
			g.fences = append(g.fences, a)
		}
	}
}

func (g *rig) answer(node string, round uint64) []Action {
	t := g.terms[node]
	if t == 0 {
		t = g.term
	}
	var reports []cluster.Report
	if r, ok := g.reports[node]; ok {
		reports = append(reports, r)
	}
	return g.l.Answer(g.now, node, round, t, reports)
}

func (g *rig) requestOf(node string) cluster.LeaseRequest {
	g.numbers[node]++
	r := cluster.LeaseRequest{Node: node, Start: g.starts[node], Number: g.numbers[node], Boot: "a", DataDir: "d" + node}
	if rep, ok := g.reports[node]; ok {
		r.Boot, r.Reports = rep.Incarnation.Boot, []cluster.Report{rep}
	}
	return r
}

// request asks for a lease and returns the grant that came at once, if any.
func (g *rig) request(node string) *cluster.Grant {
	n := len(g.grants)
	g.run(g.l.Request(g.now, g.requestOf(node)))
	if len(g.grants) == n {
		return nil
	}
	return &g.grants[len(g.grants)-1]
}

// requestInTime is request for a node that serves nothing: its answer may take a quarter of a lease.
func (g *rig) requestInTime(node string) *cluster.Grant {
	n := len(g.grants)
	g.request(node)
	if g.pass(lease / 4); len(g.grants) == n {
		return nil
	}
	return &g.grants[len(g.grants)-1]
}

func (g *rig) named(node string) bool {
	gr := g.request(node)
	return gr != nil && gr.Volumes["v"] != 0
}

// giveUp tells the leader that p gave the volume up; trm is the term of p's newest grant.
func (g *rig) giveUp(trm uint64, change ...func(*GiveUp)) bool {
	g.numbers["p"]++
	u := GiveUp{Node: "p", Start: 1, Number: g.numbers["p"], Term: trm, Volume: "v", Epoch: g.vol().Epoch}
	for _, f := range change {
		f(&u)
	}
	acts, ok := g.l.GiveUp(g.now, u)
	g.run(acts)
	return ok
}

func (g *rig) pass(d time.Duration) {
	for end := g.now.Add(d); g.now < end; {
		g.now = min(end, g.now.Add(100*time.Millisecond))
		g.run(g.l.Tick(g.now))
	}
}

// promotion is the newest proposed one, nil without.
func (g *rig) promotion() *cluster.Promote {
	for i := len(g.proposals) - 1; i >= 0; i-- {
		if p := g.proposals[i].Promote; p != nil {
			return p
		}
	}
	return nil
}

func (g *rig) wantNoPromotion(why string) {
	g.t.Helper()
	if p := g.promotion(); p != nil {
		g.t.Fatalf("%s: %s is promoted (%s, %s)", why, p.Candidate, p.Basis, p.Reason)
	}
}

func (g *rig) wantPromotion(candidate string, basis cluster.Basis, leave ...string) *cluster.Promote {
	g.t.Helper()
	p := g.promotion()
	if p == nil {
		g.t.Fatalf("nobody is promoted, want %s", candidate)
	}
	if p.Candidate != candidate || p.Basis != basis || !slices.Equal(p.Leave, leave) {
		g.t.Fatalf("%s is promoted, %s, leaving %v; want %s, %s, %v", p.Candidate, p.Basis, p.Leave, candidate, basis, leave)
	}
	v := g.vol()
	if p.Term != g.term || (p.On != cluster.On{Volume: "v", Epoch: v.Epoch, Version: v.Version}) {
		g.t.Fatalf("decided on %+v in term %d", p.On, p.Term)
	}
	return p
}

func (g *rig) report(node string, change func(*cluster.Report)) {
	r := g.reports[node]
	change(&r)
	g.reports[node] = r
}

// restart registers a new process of node under inc.
func (g *rig) restart(node string, inc cluster.Incarnation) {
	g.starts[node]++
	g.numbers[node] = 0
	g.report(node, func(r *cluster.Report) { r.Process, r.Incarnation = g.starts[node], inc })
	if r := g.commit(cluster.Command{StartNode: &cluster.StartNode{Node: node, DataDir: "d" + node, Start: g.starts[node], Boot: inc.Boot}}); r.Void != "" {
		g.t.Fatal(r.Void)
	}
}
