package failover

import (
	"fmt"
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

func TestGrantNamesWhatTheNodeLeads(t *testing.T) { // R8, R9
	g := newRig(t)
	gr := g.request("p")
	if gr == nil || gr.Volumes["v"] != 3 || gr.Length != lease || gr.Term != term || gr.Number != 1 || gr.Start != 1 {
		t.Fatalf("%+v", gr)
	}
	if gr = g.requestInTime("s"); gr == nil || len(gr.Volumes) != 0 {
		t.Fatalf("a standby was granted %+v", gr)
	}
}

// A node that asks again and again does not put off its own answer.
func TestWhoHasTimeAndAsksOftenIsAnswered(t *testing.T) {
	g := newRig(t)
	g.request("p")
	before := len(g.grants)
	for range 6 {
		g.request("s")
		g.pass(lease / 8)
	}
	if len(g.grants) == before {
		t.Fatal("asked for three quarters of a lease and was never answered")
	}
}

// Who serves nothing is answered by the round of one that does, or after a quarter of a lease.
func TestOneRoundServesWhoHasTime(t *testing.T) {
	g := newRig(t)
	g.request("p")
	for range 20 {
		before := g.asks
		for _, n := range []string{"s", "w"} {
			if g.request(n) != nil {
				t.Fatalf("%s, which serves nothing, had a round to itself", n)
			}
		}
		given := len(g.grants)
		if !g.named("p") || g.asks != before+1 || len(g.grants) != given+3 {
			t.Fatalf("%d rounds and %d grants for three nodes", g.asks-before, len(g.grants)-given)
		}
		g.pass(lease / 8)
	}
	if g.request("s") != nil {
		t.Fatal("answered at once")
	}
	if g.pass(lease / 4); g.grants[len(g.grants)-1].Node != "s" {
		t.Fatal("not answered after a quarter of a lease, though nobody else asks")
	}
}

func TestNoGrantBeforeTheBarrierOfTheTerm(t *testing.T) { // R8
	g := newRig(t)
	g.l = NewLeader(Config{Self: "w", Term: term, Lease: lease}, g.now)
	g.run(g.l.Applied(g.now, g.state, g.voters, false))
	if gr := g.request("p"); gr != nil || g.asks != 0 {
		t.Fatalf("granted %+v before the barrier", gr)
	}
	g.reach["p"] = false
	g.pass(3 * full)
	g.wantNoPromotion("before the barrier the record may be an old one")
}

func TestNoGrantWithoutAMajorityInOurTerm(t *testing.T) { // R8
	for name, c := range map[string]func(g *rig){
		"nobody answers":                func(g *rig) { g.reach["p"], g.reach["s"] = false, false },
		"others in a newer term":        func(g *rig) { g.terms["p"], g.terms["s"] = term+1, term+1 },
		"others in an older term":       func(g *rig) { g.terms["p"], g.terms["s"] = term-1, term-1 },
		"we lead no more":               func(g *rig) { g.deposed = true },
		"we are in another term":        func(g *rig) { g.term++; g.terms["p"], g.terms["s"] = term, term },
		"who answers does not vote":     func(g *rig) { g.voters = []string{"a", "b", "w"}; g.applied(); g.voters = []string{"p", "s"} },
		"a majority of four is not two": func(g *rig) { g.voters = []string{"a", "p", "s", "w"}; g.applied(); g.voters = []string{"p"} },
		"a majority of five is not two": func(g *rig) {
			g.voters = []string{"a", "b", "p", "s", "w"}
			g.applied()
			g.voters = []string{"p"}
		},
	} {
		g := newRig(t)
		c(g)
		if gr := g.request("p"); gr != nil {
			t.Errorf("%s: granted", name)
		}
	}
	g := newRig(t)
	g.reach["s"] = false // p and w are two of three
	if !g.named("p") {
		t.Fatal("a majority answered and nothing was granted")
	}
}

func TestLeadershipIsConfirmedByAQuestionAskedAfterTheRequest(t *testing.T) { // R8
	g := newRig(t)
	g.reach["p"], g.reach["s"] = false, false
	g.run(g.l.Request(g.now, g.requestOf("p"))) // round 1 is out
	first := g.l.round.number
	g.run(g.l.Request(g.now, g.requestOf("s"))) // comes later: waits for the next
	g.run(g.answer("p", first))
	if len(g.grants) != 1 || g.grants[0].Node != "p" {
		t.Fatalf("granted %+v, want only what was asked before the question", g.grants)
	}
	g.pass(lease / 4)
	if g.l.round.number != first+1 || !g.l.round.open {
		t.Fatal("no question was asked for the request that waits")
	}
	g.run(g.answer("p", first))
	if len(g.grants) != 1 {
		t.Fatal("an answer to an earlier question counted")
	}
	g.run(g.answer("s", first+1))
	if len(g.grants) != 2 || g.grants[1].Node != "s" {
		t.Fatalf("granted %+v", g.grants)
	}
}

func TestOneVoterCountsOnce(t *testing.T) { // R8
	g := newRig(t)
	g.voters = append(g.voters, "a", "b")
	g.applied()
	g.reach["p"], g.reach["s"] = false, false
	g.run(g.l.Request(g.now, g.requestOf("p")))
	for range 5 {
		g.run(g.answer("p", g.l.round.number))
	}
	if len(g.grants) != 0 {
		t.Fatal("one voter that answered often was taken for a majority of five")
	}
}

func TestOurOwnTermOfAnEarlierRoundConfirmsNothing(t *testing.T) { // R8: ours is read last
	g := newRig(t)
	g.mute = true
	g.run(g.l.Request(g.now, g.requestOf("p")))
	first := g.l.round.number
	g.pass(lease) // our own term was not told in time: asked again
	if g.l.round.number == first || !g.l.round.checked {
		t.Fatal("no newer round to confuse it with")
	}
	g.run(g.l.Confirm(g.now, first, term, true))
	if len(g.grants) != 0 {
		t.Fatal("a term that we read before the question confirmed the round")
	}
	g.run(g.l.Confirm(g.now, g.l.round.number, term, true))
	g.run(g.l.Confirm(g.now, g.l.round.number, term, true))
	if len(g.grants) != 1 {
		t.Fatalf("%d grants, want one", len(g.grants))
	}
}

func TestRoundIsConfirmedByThoseWhoVoteAtItsEnd(t *testing.T) { // R8
	g := newRig(t)
	g.mute = true
	g.run(g.l.Request(g.now, g.requestOf("p")))
	g.voters = []string{"a", "b", "w"}
	g.applied()
	g.run(g.l.Confirm(g.now, g.l.round.number, term, true))
	if len(g.grants) != 0 {
		t.Fatal("confirmed by nodes that vote no more")
	}
}

func TestUnansweredRoundIsAskedAgainForAllThatWait(t *testing.T) {
	g := newRig(t)
	g.reach["p"], g.reach["s"] = false, false
	g.run(g.l.Request(g.now, g.requestOf("p")))
	g.run(g.l.Request(g.now, g.requestOf("s")))
	g.pass(lease / 8)
	if g.asks != 1 {
		t.Fatalf("asked %d times within the round's time", g.asks)
	}
	g.reach["p"] = true
	g.pass(lease / 4)
	got := map[string]int{}
	for _, gr := range g.grants {
		got[gr.Node]++
	}
	if got["p"] != 1 || got["s"] != 1 {
		t.Fatalf("granted %v, want each that waited once", got)
	}
}

func TestNewerRequestOfANodeTakesThePlaceOfAnOlder(t *testing.T) { // R28: one waits for each node
	g := newRig(t)
	g.reach["p"], g.reach["s"] = false, false
	for range 100 {
		g.run(g.l.Request(g.now, g.requestOf("p")))
	}
	if n := len(g.l.pending) + len(g.l.round.serving); n > 2 {
		t.Fatalf("%d requests wait", n)
	}
	g.reach["s"] = true
	g.pass(lease)
	if n := len(g.grants); n == 0 || g.grants[n-1].Number != 100 {
		t.Fatalf("%d grants", n)
	}
}

func TestRequestIsIgnored(t *testing.T) { // R10
	for name, change := range map[string]func(r *cluster.LeaseRequest){
		"the last one again":        func(r *cluster.LeaseRequest) { r.Number = 5 },
		"older than the last":       func(r *cluster.LeaseRequest) { r.Number = 4 },
		"of an older process":       func(r *cluster.LeaseRequest) { r.Start, r.Number = 0, 99 },
		"of a stranger":             func(r *cluster.LeaseRequest) { r.Node = "y" },
		"of another data directory": func(r *cluster.LeaseRequest) { r.DataDir = "else" },
	} {
		g := newRig(t)
		for range 5 {
			g.request("p")
		}
		r := g.requestOf("p")
		change(&r)
		before := len(g.grants)
		if g.run(g.l.Request(g.now, r)); len(g.grants) != before {
			t.Errorf("%s: answered", name)
		}
	}
}

func TestStrangersTakeNoMemory(t *testing.T) { // R28
	g := newRig(t)
	for i := range 1000 {
		n := fmt.Sprint("y", i)
		g.l.Request(g.now, cluster.LeaseRequest{Node: n, Start: 1, Number: 1, DataDir: "d"})
		g.l.Answer(g.now, n, g.l.round.number, term, nil)
		g.l.GiveUp(g.now, GiveUp{Node: n, Start: 1, Number: 1, Volume: "v", Epoch: 3})
		g.l.GiveUp(g.now, GiveUp{Node: "p", Start: 1, Number: 1, Volume: n})
	}
	if n := len(g.l.accepted) + len(g.l.reports) + len(g.l.pending) + len(g.l.accounts); n > 5 {
		t.Fatalf("%d entries are kept", n)
	}
}

func TestOldProcessIsGrantedNothing(t *testing.T) { // R2, R9
	g := newRig(t)
	g.request("p")
	g.starts["p"] = 2 // not the one that was promoted
	g.report("p", func(r *cluster.Report) { r.Process, r.Held = 2, false })
	if g.named("p") {
		t.Fatal("a process that was not promoted was granted the volume")
	}
}

func TestDropNeedsAGrantInForce(t *testing.T) { // R4
	drop := func(by, node string, e cluster.Epoch) cluster.Command {
		return cluster.Command{By: by, Drop: &cluster.Drop{On: cluster.On{Volume: "v", Epoch: e, Version: 10}, Node: node}}
	}
	for name, c := range map[string]struct {
		prepare func(g *rig)
		cmd     cluster.Command
		want    bool
	}{
		"by the primary with a lease": {func(g *rig) { g.request("p") }, drop("p", "s", 3), true},
		"by the replica itself":       {func(g *rig) {}, drop("s", "s", 3), true},
		"without a grant":             {func(g *rig) {}, drop("p", "s", 3), false},
		"without a grant of this term, an earlier one may be in force": {func(g *rig) { g.l = NewLeader(Config{Self: "w", Term: term, Lease: lease}, g.now); g.applied() }, drop("p", "s", 3), false},
		"after the lease, nobody to follow":                            {func(g *rig) { g.request("p"); g.reach["p"], g.reach["s"] = false, false; g.pass(full + time.Second) }, drop("p", "s", 3), false},
		"after the lease":                                              {func(g *rig) { g.request("p"); g.reach["p"] = false; g.pass(full + time.Second) }, drop("p", "s", 3), false},
		"of another epoch":                                             {func(g *rig) { g.request("p") }, drop("p", "s", 2), false},
		"after a give-up":                                              {func(g *rig) { g.request("p"); g.reach["s"] = false; g.giveUp(term) }, drop("p", "s", 3), false},
		"while a promotion is decided":                                 {func(g *rig) { g.request("p"); g.giveUp(term) }, drop("p", "s", 3), false},
	} {
		g := newRig(t)
		c.prepare(g)
		if got := g.l.MayDrop(g.now, c.cmd); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

func TestGrantingAndPromotingExcludeEachOther(t *testing.T) { // R10
	g := newRig(t)
	g.request("p")
	g.reach["p"] = false
	g.pass(2 * full)
	g.wantPromotion("s", cluster.BasisUnchanged)
	g.reach["p"] = true
	if g.named("p") {
		t.Fatal("named while a promotion is on its way")
	}
	g.change(func(v *cluster.Volume) { v.Version++ }) // it was void
	if !g.named("p") {
		t.Fatal("not named although the promotion is decided to be void")
	}
}

func TestGrantIsNotedBeforeItIsAnswered(t *testing.T) { // R10: the reply may be under way
	g := newRig(t)
	g.mute = true
	g.run(g.l.Request(g.now, g.requestOf("p")))
	g.now = g.now.Add(500 * time.Millisecond)
	acts := g.l.Confirm(g.now, g.l.round.number, term, true)
	if a := g.l.account("v"); a.until != g.now.Add(full) {
		t.Fatalf("noted until %v, want %v", a.until, g.now.Add(full))
	}
	if _, ok := acts[0].(Reply); !ok {
		t.Fatalf("%#v", acts)
	}
}

// A leader of a shorter RTO target than the one before waits for the leases of that one, and grants its own.
func TestShorterLeaseWaitsForTheLongestInForce(t *testing.T) { // R10
	g := youngRig(t)
	g.l = NewLeader(Config{Self: "w", Term: term, Lease: lease / 3}, g.now)
	g.l.SetLease(lease/3, lease)
	g.applied()
	g.reach["p"] = false
	g.pass(full - time.Millisecond)
	g.wantNoPromotion("a lease of the old length may be in force")
	g.pass(lease)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

func TestGrantsHaveTheLengthThatIsSet(t *testing.T) {
	g := newRig(t)
	g.request("p")
	g.l.SetLease(2*lease, 2*lease)
	g.request("p")
	if n := len(g.grants); n != 2 || g.grants[0].Length != lease || g.grants[1].Length != 2*lease {
		t.Fatalf("granted %+v", g.grants)
	}
	g.reach["p"] = false
	g.pass(2*full - time.Millisecond)
	g.wantNoPromotion("the longer lease has not ended")
}

// Whoever ticks the Leader only when Rest says so sees it decide as early, but for a moment, as who ticks it all the time.
func TestTimeActsWhenRestSaysSo(t *testing.T) {
	const step = lease / 120
	decided := func(t *testing.T, events map[int]func(g *rig), lazy bool) (granted, promoted int) {
		g := newRig(t)
		g.request("p")
		due := g.now
		for i := 1; i < 500; i++ {
			g.now = g.now.Add(step)
			before := len(g.grants)
			event := events[i]
			if event != nil {
				event(g)
			}
			if !lazy || g.now >= due {
				g.run(g.l.Tick(g.now))
			} else if event == nil {
				continue
			}
			due = g.now.Add(g.l.Rest(g.now))
			if granted == 0 && len(g.grants) > before {
				granted = i
			}
			if promoted == 0 && g.promotion() != nil {
				promoted = i
			}
		}
		return granted, promoted
	}
	silent := func(g *rig) { g.mute = true; g.request("p"); g.mute = false }
	for name, events := range map[string]map[int]func(g *rig){
		"the primary is silent":              {1: func(g *rig) { g.reach["p"] = false }},
		"a standby waits for its lease":      {7: func(g *rig) { g.request("s") }},
		"two wait for their lease":           {7: func(g *rig) { g.request("s") }, 25: func(g *rig) { g.request("w") }},
		"a round is not answered":            {7: silent, 25: func(g *rig) { g.request("s") }},
		"the primary gives up, too early":    {7: func(g *rig) { g.giveUp(0) }},
		"the primary and a voter are silent": {1: func(g *rig) { g.reach["p"], g.reach["s"] = false, false }},
	} {
		t.Run(name, func(t *testing.T) {
			granted, promoted := decided(t, events, false)
			lazyGranted, lazyPromoted := decided(t, events, true)
			if late := max(lazyGranted-granted, lazyPromoted-promoted); late > 1 || lazyGranted < granted || lazyPromoted < promoted {
				t.Errorf("granted at step %d, promoted at %d; by Rest at %d and %d", granted, promoted, lazyGranted, lazyPromoted)
			}
		})
	}
}

// A Leader whose nodes are all well is left alone.
func TestALeaderOfAnIdleClusterRests(t *testing.T) {
	g := newRig(t)
	g.request("p")
	if rest := g.l.Rest(g.now); rest < lease/4 {
		t.Errorf("it rests for %v", rest)
	}
	g.request("s")
	g.pass(lease / 8)
	if rest := g.l.Rest(g.now); rest == 0 || rest > lease/8 {
		t.Errorf("somebody waits, and it rests for %v", rest)
	}
}

// Who says what it was granted is told that it is the same, as long as it is: of a thousand volumes that is much less to say (R9).
func TestGrantOfTheSameNamesIsShort(t *testing.T) {
	g := newRig(t)
	ask := func(has, term uint64) cluster.Grant {
		t.Helper()
		n, r := len(g.grants), g.requestOf("p")
		r.Has, r.HasTerm = has, term
		if g.run(g.l.Request(g.now, r)); len(g.grants) != n+1 {
			t.Fatal("not granted")
		}
		return g.grants[n]
	}
	long := func(gr cluster.Grant, why string) {
		t.Helper()
		if gr.Same != 0 || gr.Volumes["v"] != g.vol().Epoch {
			t.Errorf("%s: same as %d, it names %v", why, gr.Same, gr.Volumes)
		}
	}
	first := ask(0, 0)
	long(first, "the first")
	second := ask(first.Number, first.Term)
	if second.Same != first.Number || second.Volumes != nil {
		t.Errorf("same as %d, it names %v", second.Same, second.Volumes)
	}
	if third := ask(first.Number, first.Term); third.Same != first.Number {
		t.Error("not the same as one further back")
	}
	long(ask(second.Number, term-1), "of another term")
	long(ask(0, 0), "who has none")
	long(ask(100, term), "one that was never granted")
	g.change(func(v *cluster.Volume) { v.Version++ })
	if gr := ask(first.Number, term); gr.Same != first.Number {
		t.Error("another version is another grant")
	}
	g.change(func(v *cluster.Volume) { v.Epoch++ })
	long(ask(first.Number, term), "of an earlier epoch")
	if !g.giveUp(term) {
		t.Fatal("the give-up did not count")
	}
	if gr := ask(5, term); gr.Same != 0 || len(gr.Volumes) != 0 {
		t.Errorf("after a give-up: same as %d, it names %v", gr.Same, gr.Volumes)
	}
}

// A Leader that has found all volumes calm finds one that comes meanwhile.
func TestVolumeThatComesWhileAllAreCalmIsFormed(t *testing.T) {
	g := newRig(t)
	g.request("p")
	g.pass(lease / 8)
	for _, n := range []string{"p", "s"} {
		g.reports[n] = cluster.Report{Volume: "w", Incarnation: incA, Process: 1, Held: true, Fresh: true}
	}
	g.commit(cluster.Command{CreateVolume: &cluster.CreateVolume{Name: "w", ID: "w", Size: 1 << 20, Replicas: []cluster.Replica{{Node: "p"}, {Node: "s"}}}})
	if len(g.proposals) == 0 || g.proposals[0].Form == nil || g.proposals[0].Form.Volume != "w" {
		t.Errorf("it is not formed at once: %+v", g.proposals)
	}
}
