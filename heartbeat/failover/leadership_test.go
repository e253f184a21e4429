package failover

import (
	"slices"
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

func TestLeadershipMovesAwayFromThePrimary(t *testing.T) {
	g := newRig(t)
	g.l = NewLeader(Config{Self: "p", Term: term, Lease: lease}, g.now)
	g.reports["w"] = cluster.Report{}
	g.reach["w"] = true
	lead := func(d time.Duration) {
		for end := g.now.Add(d); g.now < end; g.now = g.now.Add(100 * time.Millisecond) {
			r := g.requestOf("p")
			acts := g.l.Request(g.now, r)
			for len(acts) > 0 {
				a := acts[0]
				acts = acts[1:]
				switch a := a.(type) {
				case Ask:
					acts = append(acts, g.l.Answer(g.now, "s", a.Round, term, nil)...)
					acts = append(acts, g.l.Answer(g.now, "w", a.Round, term, nil)...)
				case CheckSelf:
					acts = append(acts, g.l.Confirm(g.now, a.Round, term, true)...)
				case MoveLeadership:
					g.moves = append(g.moves, a.To)
				}
			}
		}
	}
	g.l.Applied(g.now, g.state, g.voters, true)
	lead(2*lease - 200*time.Millisecond)
	if len(g.moves) != 0 {
		t.Fatal("moved at once: leadership would swing")
	}
	g.l.Order(g.now, "v", Order{To: "s"})
	lead(lease)
	if len(g.moves) != 0 {
		t.Fatal("moved with an order at hand: the next leader would not know of it")
	}
	g.l.Cancel("v")
	lead(lease)
	if len(g.moves) != 1 || g.moves[0] != "w" {
		t.Fatalf("moved to %v, want once to the witness", g.moves)
	}
}

// The primary's lease is renewed by way of another voter only: the leader makes room for that one, which reaches both.
// A relay that is no voter, or that does not answer the leader, is no help; nor is one that was needed a while ago.
func TestLeadershipMovesToWhoReachesThePrimary(t *testing.T) {
	for name, c := range map[string]struct {
		by     string
		direct bool // the primary answers the leader, too
		silent bool // the relay does not answer
		before bool // the relay was needed before only
		stuck  bool // another volume waits, for long
		voters []string
		want   []string
	}{
		"by way of a voter": {by: "s", want: []string{"s"}},
		"by way of a voter, beside a volume that waits for a person": {by: "s", stuck: true, want: []string{"s"}},
		"directly, too":                     {by: "s", direct: true},
		"no more":                           {by: "s", before: true},
		"by way of who does not answer":     {by: "s", silent: true},
		"by way of one that has no vote":    {by: "s", voters: []string{"w"}},
		"by way of one nobody has heard of": {by: "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			if c.voters != nil {
				g.voters = c.voters
				g.applied()
			}
			ask := func(relayed bool, d time.Duration) {
				for end := g.now.Add(d); g.now < end; g.now = g.now.Add(lease / 8) {
					if relayed {
						g.l.Relayed(g.now, "p", c.by)
					}
					g.request("p")
					for _, n := range []string{"p", "s"} { // also who has no vote is asked
						if g.reach[n] && !slices.Contains(g.voters, n) {
							g.run(g.answer(n, g.l.round.number))
						}
					}
				}
			}
			if c.stuck {
				g.state.Volumes["w"] = cluster.Volume{Name: "w", Version: 1, Epoch: 3, Primary: "gone", Members: map[string]cluster.Member{"gone": {}}}
				g.applied()
				ask(false, 6*lease)
			}
			ask(c.before, 2*lease)
			g.reach["p"], g.reach["s"] = c.direct, !c.silent
			ask(!c.before, lease*7/8)
			if !slices.Equal(g.moves, c.want) {
				t.Fatalf("moved to %v, want %v", g.moves, c.want)
			}
		})
	}
}

func TestLeaderThatIsNoPrimaryStays(t *testing.T) {
	g := newRig(t)
	for range 50 {
		g.request("p")
		g.pass(lease / 3)
	}
	if len(g.moves) != 0 {
		t.Fatalf("moved to %v", g.moves)
	}
	g.wantNoPromotion("all is well")
	if g.asks > 60 {
		t.Fatalf("asked %d times for 50 renewals", g.asks)
	}
}
